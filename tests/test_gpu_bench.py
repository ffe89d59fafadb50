"""A GPU's first figures: what is asked, what is written, and that six minutes are not passed."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tensorflow as tf

from benchmarks import gpu, results
from benchmarks.gpu import Clock
from tfdqn import config as configuration
from tfdqn.errors import UserError
from tfdqn.runtime import devices

ROOT = Path(__file__).parent.parent


@pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="there is a GPU")
def test_without_a_gpu_it_is_one_line(monkeypatch):
    monkeypatch.setattr(devices, "has_driver", lambda: False)
    with pytest.raises(UserError, match="--device gpu: TensorFlow sees no GPU on this machine; use --device") as caught:
        gpu.main([])
    assert caught.value.exit_code == 2
    for device, line in (("auto", "say which"), ("tpu", "did you mean 'gpu'")):
        with pytest.raises(UserError, match=line):
            gpu.main(["--device", device])


@pytest.mark.parametrize(("env", "num_envs"), [*gpu.LOOPS, *gpu.QUICK_LOOPS])
def test_a_loop_has_as_many_transitions_a_frame_as_the_preset(env, num_envs):
    quick = (env, num_envs) in gpu.QUICK_LOOPS
    spec = gpu.loop_spec(env, num_envs, quick=quick)
    on_gpu, on_cpu = (configuration.resolve(dict(spec.settings), on_gpu=on) for on in (True, False))
    assert on_gpu == on_cpu  # all is said
    preset = configuration.resolve({"env": env}, on_gpu=True)
    transitions = [c.batch_size * c.updates_per_iteration / c.num_envs for c in (on_gpu, preset)]
    assert transitions[0] == transitions[1] and on_gpu.num_envs == spec.num_envs == num_envs
    assert quick or on_gpu.replay_capacity >= preset.replay_capacity
    assert (on_gpu.head, on_gpu.prioritized, on_gpu.network) == (preset.head, preset.prioritized, preset.network)


def test_some_loops_have_as_many_environments_as_a_gpu_is_bought_for():
    assert {env for env, num_envs in gpu.LOOPS if num_envs >= 16_384} == {"catch8", "cave", "minatar_breakout"}
    assert [(env, score) for env, _, score, _ in gpu.LEARNING] == [("catch8", 99.0), ("cave", 600.0)]


@pytest.mark.parametrize(
    ("seconds", "scores", "reached", "failed"),
    [
        ((30, 50), (10.0, 99.0), 40, False),
        ((30, 50), (99.0, 98.0), 20, False),
        ((60, 80), (10.0, 99.0), 70, True),
        ((60, 80), (10.0, 98.9), None, True),
        ((), (), None, True),
    ],
)
def test_a_score_counts_if_it_comes_in_time_without_compiling(seconds, scores, reached, failed):
    points = [{"wall_seconds": s, "eval/score_mean": score} for s, score in zip(seconds, scores, strict=True)]
    found = gpu.judged(points, {"compile_seconds": 10.0}, 99.0, 60.0)
    assert found == {"seconds_to_wanted": reached, "failed": failed}


def test_training_is_the_command_that_a_user_has(monkeypatch, capfd):
    commands = []

    def train(command, **options):
        commands.append(command)
        if "--env cave" in " ".join(command):
            return subprocess.CompletedProcess(command, 4, "")
        if options["timeout"] < 10:
            raise subprocess.TimeoutExpired(command, options["timeout"])
        run_dir = Path(command[command.index("--logdir") + 1]) / "run"
        run_dir.mkdir()
        line = {"env_frames": 5, "updates": 3, "wall_seconds": 20.0, "eval/score_mean": 99.0}
        (run_dir / "metrics.jsonl").write_text(json.dumps(line) + "\n")
        result = {"score_mean": 99.0, "compile_seconds": 8.0, "run_dir": str(run_dir)}
        return subprocess.CompletedProcess(command, 0, "chatter\n" + json.dumps(result) + "\n")

    monkeypatch.setattr(gpu.subprocess, "run", train)
    row = gpu.learnt("catch8", "--minutes 1", 99.0, 60.0, "gpu:1", Clock(time.monotonic(), 360.0))
    assert commands[0][1:7] == ["-m", "tfdqn.train", "--env", "catch8", "--device", "gpu:1"]
    assert (row["median"], row["failed"], row["seconds_to_wanted"]) == (99.0, False, 12.0)
    assert row["curve"][0]["updates"] == 3 and "run_dir" not in row["result"]
    row = gpu.learnt("cave", "", 600.0, 60.0, "gpu", Clock(time.monotonic(), 360.0))
    assert row["failed"] and row["skipped"] == "training ended with code 4" and "NOT IN TIME" in gpu._line(row)
    row = gpu.learnt("catch8", "", 99.0, 60.0, "gpu", Clock(time.monotonic(), 2.0))
    assert row["failed"] and row["skipped"] == "no time was left"


@pytest.fixture
def measured(monkeypatch):
    """A run of the whole, with made-up rows in place of measurements."""
    monkeypatch.setattr(gpu, "described", lambda device: {"device": device, "date": "2026-11-29", "commit": "abc"})
    learnt = {"name": "learning/catch8", "case": "learning", "metric": "score", "median": 99.0, "floor": 99.0}
    learnt |= {"seconds_to_wanted": 3.0, "failed": False}
    monkeypatch.setattr(gpu, "learnt", lambda *_: dict(learnt))

    def looped(spec, device, quick):
        return [results.empty_row(spec, "env_frames", "env frames/s") | {"median": 1e6}]

    monkeypatch.setattr(gpu, "looped", looped)
    return learnt


def test_rows_say_where_they_are_from_and_a_failure_ends_with_a_code(measured, tmp_path, capsys, monkeypatch):
    file = tmp_path / "rows.json"
    arguments = ["--device", "cpu", "--quick", "--json", str(file)]
    assert gpu.main(arguments) == 0
    rows = json.loads(file.read_text())
    loops = [gpu.loop_spec(*each, quick=True).name for each in gpu.QUICK_LOOPS]
    assert [row["name"] for row in rows] == ["learning/catch8", *loops] and len(loops) == 2
    assert all((row["device"], row["date"], row["quick"]) == ("/CPU:0", "2026-11-29", True) for row in rows)
    assert "99 wanted: after 3.0 s of training" in capsys.readouterr().out
    measured |= {"failed": True, "seconds_to_wanted": None}
    assert gpu.main(arguments) == gpu.EXIT_WRONG
    assert "NOT AS WANTED: learning/catch8" in capsys.readouterr().err
    monkeypatch.setattr(gpu, "LIMIT_SECONDS", gpu.LOOP_SECONDS)
    measured["failed"] = False
    assert gpu.main(arguments) == 0
    assert [row.get("skipped") for row in json.loads(file.read_text())] == [None, *["no time was left"] * 2]


def test_whatever_it_does_it_ends_when_the_time_is_over():
    code = "import time; from benchmarks import gpu\n"
    code += "with gpu.Clock(time.monotonic() - 359.8, 360.0).watched('x.json'):"
    done = subprocess.run([sys.executable, "-c", f"{code} time.sleep(3600)"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == gpu.EXIT_WRONG
    assert "the 360 seconds are over; what was measured is in x.json" in done.stderr


def test_the_driver_is_told_by_its_file(tmp_path, monkeypatch):
    file = tmp_path / "version"
    file.write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build\nGCC version: 12.2.0\n"
    )
    assert gpu.driver_version(file) == "580.159.04"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu.driver_version(tmp_path / "none") == ""
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 570.86.10\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert gpu.driver_version(tmp_path / "none") == "570.86.10"


def test_a_file_is_named_by_date_device_and_commit():
    where = {"device": "NVIDIA H200", "date": "2026-12-24T10:00:00Z", "commit": "abcdef123456+"}
    assert gpu._path(where) == ROOT / "benchmarks/results/2026-12-24-nvidia-h200-abcdef1.json"
