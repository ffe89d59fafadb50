"""The comparison of two trees: its rule on made-up noise, what fails it, and its checkout."""

import contextlib
import json
import subprocess
import types
from pathlib import Path

import numpy as np
import pytest

import tfdqn
from benchmarks import build, compare, decision, line, specs, worker
from tfdqn.errors import UserError

ROOT = Path(__file__).parent.parent


# The decision rule, on made-up noise.


def pairs_of(rng, slowdown, count=9, noise=0.15):
    """Ratios as a noisy machine gives them: each time off by some percent, one in eight hit by a neighbour."""

    def times():
        return np.exp(rng.normal(0, noise, count)) * np.where(rng.random(count) < 1 / 8, rng.uniform(1, 3, count), 1)

    return list(slowdown * times() / times())


def test_rule_passes_an_unchanged_tree_ten_times_of_ten():
    """Ten whole comparisons of eight cases, each measured again where it looked slower, as `compare` does."""
    rng = np.random.default_rng(1)
    for _ in range(10 * 8):
        ratios = pairs_of(rng, 1.0)
        if decision.decide(ratios).is_regression:
            ratios += pairs_of(rng, 1.0)
        assert not decision.decide(ratios).is_regression


def test_rule_catches_a_planted_slowdown():
    """30% on a quiet machine nearly always; twice as slow on the noisy one likewise."""
    rng = np.random.default_rng(2)
    quiet = [decision.decide(list(1.3 * np.exp(rng.normal(0, 0.05, 9)))).is_regression for _ in range(200)]
    assert np.mean(quiet) > 0.98
    noisy = [decision.decide(pairs_of(rng, 2.0)).is_regression for _ in range(200)]
    assert np.mean(noisy) > 0.9


def test_rule_needs_both_the_median_and_the_interval():
    assert decision.decide([1.21] * 7).is_regression
    assert not decision.decide([1.19] * 7).is_regression  # sure, but too little
    assert not decision.decide([0.9] + [1.5] * 6).is_regression  # much, but the interval of seven is their range
    assert decision.decide([0.9] + [1.5] * 8).is_regression  # nine pairs can spare one
    assert not decision.decide([0.5] * 9).is_regression


def test_intervals_rank_is_the_sign_tests():
    """Published: 7 and 8 values range from first to last, 9 to 11 from second to last but one, 12 from third."""
    assert [decision.interval_rank(n) for n in (7, 8, 9, 11, 12, 20)] == [1, 1, 2, 2, 3, 6]


@pytest.mark.parametrize("ratios", [[1.0] * 6, [1.0] * 7 + [float("nan")], [1.0] * 7 + [0.0]])
def test_rule_refuses_what_is_no_measurement(ratios):
    with pytest.raises(ValueError):
        decision.decide(ratios)


# A comparison.

FIRST, SECOND = "env/catch8/frames/n1024", "env/cave/frames/n1024"


@pytest.fixture
def sides(monkeypatch):
    """Workers that answer at once. `faults`: what (side, case, request) goes wrong with; "dies" ends the process."""

    sides = types.SimpleNamespace(faults={}, started=[])

    class Side:
        def __init__(self, tree, device):
            self.name = "new" if tree == compare.ROOT else "base"
            self.is_gone = False
            sides.started.append(self.name)

        def ask(self, do, name=None, **_):
            self.case = name or self.case
            fault = sides.faults.get((self.name, self.case, do))
            self.is_gone |= fault == "dies"
            if self.is_gone:
                raise line.WorkerFailed(self, "the process ended with code -11", is_gone=True)
            if fault:
                raise line.WorkerFailed(self, fault)
            return {"build": None, "count": 10, "time": 1.0}[do]

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(compare, "Worker", Side)
    monkeypatch.setattr(compare, "checkout", lambda revision: contextlib.nullcontext(Path("base")))
    monkeypatch.setattr(compare.signal, "signal", lambda *_: None)
    return sides


def compared(capsys, *names):
    """Exit code, the JSON object, and what was said of comparing cases with a base."""
    cases = [word for name in names for word in ("--case", name)]
    code = compare.main(["--device", "cpu", "--json", *cases])
    printed = capsys.readouterr()
    return code, json.loads(printed.out.splitlines()[-1]), printed.err


@pytest.mark.parametrize("request_name", ["build", "count", "time"])
def test_what_the_new_tree_cannot_do_fails(sides, capsys, request_name):
    sides.faults["new", FIRST, request_name] = "WrongResult: env: tensor 0 differs"
    code, found, said = compared(capsys, FIRST, SECOND)
    assert (code, found["failed"], list(found["cases"])) == (1, [FIRST], [SECOND])
    assert found["broken"] == {FIRST: "WrongResult: env: tensor 0 differs"}
    assert f"{FIRST}: WrongResult: env: tensor 0 differs" in said.splitlines()[-1]
    assert "1 compared, 0 slower, 1 broken" in said


