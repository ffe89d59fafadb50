"""A run as a whole: how long its evaluations play, and what is kept of a finished one that goes on."""

import errno
import os

import numpy as np
import pytest
import tensorflow as tf

from tests.whole_runs import SETTINGS, make_run, resume
from tfdqn import config as configuration
from tfdqn import train
from tfdqn.errors import EXIT_IO, UserError
from tfdqn.learners.dqn import building
from tfdqn.learners.dqn.agent import DQN
from tfdqn.programs import training
from tfdqn.programs.evaluation import Scores, Stopped
from tfdqn.runs import checkpoints, models, monitor, run_config, run_folder
from tfdqn.runs.loop import Run
from tfdqn.runtime.signals import StopRequest

SHORT = {"total_env_frames": 1000, "eval_max_frames": 100, "goal_score": np.inf}


def play_like(run, agents):
    """Let the evaluations of a run be those of agents that live for so many frames, each agent for one evaluation.

    An agent is known by its weights. One number is the life of all its episodes, an array that of each. Returns the
    (agent's number, limit) of every evaluation, as they come.
    """
    agents, known, played = list(agents), [], []

    def evaluate(episodes, seed=0, *, stream="final_evaluation", max_frames=None, epsilon=0.0):
        weights = run.trainer.agent.online.get_weights()[0].tobytes()
        if weights not in known:
            known.append(weights)
        number = min(known.index(weights), len(agents) - 1)
        played.append((number, max_frames))
        lives = np.broadcast_to(agents[number], [episodes])
        frames = np.minimum(lives, max_frames or 10_000).astype(np.int32)
        return Scores(
            frames.astype(np.float32),
            frames,
            *(np.zeros([n, 48, 48], np.uint8) for n in (12, 5)),
            np.zeros([5, 2], np.float32),
        )

    run.evaluator.evaluate = evaluate
    return played


def evaluate_in_turn(run, count):
    """Evaluate so many agents of different weights; returns the mean scores that are reported."""
    reported, kernel = [], run.trainer.agent.online.variables[0]
    run.monitor.report = lambda frames, updates, seconds, values: reported.append(values["eval/score_mean"])
    run.monitor.show_player = lambda *_: None
    for number in range(count):
        run.carry = run.carry._replace(env_frames=tf.constant(number, tf.int64))
        kernel.assign(tf.fill(kernel.shape, float(number)))
        run._evaluate()
        assert (kernel.numpy() == number).all()  # whoever was scored again in between
    return reported


def test_evaluations_play_longer_for_an_agent_that_outgrows_them_and_its_score_is_the_longer_ones(tmp_path):
    run = make_run(tmp_path / "run", **SHORT)
    played = play_like(run, [30, 60, 50, 20_000])
    assert evaluate_in_turn(run, 4) == [30, 60, 50, 800]
    # A game lasts for 501 frames. The best agent so far plays under each new limit, too.
    limits = [(0, 100), (1, 100), (0, 200), (1, 200), (2, 200), (3, 200), (1, 400), (3, 400), (1, 800), (3, 800)]
    assert played == limits
    assert run.progress.best_env_frames == 3 and run.progress.eval_max_frames == 800
    run.monitor.close()


def test_a_best_agent_that_is_cut_short_when_it_is_scored_again_keeps_score_and_limit(tmp_path):
    """So the resumed run, which evaluates again, compares under one limit."""
    run = make_run(tmp_path / "run", **SHORT)
    play_like(run, [30, 60])
    evaluate_in_turn(run, 1)
    evaluate = run.evaluator.evaluate

    def stopping(episodes, seed=0, *, max_frames=None, **more):
        if max_frames > 100:
            raise Stopped
        return evaluate(episodes, seed, max_frames=max_frames, **more)

    run.evaluator.evaluate = stopping
    kernel = run.trainer.agent.online.variables[0]
    kernel.assign(tf.ones_like(kernel))
    with pytest.raises(Stopped):
        run._evaluate()
    assert (run.progress.eval_max_frames, run.progress.best_score) == (100, 30)
    run.monitor.close()


BIMODAL = np.where(np.arange(100) < 69, 15, 10**6)  # dies at once or never


