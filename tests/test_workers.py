"""Several processes that make one run: who they are, what each keeps, and what comes of it when one is lost."""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.whole_runs import SETTINGS
from tfdqn import config as configuration
from tfdqn import train
from tfdqn.errors import EXIT_LOST, EXIT_REFUSED, UserError
from tfdqn.runs import checkpoints, worker_run
from tfdqn.runs.checkpoints import Checkpoint
from tfdqn.runtime import hosts

ROOT = Path(__file__).parents[1]
FLAGS = [
    *("--env", "catch8", "--device", "cpu", "--no-jit", "--seed", "3", "--threads", "1"),
    *("--num-envs", "8", "--batch-size", "16", "--frame-stack", "2"),
    *("--replay-capacity", "1000", "--replay-min-rows", "200", "--target-update-period-updates", "50"),
    *(
        "--log-every-frames",
        "700",
        "--eval-episodes",
        "4",
        "--final-eval-episodes",
        "4",
        "--exchange-every-rounds",
        "10",
    ),
]
LONGEST_SECONDS = 90  # in which the others end after one is lost


def cluster(port, rank, **more):
    addresses = [f"127.0.0.1:{port}", f"127.0.0.1:{port + 1}"]
    return json.dumps({"cluster": {"worker": addresses, **more}, "task": {"type": "worker", "index": rank}})


def free_port():
    """One of two that nobody listens on."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as first, socket.socket() as second:
            try:
                first.bind(("127.0.0.1", port))
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


def start(folder, *flags):
    """Two workers, the chief first."""
    port, started = free_port(), []
    for rank in (0, 1):
        environment = {**os.environ, "TF_CONFIG": cluster(port, rank), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "tfdqn.train", "--trusted-network", *flags]
        with open(folder / f"{rank}.txt", "a") as errors:
            started.append(subprocess.Popen(command, env=environment, stderr=errors, stdout=errors, cwd=folder))
    return started


def said(folder, rank):
    return (folder / f"{rank}.txt").read_text().splitlines()


def finish(folder, started):
    codes = [process.wait(timeout=300) for process in started]
    assert codes == [0, 0], [said(folder, rank)[-3:] for rank in (0, 1)]


def held(*folders):
    """What is in the newest checkpoints of these folders, bytes by name; what they share, they have the same of."""
    found = {}
    for folder in folders:
        checkpoint, _ = checkpoints.load_newest(folder)
        data = (checkpoint.path / checkpoints.DATA).read_bytes()
        for entry in checkpoint.manifest["tensors"]:
            part = data[entry["offset"] : entry["offset"] + entry["bytes"]]
            assert found.setdefault(entry["name"], part) == part, entry["name"]
    return found


def reports(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith(("speed/", "wall"))} for line in lines]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A run of two replicas in one process that nothing breaks."""
    folder = tmp_path_factory.mktemp("alone")
    environment = {name: value for name, value in os.environ.items() if name != "TF_CONFIG"}
    flags = [
        *FLAGS,
        "--total-env-frames",
        "4000",
        "--eval-every-frames",
        "3000",
        "--replicas",
        "2",
        "--run-name",
        "run",
    ]
    command = [sys.executable, "-m", "tfdqn.train", *flags, "--logdir", str(folder)]
    subprocess.run(command, check=True, env={**environment, "PYTHONPATH": str(ROOT)}, cwd=folder, capture_output=True)
    return folder / "run"


@pytest.mark.slow
def test_two_processes_make_the_run_that_one_makes_of_two_replicas(tmp_path, alone):
    flags = [*FLAGS, "--total-env-frames", "4000", "--eval-every-frames", "3000", "--run-name", "run", "--logdir", "."]
    finish(tmp_path, start(tmp_path, *flags))
    run, worker = tmp_path / "run", tmp_path / "run" / "workers" / "1"
    assert held(run, worker) == held(alone) and reports(run) == reports(alone)
    assert {path.name for path in worker.iterdir()} == {"lock", "checkpoints"}
    chief, other = (checkpoints.load_newest(folder)[0] for folder in (run, worker))
    assert chief.manifest["workers"] == [worker_run._digest(other.path).hex()]
    assert not any(name.startswith(("replay/1", "carry/replica_1")) for name in chief.names)
    # Alone nobody can go on with it.
    with pytest.raises(UserError, match="is of 2 workers, not 1; resume it with a TF_CONFIG of as many, and") as error:
        train.main(["--resume", str(run)])
    assert error.value.exit_code == EXIT_REFUSED