def test_what_the_base_cannot_do_is_not_compared(sides, capsys):
    sides.faults["base", FIRST, "build"] = "AttributeError: no such thing"
    code, found, said = compared(capsys, FIRST, SECOND)
    assert (code, found["failed"], found["broken"], list(found["cases"])) == (0, [], {}, [SECOND])
    assert f"not compared: {FIRST}: AttributeError" in said
    with pytest.raises(UserError, match="nothing could be compared"):
        compared(capsys, FIRST)


@pytest.mark.parametrize(("side", "code"), [("new", 1), ("base", 0)])
def test_a_process_that_dies_does_not_spoil_the_cases_after_it(sides, capsys, side, code):
    sides.faults[side, FIRST, "build"] = "dies"
    found_code, found, said = compared(capsys, FIRST, SECOND)
    assert (found_code, list(found["cases"])) == (code, [SECOND])
    assert "the process ended with code -11" in said
    assert sides.started == ["base", "new"] * 2


def test_a_new_tree_that_can_do_nothing_fails(sides, capsys):
    sides.faults["new", FIRST, "build"] = "dies"
    code, found, _ = compared(capsys, FIRST)
    assert (code, found["failed"], found["cases"]) == (1, [FIRST], {})


def test_a_comparison_on_a_gpu_is_of_the_sizes_there(sides, capsys, monkeypatch):
    monkeypatch.setattr(compare, "_device", lambda wanted: "/GPU:0")
    assert compare.main(["--json", "--case", "loop/catch8/preset-default/n64/b32"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(found["cases"]) == [_row_on_gpu().name]


def _row_on_gpu():
    (spec,) = specs.select(["loop/catch8/preset-default"], on_gpu=True)
    assert spec.num_envs > 1000
    return spec


def test_a_worker_on_a_gpu_finds_the_row_of_the_sizes_there(monkeypatch):
    built = []
    monkeypatch.setattr(
        build, "build", lambda spec, device: built.append(spec) or types.SimpleNamespace(check=lambda: None)
    )
    wanted = _row_on_gpu()
    worker._build(ROOT, "/GPU:0", wanted.name, True)
    assert (built[0].num_envs, built[0].batch) == (wanted.num_envs, wanted.batch)
    with pytest.raises(LookupError, match="no row here"):
        worker._build(ROOT, "/CPU:0", wanted.name, True)


def test_workers_get_the_users_xla_flags_and_not_those_of_this_trees_tfdqn(monkeypatch):
    """Else a base would run with the options of the tree that it is compared with."""
    started = []
    monkeypatch.setattr(line.Process, "__init__", lambda self, command, variables: started.append(variables))
    ours = tfdqn.ONE_KERNEL_OPTION
    cases = {
        ours: "",
        f"--xla_dump_to=x {ours}": "--xla_dump_to=x",
        f"{ours} --xla_dump_to=x": "--xla_dump_to=x",
        f"{ours},another=1": f"{ours},another=1",  # the user's own, to which tfdqn adds nothing
        "--xla_dump_to=x": "--xla_dump_to=x",
    }
    for flags, wanted in cases.items():
        monkeypatch.setenv("XLA_FLAGS", flags)
        worker.Worker(ROOT, "/CPU:0")
        assert started.pop()["XLA_FLAGS"] == wanted
    monkeypatch.delenv("XLA_FLAGS")
    worker.Worker(ROOT, "/CPU:0")
    assert started.pop()["XLA_FLAGS"] == ""


def test_a_revision_is_checked_out_and_taken_away_again():
    if subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True).returncode:
        pytest.skip("not a git repository")
    with compare.checkout("HEAD") as tree:
        assert (tree / "tfdqn" / "__init__.py").exists()
    assert not tree.exists()
    listed = subprocess.run(["git", "-C", ROOT, "worktree", "list"], capture_output=True, text=True).stdout
    assert str(tree) not in listed


BAD_COMPARE = [
    (["--base", "no-such-revision"], "no such revision"),
    (["--base", "--help"], "expected one argument"),
    (["--pairs", "3"], "use 7"),
    (["--pairs", "x"], "whole number"),
    (["--plant", "env"], "factor from 1 to 100"),
    (["--plant", "env/none=1.3"], "is not compared"),
    (["--case", "compile"], "nothing in it is compared"),
    (["--case", "memory/cave"], "nothing in it is compared"),
    (["--case", "env", "--case", "reports/catch8"], "reports/catch8: nothing in it is compared"),
    (["--case", "act"], "nothing in it is compared"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_COMPARE)
def test_bad_arguments_of_compare_are_one_line(arguments, message):
    with pytest.raises(UserError, match=message) as raised:
        compare.main(arguments)
    assert "\n" not in str(raised.value)