@pytest.mark.parametrize("later", [330, 334])
def test_no_better_agent_is_passed_over_because_its_episodes_were_cut(tmp_path, later):
    """69% die in frame 15 and 31% reach any limit; a later agent always dies in frame 330 (or 334)."""
    run = make_run(tmp_path / "run", env="cave", network="mlp", eval_max_frames=1000, eval_episodes=100)
    played = play_like(run, [BIMODAL, later, 20])
    reported = evaluate_in_turn(run, 3)
    assert run.progress.best_env_frames == 0 and run.progress.eval_max_frames == 2000
    np.testing.assert_allclose(reported, [0.69 * 15 + 0.31 * 1000, later, 20], rtol=1e-6)
    np.testing.assert_allclose(run.progress.best_score, 0.69 * 15 + 0.31 * 2000, rtol=1e-6)
    np.testing.assert_allclose(run.progress.best_score_ceiling, 0.69 * 15 + 0.31 * 10_000, rtol=1e-6)
    # What is certain is not played again.
    assert played == [(0, 1000), (1, 1000), (0, 2000), (1, 2000), (2, 2000)]
    run.monitor.close()


def test_the_best_agent_is_the_one_that_uncut_evaluations_would_find(tmp_path):
    """Over agents with lives of all kinds, in the cave, where a cut score is a floor, and in catch, where it is not."""
    rng = np.random.default_rng(0)
    for trial in range(12):
        game = {"env": "cave", "network": "mlp"} if trial % 2 else {}
        run = make_run(tmp_path / f"run{trial}", **game, eval_max_frames=64, eval_episodes=8)
        longest = run.trainer.env.time_limit
        lives = [np.minimum(rng.pareto(0.7, 8) * rng.integers(5, 60) + 1, longest).astype(int) for _ in range(8)]
        play_like(run, lives)
        evaluate_in_turn(run, 8)
        assert run.progress.best_env_frames == np.argmax([np.mean(each) for each in lives])
        run.monitor.close()


def test_a_longer_run_keeps_the_best_agent_of_a_finished_one(tmp_path):
    """Found by the evaluation at its end, which a run that was to be longer has not."""
    run_dir = tmp_path / "run"
    run = make_run(run_dir, **SHORT, eval_every_frames=600)
    play_like(run, [20, 900])
    run.train()
    best = [weights.copy() for weights in run.best_weights]
    assert run.progress.best_env_frames == run.env_frames >= 1000
    run._lock.close()

    run = resume(run_dir, total_env_frames=1700)
    assert (run.progress.best_score, run.progress.eval_max_frames) == (800.0, 800)
    assert "eval/score_mean" not in (run_dir / "metrics.jsonl").read_text().splitlines()[-1]
    play_like(run, [300, 200])
    result = run.train()
    assert 1000 <= result["best_env_frames"] < 1100
    agent = run.trainer.agent
    models.load_weights(agent, run_dir / models.BEST_MODEL)
    for ours, kept in zip(agent.online.get_weights(), best, strict=True):
        np.testing.assert_array_equal(ours, kept)
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    assert sum("eval/score_mean" in line for line in lines) == 3  # at 600, 1,200 and the end


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"total_env_frames": 70}, "all that --total-env-frames asks for"),
        ({"goal_score": 5.0}, "--goal-score 5 is reached (to train on, add --no-stop-at-goal)"),
        ({"minutes": 1e-6}, "--minutes 1e-06 are over"),
    ],
)
def test_a_finished_run_says_what_would_let_it_go_on(tmp_path, capfd, settings, reason):
    run = make_run(tmp_path / "run", **settings)
    run.carry = run.carry._replace(env_frames=tf.constant(70, tf.int64))
    run.progress.best_score = 5.0 if "goal_score" in settings else None
    run.best_weights = run.trainer.agent.online.get_weights()
    play_like(run, [1])
    run.train()
    assert f"updates, {reason}; evaluating again" in capfd.readouterr().err


def test_a_device_that_is_full_is_one_line(tmp_path, monkeypatch):
    run = make_run(tmp_path / "run")

    def fail(*_):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr(run.trainer, "run_chunk", fail)
    with pytest.raises(UserError, match="memory of CPU:0 is full: try half of --num-envs 8") as error:
        run.train()
    assert "\n" not in str(error.value)


def flags(**given):
    return [part for name, value in given.items() for part in (f"--{name.replace('_', '-')}", str(value))]


