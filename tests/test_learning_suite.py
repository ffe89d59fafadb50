"""The runner of learning experiments: what it keeps, what it takes up again, and when its gate fails."""

import json
import subprocess

import pytest

from benchmarks import learning
from tfdqn import config as configuration
from tfdqn import train
from tfdqn.errors import UserError

TINY = "--env catch8 --total-env-frames 600 --num-envs 16 --replay-capacity 500 --replay-min-rows 100"
TINY += " --eval-every-frames 300 --eval-episodes 8 --final-eval-episodes 8 --eager --no-stop-at-goal"


def test_every_experiment_is_a_valid_command():
    for suite in learning.SUITES.values():
        for experiment in suite:
            arguments = train.parser().parse(experiment.flags.split())
            config = configuration.resolve({k: v for k, v in vars(arguments).items() if k in configuration.FIELDS})
            assert f"--env {config.env}" in experiment.flags and experiment.seeds >= 1


def test_names_tell_all_experiments_apart():
    names = [experiment.name for suite in learning.SUITES.values() for experiment in suite]
    assert len(names) == len(set(names))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """An experiment, the folder in which its run was made where one had been killed before its first checkpoint."""
    folder = tmp_path_factory.mktemp("experiments")
    (folder / "tiny-s3").mkdir()
    (folder / "tiny-s3" / "config.toml").write_text('env = "cave"')
    experiment = learning.Experiment("tiny", TINY, 1)
    return experiment, folder, learning.run(experiment, 3, folder)


def test_a_run_is_made_once_and_keeps_its_curve(tiny, monkeypatch):
    experiment, folder, result = tiny
    assert (result["name"], result["seed"], result["episodes"]) == ("tiny", 3, 8)
    assert [point["env_frames"] >= 300 for point in result["curve"]] == [True, True]
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("ran again"))
    assert learning.run(experiment, 3, folder) == result
    assert learning.run_name(experiment, 3, ["--init-from", "runs/x"]) == "tiny-s3-init-fromruns_x"
    with pytest.raises(UserError, match="was made with other flags"):
        learning.run(learning.Experiment("tiny", TINY + " --no-double", 1), 3, folder)


def test_the_gate_fails_below_its_floor_and_on_nothing_but_that():
    experiments = [learning.Experiment("a", "", 2, floor=90.0), learning.Experiment("b", "", 1)]

    def results(*scores):
        return [{"name": "a", "score_mean": score} for score in scores] + [{"name": "b", "score_mean": -5.0}]

    assert learning.below_floor(experiments, results(80, 100)) == []
    assert learning.below_floor(experiments, results(80, 99)) == ["a: mean score 89.5 over 2 seeds is below 90.0"]
    assert learning.below_floor(experiments, results(float("nan"), 99)) != []


def test_the_command_ends_with_1_where_the_gate_fails(tmp_path, monkeypatch, capsys):
    scores = iter([99.0, 99.0, 90.0, 700.0, 700.0, 700.0])

    def run(experiment, seed, folder, more):
        return {"name": experiment.name, "seed": seed, "score_mean": next(scores), "train_seconds": 1.0}

    monkeypatch.setattr(learning, "run", run)
    assert learning.main(["gate", "--json", str(tmp_path / "gate.json")]) == 1
    assert "gate-catch8: mean score 96.0 over 3 seeds is below 98.5" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "gate.json").read_text())) == 6


def test_the_gate_trains_anew_each_time(tmp_path, monkeypatch):
    folders = []

    def run(experiment, seed, folder, more):
        folders.append(folder)
        return {"name": experiment.name, "seed": seed, "score_mean": 1e9, "train_seconds": 1.0}

    monkeypatch.setattr(learning, "run", run)
    for _ in range(2):
        assert learning.main(["gate", "--folder", str(tmp_path), "--only", "gate-catch8"]) == 0
    assert len(folders) == 6 and len(set(folders)) == 2


def test_a_run_that_never_came_to_a_checkpoint_begins_anew(tiny):
    assert tiny[2]["env"] == "catch8"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["preset"], "did you mean 'presets'"), (["gate", "--only", "gate-cav"], "did you mean 'gate-cave'")],
)
def test_bad_arguments_are_one_line(arguments, message):
    with pytest.raises(UserError, match=message):
        learning.main(arguments)