@pytest.mark.slow
@pytest.mark.parametrize("exchange", ["average", "collective"])
def test_whichever_is_killed_the_other_ends_by_name_and_all_go_on_as_if_unbroken(tmp_path, exchange):
    """Ten kills."""
    length = ["--total-env-frames", "200000", "--eval-every-frames", "100000", "--checkpoint-every-seconds", "0.3"]
    flags = [*FLAGS, *length, "--exchange", exchange, "--exchange-every-rounds", "50", "--logdir", "."]
    draws, run = random.Random(exchange), tmp_path / "run"
    started = start(tmp_path, *flags, "--run-name", "run")
    for kill in range(10):
        deadline = time.monotonic() + 120
        before = set(run.glob("checkpoints/[0-9]*"))
        while not set(run.glob("checkpoints/[0-9]*")) - before:  # each gets further
            assert time.monotonic() < deadline, (said(tmp_path, 0)[-3:], said(tmp_path, 1)[-3:])
            time.sleep(0.05)
        time.sleep(draws.uniform(0.0, 0.6))
        if any(process.poll() is not None for process in started):
            pytest.fail(f"the run was over before kill {kill}")
        victim = draws.randrange(2)
        started[victim].kill()
        assert started[1 - victim].wait(timeout=LONGEST_SECONDS) == EXIT_LOST
        started[victim].wait()
        last = said(tmp_path, 1 - victim)[-1]
        assert "another worker has ended, or cannot be reached (" in last and "{{" not in last
        assert "); to go on, on every worker, " in last and "--trusted-network" in last
        started = start(tmp_path, "--resume", str(run))
    finish(tmp_path, started)
    whole = [sys.executable, "-m", "tfdqn.train", *flags, "--replicas", "2", "--run-name", "whole"]
    subprocess.run(whole, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path, capture_output=True)
    assert held(run, run / "workers" / "1") == held(tmp_path / "whole")
    assert reports(run) == reports(tmp_path / "whole")


@pytest.mark.slow
def test_a_signal_to_one_stops_all_and_a_damaged_part_has_all_go_back(tmp_path):
    flags = [*FLAGS, "--total-env-frames", "30000", "--eval-every-frames", "20000", "--logdir", str(tmp_path)]
    whole = [sys.executable, "-m", "tfdqn.train", *flags, "--replicas", "2", "--run-name", "whole"]
    subprocess.run(whole, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path, capture_output=True)
    flags += ["--checkpoint-every-seconds", "0.1", "--run-name", "run"]
    started = start(tmp_path, *flags)
    run = tmp_path / "run"
    while len(list(run.glob("checkpoints/[0-9]*"))) < 2:
        assert all(process.poll() is None for process in started)
        time.sleep(0.02)
    started[1].send_signal(signal.SIGTERM)
    assert [process.wait(timeout=120) for process in started] == [128 + signal.SIGTERM] * 2
    command = f"python -m tfdqn.train --resume {run} --trusted-network"
    for rank in (0, 1):
        assert f"stopped by SIGTERM; to go on, on every worker, {command}" in said(tmp_path, rank)[-1]
    newest = checkpoints.load_newest(run / "workers" / "1")[0].path
    with open(newest / checkpoints.DATA, "r+b") as file:
        file.write(b"\xff" * 64)
    finish(tmp_path, start(tmp_path, "--resume", str(run)))
    assert any("worker 1 has no whole part of it; set aside as damaged-" in line for line in said(tmp_path, 0))
    assert held(run, run / "workers" / "1") == held(tmp_path / "whole") and reports(run) == reports(tmp_path / "whole")


