"""The memory that is left, of made-up machines."""

import pytest

from tfdqn.runtime import memory

GB = 10**9
MEMINFO = f"MemTotal:  {64 * GB // 1000} kB\nMemAvailable:   {32 * GB // 1024} kB\n"
V2 = "31 23 0:28 / /sys/fs/cgroup rw,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"


@pytest.fixture
def machine(tmp_path):
    def make(cgroup, mountinfo, groups, meminfo=MEMINFO):
        """A `proc` and a `sys`; `groups` has (limit, used, cached) by the folder, after `sys/fs/cgroup`."""
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/meminfo").write_text(meminfo)
        (tmp_path / "proc/self/cgroup").write_text(cgroup)
        (tmp_path / "proc/self/mountinfo").write_text("23 1 8:1 / / rw - ext4 /dev/root rw\n" + mountinfo)
        for name, (limit, used, cached) in groups.items():
            folder = tmp_path / "sys/fs/cgroup" / name
            folder.mkdir(parents=True, exist_ok=True)
            is_v1 = name.startswith("memory")
            (folder / ("memory.limit_in_bytes" if is_v1 else "memory.max")).write_text(f"{limit}\n")
            (folder / ("memory.usage_in_bytes" if is_v1 else "memory.current")).write_text(f"{used}\n")
            text = f"cache 5\ninactive_file 7\ntotal_inactive_file {cached}\n" if is_v1 else f"inactive_file {cached}\n"
            (folder / "memory.stat").write_text(text)
        return tmp_path

    return make


def test_without_groups_it_is_what_the_system_has(machine):
    assert memory.available_bytes(machine("", "", {})) == 32 * GB // 1024 * 1024


def test_another_system_has_no_limit_that_is_known(tmp_path):
    assert memory.available_bytes(tmp_path) == memory.UNKNOWN


def test_the_smallest_rest_on_the_way_up_counts(machine):
    groups = {
        "system.slice": (9 * GB, 5 * GB, 1 * GB),  # 5 GB are left
        "system.slice/job.scope": (8 * GB, 2 * GB, 0),  # 6 GB
        "system.slice/job.scope/task": ("max", 2 * GB, 0),
        "system.slice/other": (1 * GB, 0, 0),
    }
    assert memory.available_bytes(machine("0::/system.slice/job.scope/task\n", V2, groups)) == 5 * GB


def test_version_1_is_read_beside_version_2(machine):
    groups = {
        "memory": (2**63 - 4096, 30 * GB, 0),
        "memory/slurm": (4 * GB, 3 * GB, 2 * GB),
        "memory/slurm/job 1": (2**63 - 4096, GB, 0),
    }
    cgroup = "9:name=systemd:/\n4:cpuset,memory:/slurm/job 1\n1:cpu:/\n0::/\n"
    mounts = V1 + V2.replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
    assert memory.available_bytes(machine(cgroup, mounts, groups)) == 3 * GB


@pytest.mark.parametrize("cgroup", ["4:memory:/docker/abc\n", "4:memory:/docker/abc/inner\n", "4:memory:/../x\n"])
def test_a_container_sees_its_own_group_under_the_path_that_it_has_outside(machine, cgroup):
    mounts = V1.replace("0:32 / ", "0:32 /docker/abc ")
    assert memory.available_bytes(machine(cgroup, mounts, {"memory": (2 * GB, GB, 0)})) == GB


def test_a_group_that_is_over_its_limit_leaves_nothing(machine):
    assert memory.available_bytes(machine("0::/a\n", V2, {"a": (GB, 2 * GB, 0)})) == 0