def no_space(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("where", ["write_config", "Monitor"])
def test_a_full_disk_at_the_start_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, where):
    module = {"write_config": run_config, "Monitor": monitor}[where]
    monkeypatch.setattr(module, where, no_space)
    with pytest.raises(UserError, match="No space left") as error:
        train.main([*flags(**SETTINGS, logdir=tmp_path), "--run-name", "run"])
    assert error.value.exit_code == EXIT_IO and "\n" not in str(error.value)
    assert "--resume" not in str(error.value)  # there is nothing to go on with
    assert list(tmp_path.iterdir()) == []


def test_settings_that_fill_the_device_leave_no_folder(tmp_path, monkeypatch):
    def fail(*_):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr(training.Trainer, "run_chunk", fail)
    with pytest.raises(UserError, match="memory of CPU:0 is full"):
        train.main([*flags(**SETTINGS, logdir=tmp_path), "--run-name", "run"])
    assert list(tmp_path.iterdir()) == []


def test_a_second_run_of_the_same_second_takes_the_next_name(tmp_path):
    settings = {**SETTINGS, "total_env_frames": 100}
    config = configuration.resolve(settings)
    first, *others = run_folder.folders(config, tmp_path, None)
    begun = [Run(config, first, "/CPU:0", StopRequest(), other_dirs=others) for _ in range(2)]
    assert [run.run_dir for run in begun] == [first, first.with_name(f"{first.name}-2")]
    assert {path.name for path in begun[1].run_dir.iterdir()} >= {"config.toml", "metrics.jsonl", "lock"}
    for run in begun:
        run.monitor.close()


def kept_in(run, name):
    """The weights in a run's model."""
    kept = building.build_agent(run.config, run.trainer.env)
    models.load_weights(kept, run.run_dir / name)
    return kept.online.get_weights()


def assert_equal(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_full_disk_at_an_evaluation_is_told_and_the_best_agent_is_written_when_there_is_room(
    tmp_path, monkeypatch, capfd
):
    run = make_run(tmp_path / "run", **SHORT)
    play_like(run, [10, 30, 20])
    run._evaluate()
    assert_equal(kept_in(run, models.BEST_MODEL), run.best_weights)
    run.carry = run.carry._replace(env_frames=tf.constant(1, tf.int64))
    online = run.trainer.agent.online
    with monkeypatch.context() as patch:
        patch.setattr(type(run.trainer.agent), "save", no_space)
        online.set_weights([weights + 1 for weights in online.get_weights()])
        run._evaluate()
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "warning" in line]
    assert f"{tmp_path / 'run' / models.BEST_MODEL}: No space left on device; it waits" in line
    best = [weights.copy() for weights in run.best_weights]
    assert not np.array_equal(kept_in(run, models.BEST_MODEL)[0], best[0])  # the one before is whole
    online.set_weights([weights + 1 for weights in online.get_weights()])
    learned = [variable.numpy() for variable in run.trainer.learner.variables.values()]
    run.saver._last_end = -1e9  # a checkpoint is due
    run.saver.save_if_due()
    assert "is written now" in capfd.readouterr().err
    assert_equal(kept_in(run, models.BEST_MODEL), best)
    assert_equal([variable.numpy() for variable in run.trainer.learner.variables.values()], learned)
    run.monitor.close()


@pytest.mark.parametrize("has_checkpoint", [True, False])
def test_a_model_that_cannot_be_written_at_the_end_is_an_error(tmp_path, monkeypatch, capfd, has_checkpoint):
    """Which advises to go on only where something is there to go on from."""
    monkeypatch.setattr(DQN, "save", no_space)
    if not has_checkpoint:
        monkeypatch.setattr(checkpoints, "_write_tensors", no_space)
    with pytest.raises(UserError, match="No space left") as error:
        train.main([*flags(**{**SETTINGS, **SHORT}, logdir=tmp_path), "--no-jit", "--run-name", "run"])
    assert error.value.exit_code == EXIT_IO and "\n" not in str(error.value)
    assert ("--resume" in str(error.value)) == has_checkpoint
    assert "it waits until it can be written" in capfd.readouterr().err


def test_a_diverged_run_says_so_on_a_full_disk_too(tmp_path, monkeypatch):
    run = make_run(tmp_path / "run", **SHORT)
    monkeypatch.setattr(run.monitor, "close", no_space)
    bad = run.carry.metrics._replace(non_finite_tensors=tf.ones_like(run.carry.metrics.non_finite_tensors))
    run.carry = run.carry._replace(metrics=bad)
    with pytest.raises(UserError, match="training diverged"):
        run._guard()
