"""A disk that really is full: what goes on, what ends, and that nothing is lost once there is space again."""

import os

import pytest

from tests.faults.disk import small_disk
from tests.faults.harness import committed, differences, partial, resume, start
from tfdqn.runs import checkpoints

pytestmark = pytest.mark.slow


@pytest.fixture
def disk(tmp_path):
    with small_disk(tmp_path, megabytes=16) as path:
        if path is None:
            pytest.skip("a small disk can be mounted by root only")
        yield path


def fill(folder, leave):
    """Take all space of the disk but some bytes."""
    with open(folder / "filler", "wb", buffering=0) as file:
        try:
            while os.statvfs(folder).f_bavail * os.statvfs(folder).f_bsize > leave:
                file.write(bytes(4096))
        except OSError:
            assert leave == 0


full = pytest.mark.parametrize("leave", [2**20, 0], ids=["too full for a checkpoint", "not a byte left"])


@full
def test_a_full_disk_costs_no_more_than_a_kill(unbroken, disk, leave):
    process = start(disk)
    assert process.wait_until(lambda: len(committed(disk / "run")) == checkpoints.KEPT), process.errors
    fill(disk, leave)
    assert process.finish() == 5, process.errors
    *_, last = process.errors.strip().split("\n")
    assert "Traceback" not in process.errors
    assert last.startswith("tfdqn: error: ") and str(disk / "run") in last, last
    if leave:
        assert "no checkpoint made" in process.errors and "the last checkpoint is" in last
    assert not partial(disk / "run") and not list((disk / "run").glob(".*"))
    checkpoints._verify(disk / "run" / checkpoints.FOLDER / committed(disk / "run")[0])
    (disk / "filler").unlink()
    process = resume(disk)
    assert process.finish() == 0, process.errors
    assert differences(unbroken, disk / "run") == []


@full
def test_a_disk_that_has_space_again_is_used_again(unbroken, disk, leave):
    process = start(disk)
    assert process.wait_until(lambda: committed(disk / "run")), process.errors
    fill(disk, leave)
    assert process.wait_for("no checkpoint made"), process.errors
    if not leave:
        assert process.wait_for("reports wait in memory"), process.errors
    before = committed(disk / "run")
    (disk / "filler").unlink()
    assert process.wait_until(lambda: committed(disk / "run") != before, pause=0.01), process.errors
    assert process.finish() == 0, process.errors
    assert differences(unbroken, disk / "run") == []
