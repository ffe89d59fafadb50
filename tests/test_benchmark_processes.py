"""Cases that take processes of their own: their threads, what does not fit, and what breaks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import build, process_case, results, run
from tfdqn import config as configuration
from tfdqn.errors import UserError
from tfdqn.runtime import devices, memory

ROOT = Path(__file__).parent.parent


def test_threads_are_those_that_were_chosen_or_all_cores(monkeypatch):
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "3")
    assert results.threads() == 3
    for value in ("0", "many", ""):
        monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", value)
        assert results.threads() == len(os.sched_getaffinity(0))
    row = results.placed({"name": "x", "threads": 1}, {"threads": 2, "cpu": "y"})
    assert row == {"name": "x", "threads": 1, "cpu": "y"}


@pytest.mark.parametrize(("env", "threads"), [("catch8", 1), ("cave", 5)])
def test_a_process_has_its_presets_threads_or_those_of_the_run(monkeypatch, env, threads):
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "5")
    process_case._start({"settings": {"env": env}, "device": "/CPU:0"})
    assert os.environ["TF_NUM_INTRAOP_THREADS"] == str(threads) and results.threads() == threads


def test_a_process_says_that_it_does_not_fit_and_which_threads_it_had(monkeypatch):
    monkeypatch.setattr(process_case, "_needs", lambda request, config, device: {"seconds": 1.0})
    request = {"case": "compile", "settings": {"env": "catch8"}, "device": "/CPU:0"}
    assert process_case._probe(request) == {"seconds": 1.0, "threads": 1}

    def wrong(request, config, device):
        raise UserError("the loss is not finite", 4)

    with monkeypatch.context() as patch:
        patch.setattr(process_case, "_needs", wrong)
        with pytest.raises(UserError, match="not finite"):  # which ends the process with a code
            process_case._probe(request)
    monkeypatch.setattr(memory, "available_bytes", lambda: 0)
    assert "GB are free" in process_case._probe(request)["does_not_fit"]


@pytest.mark.parametrize(
    ("code", "stdout", "stderr", "error"),
    [
        (0, '{"does_not_fit": "too large"}', "", UserError("too large")),
        (1, "", "Traceback\nRuntimeError: boom", process_case.ProcessFailed("RuntimeError: boom")),
        (-9, "", "", process_case.ProcessFailed("exit code -9")),
    ],
)
def test_a_process_that_does_not_fit_is_not_one_that_failed(monkeypatch, code, stdout, stderr, error):
    done = subprocess.CompletedProcess([], code, stdout, stderr)
    monkeypatch.setattr(process_case.subprocess, "run", lambda *_, **__: done)
    with pytest.raises(type(error), match=str(error)):
        process_case.measure("memory", {"env": "catch8"}, "/CPU:0")


def test_processes_share_a_gpu_unless_the_user_has_said_otherwise():
    code = "import sys, os, benchmarks; print('tensorflow' in sys.modules, os.environ['TF_FORCE_GPU_ALLOW_GROWTH'])"
    variables = {name: value for name, value in os.environ.items() if name != "TF_FORCE_GPU_ALLOW_GROWTH"}
    for given, wanted in (({}, "False true"), ({"TF_FORCE_GPU_ALLOW_GROWTH": "false"}, "False false")):
        command = [sys.executable, "-c", code]
        result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=variables | given)
        assert result.stdout.strip() == wanted


@pytest.fixture
def processes(monkeypatch):
    """Answers or errors of processes by their case, in the place of processes."""
    found = {"compile": {"seconds": 2.0, "threads": 1}, "reports": {"ratios": [1.5] * 3, "threads": 1}}

    def measure(case, settings, device, quick):
        if isinstance(found[case], Exception):
            raise found[case]
        return found[case]

    monkeypatch.setattr(process_case, "measure", measure)
    return found


def test_a_process_that_fails_is_named_and_ends_the_run_with_a_code(tmp_path, processes, capsys):
    file = tmp_path / "rows.json"
    processes["compile"] = process_case.ProcessFailed("RuntimeError: boom")
    processes["memory"] = UserError("does not fit")
    cases = ["--case", "compile/catch8/default", "--case", "memory/catch8/default", "--case", "reports/catch8"]
    rest = ["--device", "cpu", "--threads", "3", "--json", str(file)]
    assert run.main([*cases, *rest]) == run.EXIT_WRONG
    failed, skipped, reports = json.loads(file.read_text())
    keys = ("case", "median", "skipped", "failed")
    assert [failed[key] for key in keys] == ["compile", None, "RuntimeError: boom", True]
    assert [skipped[key] for key in keys] == ["memory", None, "does not fit", False]
    assert (reports["case"], reports["median"]) == ("reports", 1.5)  # what comes after is measured all the same
    # Its own preset's threads; a row that has no process has those of the run.
    assert (reports["threads"], failed["threads"]) == (1, 3)
    printed = capsys.readouterr()
    assert "FAILED compile/catch8/default/n64/b32: RuntimeError: boom" in printed.err
    assert "RuntimeError: boom" in printed.out and "skipped" in printed.out
    assert run.main([*cases[2:], *rest]) == 0  # what does not fit is no fault


def test_what_does_not_fit_is_a_row_without_numbers(tmp_path, monkeypatch):
    def too_large(spec, device):
        raise UserError("a replay of 9 GB does not fit")

    monkeypatch.setattr(build, "build", too_large)
    file = tmp_path / "rows.json"
    case = ["--quick", "--case", "replay/cave/sample/n64/b256", "--device", "cpu", "--json", str(file)]
    assert run.main(case) == 0
    (row,) = json.loads(file.read_text())
    assert (row["name"], row["median"]) == ("replay/cave/sample/n64/b256", None)
    assert row["skipped"] == "a replay of 9 GB does not fit"


def test_a_run_measures_presets_in_the_sizes_of_the_device_that_it_found(tmp_path, monkeypatch, processes):
    monkeypatch.setattr(devices, "choose_device", lambda *_, **__: "/GPU:0")
    monkeypatch.setattr(results, "machine", lambda _: {"load_before": 0.0, "threads": 2})
    file = tmp_path / "rows.json"
    assert run.main(["--case", "compile/catch8/default/n64/b32", "--json", str(file)]) == 0
    (row,) = json.loads(file.read_text())
    preset = configuration.resolve({"env": "catch8"}, on_gpu=True)
    num_envs, batch = preset.num_envs, preset.batch_size
    name = f"compile/catch8/default/n{num_envs}/b{batch}"
    assert (row["name"], row["num_envs"], row["batch"]) == (name, num_envs, batch)
