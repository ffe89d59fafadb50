"""A game from anywhere: a stranger's three commands, and everything that a run does, on numbers and on planes."""

import hashlib
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import tfdqn
from tests import own_games
from tests.faults import harness
from tests.whole_runs import SETTINGS, train_until
from tfdqn import config as configuration
from tfdqn import evaluate, record, train
from tfdqn.errors import EXIT_REFUSED, UserError
from tfdqn.programs import training
from tfdqn.programs.evaluation import Evaluator
from tfdqn.runs import checkpoints, donor, locks, models, run_config
from tfdqn.runs.loop import Run
from tfdqn.runtime.signals import StopRequest

ROOT = Path(__file__).parent.parent
SMALL = {**SETTINGS, "total_env_frames": 1200, "eval_every_frames": 500, "log_every_frames": 300}
LENGTH = [
    *("--device", "cpu", "--num-envs", "8", "--batch-size", "16", "--replay-capacity", "1000", "--eval-episodes", "4"),
    *("--replay-min-rows", "200", "--final-eval-episodes", "4", "--eval-every-frames", "400"),
]


def tfdqn_command(folder, *words):
    """The command `tfdqn` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "tfdqn", *map(str, words)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )


def refusal_of(command, *words):
    with pytest.raises(UserError) as error:
        command.main([str(word) for word in words])
    assert "\n" not in str(error.value)
    return str(error.value), error.value.exit_code


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    """A folder in which somebody has begun a game, checked it, and trained on it."""
    folder = tmp_path_factory.mktemp("stranger")
    done = tfdqn_command(folder, "new-game", "my_game")
    assert done.returncode == 0, done.stderr
    # What it says to do next, word for word, but for a length of time that a test does not have.
    (_, _, _, *checked), (_, _, train_module, *trained) = (shlex.split(line) for line in done.stdout.splitlines())
    assert train_module == "tfdqn.train" and trained[-2:] == ["--minutes", "1"]
    done = tfdqn_command(folder, "check-env", *checked, "--steps", "4", "--num-envs", "4")
    assert done.returncode == 0, done.stdout + done.stderr
    length = [*LENGTH, "--total-env-frames", "500", "--run-name", "first", "--json"]
    done = tfdqn_command(folder, "train", *trained[:-2], *length)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["env"] == "my_game.py:MyGame" and result["env_frames"] >= 500 and result["updates"] > 20
    return folder


def test_three_commands_lead_from_nothing_to_an_agent(stranger, capsys, monkeypatch):
    monkeypatch.chdir(stranger)
    assert (stranger / "runs" / "first" / models.BEST_MODEL).is_file()
    assert evaluate.main(["runs/first", "--env", "my_game.py:MyGame", "--episodes", "4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["env"] == "my_game.py:MyGame"
    assert record.main(["runs/first", "--env", "my_game.py:MyGame", "--frames", "5", "--out", "film.gif"]) == 0
    assert Image.open("film.gif").size == (20, 20)


def test_a_folder_does_not_decide_which_code_runs(stranger, tmp_path, monkeypatch):
    """Nor does the current folder: the file is there, and is not so much as read."""
    monkeypatch.chdir(stranger)
    what = "its env, my_game.py:MyGame, does not come along with tfdqn"
    for command, words, code in [
        (evaluate, ["runs/first"], 2),
        (record, ["runs/first", "--out", tmp_path / "film.gif"], 2),
        (train, ["--resume", "runs/first"], EXIT_REFUSED),
        (train, ["--env", "my_game.py:MyGame", "--init-from", "runs/other"], 2),
    ]:
        message, exit_code = refusal_of(command, *words)
        if "--init-from" in words:
            assert "no such run folder" in message
            continue
        assert what in message and message.endswith("add --env my_game.py:MyGame")
        assert exit_code == code
    message, _ = refusal_of(evaluate, "runs/first", "--env", "catch8")
    assert message == "--env catch8: runs/first has my_game.py:MyGame; use --env my_game.py:MyGame"
    # To begin with its weights, the game has been named already.
    donor.check_donor(configuration.resolve({"env": "my_game.py:MyGame", "init_from": str(stranger / "runs/first")}))
    message, _ = refusal_of(train, "--env", "catch8", "--init-from", "runs/first")
    assert what in message


def test_a_game_that_lies_elsewhere_now_is_named_there(stranger, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "games").mkdir()
    subprocess.run(["cp", "-r", f"{stranger}/runs", "."], check=True)
    game = tmp_path / "games" / "my_game.py"
    there = ["--env", "games/my_game.py:MyGame"]
    game.write_text((stranger / "my_game.py").read_text() + "\n# Changed.\n")
    message, _ = refusal_of(train, "--resume", "runs/first", *there)
    assert "the source of games/my_game.py:MyGame has changed" in message
    game.write_text((stranger / "my_game.py").read_text())
    message, code = refusal_of(train, "--resume", "runs/first", "--env", "my_game.py:MyGame")
    assert message.startswith("my_game.py:MyGame: no such file") and code == EXIT_REFUSED
    assert evaluate.main(["runs/first", *there, "--episodes", "2", "--json"]) == 0
    assert tfdqn.load("runs/first", env=f"{game}:MyGame").config.env == f"{game}:MyGame"
    assert train.main(["--resume", "runs/first", *there, "--total-env-frames", "600", "--json"]) == 0
    results = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [each["env"] for each in results] == [there[1]] * 2 and results[1]["env_frames"] >= 600
    assert run_config.read_settings("runs/first")["env"] == there[1]  # what goes on from here is said so
    for other in ("games/other.py:MyGame", "games/my_game.py:Other", "my_game:MyGame", "catch8"):
        message, _ = refusal_of(evaluate, "runs/first", "--env", other)
        assert message.startswith(f"--env {other}: runs/first has games/my_game.py:MyGame")


def test_another_source_is_refused_by_name_and_may_be_accepted(stranger, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    subprocess.run(["cp", "-r", f"{stranger}/runs", f"{stranger}/my_game.py", "."], check=True)
    game = tmp_path / "my_game.py"
    more = ["--resume", "runs/first", "--env", "my_game.py:MyGame", "--total-env-frames", "600"]
    game.write_text(game.read_text() + "\n# Changed.\n")
    message, code = refusal_of(train, *more)
    assert message == (
        "runs/first: the source of my_game.py:MyGame has changed since the run was saved; to go on with it as it is "
        "now, add --accept-changed-env"
    )
    assert code == EXIT_REFUSED
    game.write_text(game.read_text().replace("# Changed.", "# Changed"))
    assert train.main([*more, "--accept-changed-env", "--json"]) == 0
    told = capfd.readouterr()
    assert "warning: runs/first: the source of my_game.py:MyGame has changed" in told.err
    assert json.loads(told.out)["env_frames"] >= 600
    # From now on this is its source.
    config = run_config.resumed_config("runs/first", {"env": "my_game.py:MyGame"})
    held = harness.newest(tmp_path / "runs" / "first")["game_source"]
    run_config.refuse_other_source(Path("runs/first"), held, config, False)
    assert held == {
        "spec": "my_game.py:MyGame",
        "arguments": "",
        "sha256": hashlib.sha256(game.read_bytes()).hexdigest(),
    }
    game.unlink()
    assert "no such file my_game.py" in refusal_of(train, *more)[0]
    message, _ = refusal_of(train, "--accept-changed-env", "--env", "catch8")
    assert "is for a run that goes on" in message


# --- Numbers and planes. ---


def make(run_dir, name, **changes):
    spec = f"{own_games.__file__}:{name}"
    return Run(configuration.resolve({**SMALL, "env": spec, **changes}), run_dir, "/CPU:0", StopRequest())


def go_on(run_dir, name, **changes):
    config = run_config.resumed_config(str(run_dir), {"env": f"{own_games.__file__}:{name}", **changes})
    lock = locks.lock(run_dir)
    checkpoint, problems = checkpoints.load_newest(run_dir)
    assert not problems
    return Run(config, run_dir, "/CPU:0", StopRequest(), lock, checkpoint)


class TooNarrow(own_games.Line):
    def observe(self, state):
        return super().observe(state)[:, :2]


class Precise(own_games.Line):
    def step(self, state, action, noise):
        state, timestep = super().step(state, action, noise)
        return state, timestep._replace(reward=tf.cast(timestep.reward, tf.float64))


@pytest.mark.parametrize(
    "game, message",
    [
        (
            TooNarrow,
            r"observation: observe is \[16, 2\] float32, but observation_spec says \[16, 3\] float32: .* has more",
        ),
        (Precise, r"reward: reward is \[16\] float64, must be \[16\] float32, one an environment; .* has more"),
    ],
)
def test_training_says_what_a_game_does_not_keep(game, message, tmp_path):
    spec = f"tests.test_own_game:{game.__name__}"
    with pytest.raises(UserError, match=f"^--env {spec}: {message}$"):
        train.main(["--env", spec, "--no-jit", "--num-envs", "4", "--logdir", str(tmp_path)])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name, changes",
    [
        ("Line", {"frame_stack": 3, "frame_stride": 2, "env_args": '{"cells": 5}', "jit": False}),
        pytest.param(
            *("Planes", {"frame_stack": 1, "network": "conv", "action_repeat": 2, "jit": False}),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *("Planes", {"frame_stack": 3, "jit": False, "prioritized": True, "n_step": 3}), marks=pytest.mark.slow
        ),
    ],
)
def test_a_broken_run_ends_like_the_unbroken_one(name, changes, tmp_path, capsys):
    whole = make(tmp_path / "whole", name, **changes)
    result = whole.train()
    whole.close()
    assert result["updates"] > 50
    run = make(tmp_path / "broken", name, **changes)
    train_until(run, 450)
    run.close()
    run = go_on(tmp_path / "broken", name)
    spec = run.trainer.env.observation_spec
    assert run.carry.history.shape[2:] == spec.shape and run.carry.history.dtype.name == spec.dtype
    run.train()
    run.close()
    assert harness.differences(tmp_path / "whole", tmp_path / "broken") == []
    # What is kept is what was scored, here and by the command.
    env = ["--env", f"{own_games.__file__}:{name}"]
    assert evaluate.main([str(tmp_path / "whole"), *env, "--episodes", "4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["score_mean"] == pytest.approx(result["score_mean"])
    out = ["--out", str(tmp_path / "film.gif")]
    if name == "Line":
        message, _ = refusal_of(record, tmp_path / "whole", *env, *out)
        assert message == "Line has no pictures: give it a method render(state) -> [N, H, W, 3] uint8"
        assert not (tmp_path / "film.gif").exists()
        assert not any("player" in tag for _, tag, _ in harness.events(tmp_path / "whole"))
        return
    assert record.main([str(tmp_path / "whole"), *env, *out, "--scale", "3"]) == 0
    film = Image.open(tmp_path / "film.gif")
    assert film.size == (21, 6) and film.n_frames >= 1
    colours = {tuple(colour) for colour in np.array(film.convert("RGB")).reshape(-1, 3).tolist()}
    assert (255, 127, 14) in colours or (31, 119, 180) in colours  # the goal, the player
    assert any(tag == "eval/player" for _, tag, _ in harness.events(tmp_path / "whole"))


@pytest.mark.parametrize("name", ["Line", "Planes"])
@pytest.mark.parametrize("stack, stride", [(1, 1), (3, 1), (3, 2)])
def test_what_is_learnt_from_is_what_was_acted_on(name, stack, stride):
    """Each stack drawn from the replay is, in every bit, the one that was seen then; and so is the next."""
    given = {**SMALL, "env": f"{own_games.__file__}:{name}", "frame_stack": stack, "frame_stride": stride}
    trainer = training.Trainer(configuration.resolve({**given, "eager": True, "replay_min_rows": 900}))
    seen, act = [], trainer.agent.act

    def watching(observation, *rest):
        action, state = act(observation, *rest)
        seen.append((observation.numpy(), action.numpy()))
        return action, state

    trainer.agent.act = watching
    trainer.run_chunk(trainer.initial_carry(), 40, 2**62)
    assert len(seen) == 40
    batch, weights, index = trainer.replay.sample(tf.constant([0, 1], tf.int64), 200)
    step, number = np.divmod(index.numpy(), SMALL["num_envs"])
    assert weights.numpy().all() and len(set(step)) > 20 and set(number) == set(range(SMALL["num_envs"]))
    assert batch.observation.shape[1:] == trainer.env.observation_spec.stacked(stack).shape
    assert batch.observation.dtype.name == trainer.env.observation_spec.dtype
    for i, (t, n) in enumerate(zip(step, number, strict=True)):
        np.testing.assert_array_equal(batch.observation[i], seen[t][0][n])
        np.testing.assert_array_equal(batch.next_observation[i], seen[t + 1][0][n])
        assert batch.action[i] == seen[t][1][n]
    # Stacks do hold more than one frame, and episodes do end on the way.
    frames = np.split(batch.observation.numpy(), stack, axis=-1)
    assert stack == 1 or any(not np.array_equal(frames[0][i], frames[-1][i]) for i in range(200))
    assert (batch.discount.numpy() == 0).any()


def test_an_evaluation_sees_the_same_stacks():
    """Played op by op here, against the compiled program."""
    given = {**SMALL, "env": f"{own_games.__file__}:Line", "frame_stack": 3, "convolution": "patches"}
    config = configuration.resolve(given)
    trainer = training.Trainer(config)
    scores = Evaluator(config, trainer.env, trainer.agent).evaluate(4)
    eager = Evaluator(config.replace(eager=True), trainer.env, trainer.agent).evaluate(4)
    np.testing.assert_array_equal(scores.scores, eager.scores)
    np.testing.assert_array_equal(scores.frames, eager.frames)
    np.testing.assert_allclose(scores.q_values, eager.q_values, rtol=1e-4, atol=1e-6)
