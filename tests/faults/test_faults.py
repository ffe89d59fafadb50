"""Real processes, killed, stopped and started twice: what is lost, and whether the end is the same bit by bit.

Most are forks that need not import and compile anew, so that the time goes into what is tested.
"""

import random
import signal
import time

import pytest

from tests.faults.harness import Process, committed, differences, partial, resume, start
from tfdqn.runs import checkpoints


def wait_for_new_checkpoint(process, folder):
    before = committed(folder / "run")
    return process.wait_until(lambda: committed(folder / "run") != before)


def kill_inside_a_save(process, folder, nursery):
    """Whether it was killed there: what it was writing is left. On a busy machine a save may end before the kill comes.

    Then the run goes on from that save, and the next one is aimed at.
    """
    for attempt in range(5):
        process = resume(folder, nursery=nursery) if attempt else process
        process.wait_until(lambda: partial(folder / "run"), pause=0.0002)
        process.kill()
        if partial(folder / "run"):
            return True
    return False


def test_a_run_killed_stopped_and_entered_twice_ends_like_the_unbroken_one(unbroken, nursery, tmp_path):
    dice = random.Random(1)
    process = start(tmp_path, nursery=nursery)
    assert wait_for_new_checkpoint(process, tmp_path)
    time.sleep(dice.uniform(0, 1))
    process.kill()
    assert process.process.returncode == -signal.SIGKILL

    process = resume(tmp_path, nursery=nursery)  # the killed one's lock is free
    assert wait_for_new_checkpoint(process, tmp_path)
    second = resume(tmp_path)
    assert second.finish() == 3
    assert f"process {process.process.pid} trains in it" in second.errors and second.errors.count("\n") == 1
    process.send(signal.SIGSTOP)  # as Ctrl-Z does, or a batch system
    time.sleep(0.2)
    process.send(signal.SIGCONT)
    process.send(signal.SIGTERM)
    assert process.finish() == 128 + signal.SIGTERM
    assert f"python -m tfdqn.train --resume {tmp_path / 'run'}" in process.errors
    stopped_at = committed(tmp_path / "run")[0]

    process = resume(tmp_path, nursery=nursery)
    assert process.wait_until(lambda: committed(tmp_path / "run")[0] != stopped_at)
    assert kill_inside_a_save(process, tmp_path, nursery)
    assert f"checkpoints/{stopped_at}:" in process.errors  # the stopped one lost nothing

    process = resume(tmp_path)  # one that imports and compiles for itself
    assert process.finish() == 0, process.errors
    assert differences(unbroken, tmp_path / "run") == []
    assert not partial(tmp_path / "run") and len(committed(tmp_path / "run")) == checkpoints.KEPT


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_a_signal_while_compiling_ends_the_run_at_once(tmp_path, number):
    process = start(tmp_path)
    assert process.wait_until((tmp_path / "run" / "metrics.jsonl").exists)
    time.sleep(1)  # compiling now
    process.send(number)
    sent = time.monotonic()
    assert process.finish() == 128 + number
    assert time.monotonic() - sent < 30
    assert "Traceback" not in process.errors and "stopped by" in process.errors


@pytest.mark.slow
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once_and_harms_nothing(unbroken, tmp_path, second):
    process = start(tmp_path)
    assert wait_for_new_checkpoint(process, tmp_path)
    process.send(signal.SIGTERM)
    time.sleep(0.01)  # two equal signals at the same instant are one
    process.send(second)
    assert process.finish() in (128 + signal.SIGTERM, 128 + second)
    assert "Traceback" not in process.errors
    process = resume(tmp_path)
    assert process.finish() == 0, process.errors
    assert differences(unbroken, tmp_path / "run") == []


@pytest.mark.slow
def test_a_signal_during_an_evaluation_is_met_after_it(unbroken, tmp_path):
    process = start(tmp_path)
    report = tmp_path / "run" / "metrics.jsonl"

    def is_evaluating():
        """The first evaluation, which compiles its program for some seconds, comes after the report at 49,000."""
        return report.exists() and '"env_frames": 490' in report.read_text()

    assert process.wait_until(is_evaluating), process.errors
    time.sleep(0.5)
    process.send(signal.SIGTERM)
    assert process.finish() == 128 + signal.SIGTERM
    assert "eval/score_mean" in report.read_text()
    process = resume(tmp_path)
    assert process.finish() == 0, process.errors
    assert differences(unbroken, tmp_path / "run") == []


@pytest.mark.slow
@pytest.mark.parametrize("trials", [8, pytest.param(40, marks=pytest.mark.slow)])
def test_of_two_runs_started_at_once_exactly_one_trains(trials, tmp_path):
    process = start(tmp_path, "--total-env-frames", "20000")
    assert process.finish() == 0, process.errors
    for trial in range(trials):
        more = str(20_000 + 1_000 * (trial + 1))
        both = [Process("--resume", tmp_path / "run", "--total-env-frames", more) for _ in range(2)]
        assert sorted(process.finish() for process in both) == [0, 3]
    print(f"two at once: exactly one ran in {trials} of {trials}")
