"""Sweeps: trials that report, that go on where they were cut, and what Ray Tune and Optuna make of them."""

import importlib.metadata
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

import tfdqn
from tests.faults import harness
from tests.whole_runs import SETTINGS
from tfdqn import config as configuration
from tfdqn import sweep
from tfdqn.errors import EXIT_REFUSED, UserError
from tfdqn.runs import checkpoints, run_folder

TINY = {**SETTINGS, "jit": False, "eval_every_frames": 300, "log_every_frames": 200, "total_env_frames": 900}
ENV = TINY.pop("env")
PAGE = Path(__file__).parent.parent / "docs" / "sweeps.md"


class Killed(BaseException):
    """The end of a trial's process, or the SystemExit by which Ray ends a trial's thread."""


class Tune(types.ModuleType):
    """Stands in for `ray.tune`: one trial at a time, which may be cut at one of its reports."""

    def __init__(self):
        super().__init__("ray.tune")
        self.trial_id, self.reports, self.cut_at = None, [], None

    def get_context(self):
        return types.SimpleNamespace(get_trial_id=lambda: self.trial_id)

    def report(self, metrics):
        self.reports.append(metrics)
        if len(self.reports) == self.cut_at:
            raise Killed

    def run(self, trainable, trial_id, config=None, cut_at=None):
        """What the trial reports, until it ends or is cut."""
        self.trial_id, self.reports, self.cut_at = trial_id, [], cut_at
        try:
            trainable(config or {})
        except Killed:
            assert cut_at is not None
        else:
            assert cut_at is None
        return self.reports


@pytest.fixture(scope="module")
def tune():
    with pytest.MonkeyPatch.context() as patch:
        module = Tune()
        ray = types.ModuleType("ray")
        ray.tune = module
        patch.setitem(sys.modules, "ray", ray)
        patch.setitem(sys.modules, "ray.tune", module)
        yield module


class Swept(types.SimpleNamespace):
    """A sweep's folder, the trainable, and what the trial that was never cut has reported."""


def begun(run_dir):
    """The lock of a run that has got no further than to its folder."""
    _, lock = run_folder.create(configuration.resolve({"env": ENV, **TINY}), [run_dir])
    return lock


@pytest.fixture(scope="module")
def swept(tune, tmp_path_factory):
    home = tmp_path_factory.mktemp("sweep")
    begun(home / "a_00000").close()  # by a process that was killed before its first checkpoint
    trainable = sweep.trainable(ENV, folder=home, **TINY, checkpoint_every_seconds=1e-3)
    return Swept(home=home, trainable=trainable, whole=tune.run(trainable, "a_00000", {"learning_rate": 1e-3}))


def outcome(run_dir):
    """The bits that a run has left."""
    return harness.weights(run_dir / "final.keras") | harness.weights(run_dir / "model.keras")


def test_a_trial_reports_each_evaluation(swept):
    assert [each["env_frames"] // 300 for each in swept.whole] == [1, 2, 3]
    assert all({"score_mean", "score_std", "updates"} <= set(each) for each in swept.whole)
    assert {each["run_dir"] for each in swept.whole} == {str(swept.home / "a_00000")}


@pytest.mark.slow
def test_a_trial_that_was_cut_goes_on_with_the_same_bits(tune, swept):
    before = tune.run(swept.trainable, "a_00001", {"learning_rate": 1e-3}, cut_at=2)
    cut = swept.home / "a_00001"
    held = checkpoints.peek(cut)["env_frames"]
    after = tune.run(swept.trainable, "a_00001", {"learning_rate": 1e-3})
    # From its checkpoint, and not from nothing.
    frames = [each["env_frames"] for each in swept.whole]
    assert frames[0] <= held < frames[2]
    assert [each["env_frames"] for each in after] == [number for number in frames if number > held]
    results = {each["env_frames"]: {**each, "run_dir": ""} for each in before + after}
    assert list(results.values()) == [{**each, "run_dir": ""} for each in swept.whole]
    ours, theirs = outcome(cut), outcome(swept.home / "a_00000")
    assert ours.keys() == theirs.keys() and ours
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name])
    assert harness.reports(cut) == harness.reports(swept.home / "a_00000")


def test_a_trial_that_had_ended_reports_what_it_came_to(tune, swept):
    """Where its process is lost between its last evaluation and its end."""
    (only,) = tune.run(swept.trainable, "a_00000", {"learning_rate": 1e-3})
    assert only["env_frames"] == swept.whole[-1]["env_frames"] and only["run_dir"] == str(swept.home / "a_00000")
    assert np.isfinite(only["score_mean"]) and only["updates"] == swept.whole[-1]["updates"]