@pytest.mark.slow
def test_a_process_by_itself_opens_no_port(tmp_path):
    flags = [
        *FLAGS,
        "--replicas",
        "2",
        "--total-env-frames",
        "100000000",
        "--logdir",
        str(tmp_path),
        "--run-name",
        "run",
    ]
    process = subprocess.Popen([sys.executable, "-m", "tfdqn.train", *flags], cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        while (
            not (tmp_path / "run" / "metrics.jsonl").exists() or not (tmp_path / "run" / "metrics.jsonl").stat().st_size
        ):
            assert process.poll() is None
            time.sleep(0.1)
        links = [os.readlink(path) for path in Path(f"/proc/{process.pid}/fd").iterdir()]
        inodes = {link[8:-1] for link in links if link.startswith("socket:[")}
        tables = [Path(f"/proc/{process.pid}/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
        rows = [line.split() for table in tables for line in table]
        assert not [row for row in rows if row[9] in inodes and row[3] == "0A"]  # listening
    finally:
        process.kill()
        process.wait()


# Who is who.


@pytest.fixture
def expected(monkeypatch):
    monkeypatch.setattr(hosts, "_expected", (0, 1))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{", "TF_CONFIG: cannot be read (JSONDecodeError"),
        ("[]", "TF_CONFIG: cannot be read (AttributeError"),
        ('{"cluster": {"worker": ["a:1"]}}', "TF_CONFIG: cannot be read (KeyError: 'task')"),
        (cluster(1, 2), "TF_CONFIG: worker 2: there are 2; use 0 to 1"),
        (cluster(1, 0, ps=["a:1"]), "TF_CONFIG: names 'ps', of which a run has none; it has chief and worker alone"),
        (
            cluster(1, 0),
            "TF_CONFIG names 2 workers, whose ports take orders from whoever reaches them: add --trusted-net",
        ),
    ],
)
def test_a_bad_or_an_untrusted_cluster_is_refused_in_one_line(monkeypatch, expected, tmp_path, text, line):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UserError) as error:
        train.main(["--env", "catch8", "--logdir", str(tmp_path / "runs")])
    assert line in str(error.value) and "\n" not in str(error.value) and error.value.exit_code == 2
    assert not (tmp_path / "runs").exists() and hosts.count() == 1


def test_ranks_begin_with_the_chief(monkeypatch, expected):
    held = {"cluster": {"chief": ["a:1"], "worker": ["b:1", "c:1"]}}
    for kind, index, rank in (("chief", 0, 0), ("worker", 0, 1), ("worker", 1, 2)):
        monkeypatch.setenv("TF_CONFIG", json.dumps({**held, "task": {"type": kind, "index": index}}))
        hosts.expect(True)
        assert (hosts.rank(), hosts.count()) == (rank, 3)
    monkeypatch.setenv("TF_CONFIG", "")
    with pytest.raises(UserError, match="--trusted-network: TF_CONFIG names no other worker; leave it out"):
        hosts.expect(True)


def test_each_worker_has_as_many_replicas():
    config = configuration.resolve({**SETTINGS, "num_envs": 24, "batch_size": 24, "device": "gpu"})
    assert [train._replicas_here(config, gpus, 3) for gpus in (1, 2, 3, 8)] == [1, 2, 2, 8]
    assert train._replicas_here(config.replace(replicas=6), 8, 3) == 2
    with pytest.raises(UserError, match="--replicas 4: TF_CONFIG names 3 workers, and each has as many; use 6"):
        train._replicas_here(config.replace(replicas=4), 8, 3)


def test_what_is_gathered_alone_is_ones_own():
    alone = hosts.Hosts()
    assert alone.is_chief and alone.gather(np.arange(3)).tolist() == [[0, 1, 2]] and alone.from_chief("x") == "x"


# What they tell each other: two threads in the place of two processes.


class Pair(hosts.Hosts):
    """One of two that meet in this process."""

    def __init__(self, rank, meeting, told):
        self.rank, self.count, self._meeting, self._told = rank, 2, meeting, told

    def gather(self, numbers):
        self._told[self.rank] = numbers
        self._meeting.wait(timeout=30)
        found = np.stack([self._told[0], self._told[1]])
        self._meeting.wait(timeout=30)
        return found


@pytest.fixture
def pair(monkeypatch):
    """Calls a function as each of two workers; what each returns or raises."""
    meeting, told, places = threading.Barrier(2), {}, threading.local()
    monkeypatch.setattr(hosts, "here", lambda: places.here)

    def call(function):
        def one(rank):
            places.here = Pair(rank, meeting, told)
            try:
                return function(rank)
            except (UserError, OSError) as error:
                return error

        with ThreadPoolExecutor(2) as threads:
            return list(threads.map(one, (0, 1)))

    return call


def test_what_the_chief_says_comes_whole(pair):
    for text in ("", "runs/é", "x" * 10_000):
        assert (
            pair(lambda rank, text=text: hosts.Workers.from_chief(hosts.here(), text if rank == 0 else ""))
            == [text] * 2
        )


@pytest.fixture
def speaking(monkeypatch):
    monkeypatch.setattr(Pair, "from_chief", hosts.Workers.from_chief)


def test_workers_that_were_given_different_settings_are_refused(pair, speaking):
    config = configuration.resolve(SETTINGS)
    assert pair(lambda rank: worker_run.refuse_other_settings(config.replace(minutes=1.0 + rank))) == [None, None]
    chief, worker = pair(lambda rank: worker_run.refuse_other_settings(config.replace(seed=3 + rank)))
    assert str(worker) == "--seed 4: worker 0 has 3; give all workers the same"
    assert str(chief) == "worker 1 was given other settings than worker 0, and says which; give all the same"


class Saver(worker_run.WorkerSaver):
    """Saves a few numbers; in `fails` it cannot."""

    def __init__(self, folder, rank):
        self.path, self.rank, self.home, self.fails = None, rank, worker_run.home(folder, rank), ()
        self.home.mkdir(parents=True, exist_ok=True)


def saved(saver, updates):
    if saver.rank in saver.fails:
        raise OSError(28, "No space left on device")
    saver._write({"updates": updates, "env_frames": updates})


def test_a_checkpoint_that_one_could_not_write_is_none_and_takes_no_earlier_ones_place(
    pair, speaking, tmp_path, monkeypatch
):
    savers = [Saver(tmp_path, rank) for rank in (0, 1)]

    def write(saver, facts):
        tensors = {f"agent/{saver.rank}": np.full([3], facts["updates"], np.float32)}
        saver.path = checkpoints.save(saver.home, tensors, facts)

    monkeypatch.setattr(worker_run.Saver, "_write", write)

    def save_all(updates, fails):
        monkeypatch.setattr(worker_run.Saver, "_save", lambda saver, updates=updates: saved(saver, updates))
        for saver in savers:
            saver.fails = fails
        errors = pair(lambda rank: savers[rank]._save())
        assert [isinstance(error, OSError) for error in errors] == [bool(fails)] * 2
        assert all("No space left" in str(errors[rank]) for rank in fails)

    for updates, fails in ((1, ()), (2, ()), (3, (0,)), (4, (0,)), (5, (1,))):
        save_all(updates, fails)
    found = pair(lambda rank: worker_run.load(tmp_path))
    assert [(checkpoint.manifest["updates"], lines) for checkpoint, lines in found] == [(2, []), (2, [])]
    # The newest one again, for the best agent's sake, is of the parts that there are, not of those that failed since.
    savers[0]._write(found[0][0].manifest)
    again = pair(lambda rank: worker_run.load(tmp_path))
    assert [checkpoint.path.name for checkpoint, _ in again] == ["2.2", "2"]
    # A damaged part has all go back.
    save_all(6, ())
    save_all(7, ())
    found = pair(lambda rank: worker_run.load(tmp_path))
    (found[1][0].path / checkpoints.DATA).write_bytes(b"")
    found = pair(lambda rank: worker_run.load(tmp_path))
    assert [checkpoint.manifest["updates"] for checkpoint, _ in found] == [6, 6]
    assert "checkpoint 7: worker 1 has no whole part of it; set aside as damaged-7" in found[0][1]
    shutil.rmtree(found[1][0].path)
    errors = pair(lambda rank: worker_run.load(tmp_path))
    assert all("no whole checkpoint to resume from" in str(e) and e.exit_code == EXIT_REFUSED for e in errors)


@pytest.mark.parametrize(("parts", "count"), [(1, 2), (2, 1), (2, 3)])
def test_a_run_goes_on_with_as_many_workers_as_it_has_parts(tmp_path, parts, count):
    worker_run.refuse_other_workers(tmp_path, {"workers": ["a"] * (parts - 1)}, parts)
    worker_run.refuse_other_workers(tmp_path, {}, count)  # nothing is known of it yet
    with pytest.raises(
        UserError, match=f"is of {parts} workers?, not {count}; resume it with (no TF_CONFIG|a TF_CONFIG)"
    ):
        worker_run.refuse_other_workers(tmp_path, {"updates": 1, "workers": ["a"] * (parts - 1)}, count)


# A worker's part of a checkpoint.


def save(folder, updates):
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {"agent/0": np.full([3], updates, np.float32)}
    path = checkpoints.save(folder, tensors, {"updates": updates, "env_frames": updates})
    return path, worker_run._digest(path).hex()


def test_a_part_is_found_by_its_manifest_and_what_is_newer_was_never_finished(tmp_path):
    (first, digest), (second, _) = save(tmp_path, 1), save(tmp_path, 2)
    assert checkpoints.load_newest_if(tmp_path, "0" * 64) is None and second.exists()
    found = checkpoints.load_newest_if(tmp_path, digest)
    assert isinstance(found, Checkpoint) and found.path == first and not second.exists()
    (first / checkpoints.DATA).write_bytes(b"\0" * 12)
    assert checkpoints.load_newest_if(tmp_path, digest) is None
    shutil.rmtree(tmp_path / "checkpoints")
    assert checkpoints.load_newest_if(tmp_path, digest) is None