@pytest.mark.slow
def test_a_trial_may_be_a_population(tune, tmp_path):
    trainable = sweep.trainable(ENV, folder=tmp_path, **TINY, vary=tfdqn.grid(seed=range(2)))
    before = tune.run(trainable, "a_00000", {"checkpoint_every_seconds": 1e-3}, cut_at=2)
    after = tune.run(trainable, "a_00000")
    assert [each["env_frames"] // 300 for each in before + after] == [1, 2, 2, 3]
    (only,) = tune.run(trainable, "a_00000")
    assert only["env_frames"] == after[-1]["env_frames"] and np.isfinite(only["score_mean"])


def test_a_trial_of_other_settings_than_its_run_is_refused_by_name(tune, swept):
    before = outcome(swept.home / "a_00000")
    with pytest.raises(UserError, match=r"learning_rate is 0\.001 in this run, not 0\.0001") as refused:
        tune.run(swept.trainable, "a_00000", {"learning_rate": 1e-4})
    assert refused.value.exit_code == EXIT_REFUSED
    assert all(np.array_equal(value, before[name]) for name, value in outcome(swept.home / "a_00000").items())


def test_what_another_process_trains_in_is_left_alone(tune, swept):
    held = swept.home / "a_00009"
    with begun(held), pytest.raises(UserError, match="trains in it"):
        tune.run(swept.trainable, "a_00009")
    assert (held / "config.toml").is_file()


# What a trial is given.


@pytest.fixture
def given(tune, monkeypatch, tmp_path):
    """The settings by which a trial of these would make its agent, elsewhere than where the sweep began."""
    monkeypatch.chdir(tmp_path)
    found = {}
    monkeypatch.setattr(sweep, "_go_on", lambda given, *_: found.update(given))

    def of(config, *env, **shared):
        found.clear()
        trainable = sweep.trainable(*env, folder="sweep", **shared)
        (tmp_path / "elsewhere").mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / "elsewhere")
        tune.run(trainable, "a_00000", config)
        return found

    return of


def test_a_trials_own_settings_win_and_may_be_of_any_kind(given):
    found = given({"env": "cave", "num_envs": np.int64(16), "learning_rate": np.float32(0.5)}, ENV, num_envs=8, seed=2)
    assert found == {"env": "cave", "num_envs": 16, "learning_rate": 0.5, "seed": 2}
    assert (type(found["num_envs"]), type(found["learning_rate"])) == (int, float)


def test_files_are_found_from_where_the_sweep_began(given, tmp_path):
    (tmp_path / "my_game.py").touch()
    found = given({"network": "package.module:body"}, "my_game.py:MyGame", init_from="runs/donor")
    assert found["env"] == f"{tmp_path}/my_game.py:MyGame" and found["network"] == "package.module:body"
    assert found["init_from"] == f"{tmp_path}/runs/donor"


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"lerning_rate": 1.0}, "lerning_rate: unknown setting; did you mean 'learning_rate'?"),
        ({"folder": "s3://bucket"}, "folder s3://bucket: only local files and folders work"),
    ],
)
def test_what_is_wrong_for_all_trials_is_said_before_the_first(tune, changes, said):
    with pytest.raises(UserError, match=re.escape(said)):
        sweep.trainable(ENV, **{"folder": "sweep", **changes})


def test_outside_of_a_sweep_one_line_says_so(tune, tmp_path):
    with pytest.raises(UserError, match=r"no trial of Ray Tune; give the trainable to ray\.tune\.Tuner"):
        tune.run(sweep.trainable(ENV, folder=tmp_path), None)


def test_without_ray_one_line_says_how_to_have_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.tune", None)
    with pytest.raises(UserError, match=r'needs Ray Tune; run python -m pip install "tfdqn\[ray\]"'):
        sweep.trainable(ENV, folder="sweep")


# The page's examples, with the libraries themselves.


@pytest.mark.slow
@pytest.mark.parametrize("library", ["optuna", "ray"])
def test_the_pages_examples_run(library, tmp_path):
    try:
        importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{library} is not installed")
    (code,) = [block for block in re.findall(r"^```py\n(.*?)^```", PAGE.read_text(), re.S | re.M) if library in block]
    environment = {**os.environ, "PYTHONPATH": str(PAGE.parents[1])}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-4000:]
    assert len(list(tmp_path.glob("*/*/config.toml"))) >= 3
