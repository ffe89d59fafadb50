"""Numbers at their limits: one that is not finite ends a run by name, and counters are right at any age."""

import json
import re
from fractions import Fraction

import numpy as np
import pytest
import tensorflow as tf

from tests.faults import harness
from tfdqn import config as configuration
from tfdqn.errors import EXIT_NUMERIC, UserError
from tfdqn.learners import optimizing
from tfdqn.learners.dqn.learner import DQNLearner
from tfdqn.runs import checkpoints, monitor
from tfdqn.runs.loop import Run
from tfdqn.runtime.signals import StopRequest

PERIOD, LOG, EVALUATE = 7, 300, 700  # updates between target copies; env frames between reports and evaluations
SETTINGS = {
    **{"env": "catch8", "device": "cpu", "num_envs": 8, "batch_size": 64},
    **{"replay_capacity": 2000, "replay_min_rows": 200, "target_update_period_updates": PERIOD},
    **{"epsilon_decay_env_frames": 1000, "log_every_frames": LOG, "eval_every_frames": EVALUATE},
    **{"total_env_frames": 2**62, "goal_score": 1000.0},
}
AGES = [2**31 - 900, 2**40 - 900]


class Sample:
    """A run that has learned for a while, and can be brought back to there."""

    def __init__(self, run_dir, **mode):
        self.run = run = Run(configuration.resolve({**SETTINGS, **mode}), run_dir, "/CPU:0", StopRequest())
        self.evaluated = []
        run._evaluate = lambda: self.evaluated.append(run.env_frames)  # its program is no part of this
        while run.env_frames < 3000:  # the replay has been overwritten in part
            self.train(100)
        run.saver.save_last()
        self._variables = {name: variable.numpy() for name, variable in run.trainer.learner.variables.items()}
        self._carry, self._checkpoint = run.carry, run.saver.path

    def train(self, rounds):
        self.run.progress.rounds = rounds
        self.run.train_chunk()

    def bring_back(self):
        for name, variable in self.run.trainer.learner.variables.items():
            variable.assign(self._variables[name])
        self.run.carry = self._carry._replace(metrics=DQNLearner.sums().zeros())
        self.run.saver.path = self._checkpoint
        self.run.monitor.close()
        self.run.monitor = monitor.Monitor(self.run.config, self.run.run_dir, self.run.trainer.env, is_resumed=True)
        self.evaluated.clear()


@pytest.fixture(scope="module", params=[True, False], ids=["xla", "graph"])
def trained(request, tmp_path_factory):
    return Sample(tmp_path_factory.mktemp("numerics") / "run", jit=request.param)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e38])
def test_one_poisoned_reward_ends_the_run_within_a_chunk_by_name(trained, value):
    """The last one is finite, and so is its loss; but what it does to the weights is as bad."""
    trained.bring_back()
    run, state = trained.run, trained.run.trainer.replay.state
    slot = (int(state["last_id"]) - 20) % run.trainer.replay.length
    env = np.flatnonzero(state["is_boundary"][slot].numpy() == 0)[0]  # a boundary's reward means nothing
    reward = state["reward"].numpy()
    reward[slot, env] = value
    state["reward"].assign(reward)
    before, reported = run.updates, len(harness.reports(run.run_dir))
    run.progress.next_log, run.progress.next_eval = run.env_frames + 1, 2**62  # an evaluation cuts chunks short
    with pytest.raises(UserError, match=r"training diverged at update [0-9]+: the TD target is not finite") as error:
        trained.train(100)
    assert error.value.exit_code == EXIT_NUMERIC
    poisoned = int(re.search("update ([0-9]+)", str(error.value))[1])
    assert before + 1 < poisoned <= run.updates == before + 100
    # The reports before it are kept, the first due after one update; those it is part of are not written.
    written = [line["updates"] for line in harness.reports(run.run_dir)[reported:]]
    assert written[0] == before + 1 and written[-1] < poisoned
    # Nothing of it was saved, and what was saved is whole.
    checkpoint, problems = checkpoints.load_newest(run.run_dir)
    assert problems == [] and checkpoint.manifest["updates"] == before
    assert np.isfinite(state["reward"].numpy()).sum() >= reward.size - 1


def test_the_guard_is_silent_on_large_but_sound_numbers(trained):
    trained.bring_back()
    reward = trained.run.trainer.replay.state["reward"]
    reward.assign(tf.fill(reward.shape, 1e4))
    before = trained.run.updates
    trained.train(10)
    assert trained.run.updates == before + 10
    assert int(trained.run.carry.metrics.non_finite_updates) == 0


def test_the_reports_of_a_chunk_share_its_seconds_by_their_frames(trained):
    trained.bring_back()
    run, reported = trained.run, len((trained.run.run_dir / "metrics.jsonl").read_text().splitlines())
    run.progress.next_log, run.progress.next_eval = run.env_frames + 1, 2**62
    frames, before = run.env_frames, run.wall_seconds
    trained.train(500)
    after = run.wall_seconds
    lines = [json.loads(line) for line in (run.run_dir / "metrics.jsonl").read_text().splitlines()[reported:]]
    assert len(lines) >= 3
    first, *_, last = lines
    assert before - 0.001 < first["wall_seconds"] < last["wall_seconds"] < after + 0.001  # rounded
    pace = (last["wall_seconds"] - first["wall_seconds"]) / (last["env_frames"] - first["env_frames"])
    allowed = 0.01 + 0.02 * (after - before)
    assert all(abs(line["wall_seconds"] - before - pace * (line["env_frames"] - frames)) < allowed for line in lines)


@pytest.mark.parametrize("age", AGES)
def test_a_run_of_great_age_keeps_every_count(trained, age):
    """Frames, iterations, updates and rows cross 2^31, or begin at 2^40."""
    trained.bring_back()
    run, trainer = trained.run, trained.run.trainer
    replay, iterations = trainer.replay, trainer.agent.optimizer.iterations
    row = int(replay.state["last_id"])
    row += -(-(age - row) // replay.length) * replay.length  # the rows stay where they are
    replay.state["last_id"].assign(row)
    iterations.assign(age)
    run.carry = run.carry._replace(iteration=tf.constant(age, tf.int64), env_frames=tf.constant(age, tf.int64))
    run.progress.next_log, run.progress.next_eval = ((age // every + 1) * every for every in (LOG, EVALUATE))

    for _ in range(2 * PERIOD):  # one update a chunk
        trained.train(1)
        is_copy = all(
            np.array_equal(ours, theirs)
            for ours, theirs in zip(trainer.agent.online.variables, trainer.agent.target.variables, strict=True)
        )
        assert is_copy == (run.updates % PERIOD == 0)
    while run.env_frames < age + 1800:
        trained.train(50)
    played = int(run.carry.iteration) - age
    assert run.updates == age + played and int(replay.state["last_id"]) == row + played
    assert 8 * played * 0.8 < run.env_frames - age <= 8 * played
    assert age < 2**31 < run.env_frames or age > 2**39

    reports = [line for line in harness.reports(run.run_dir) if line["env_frames"] >= age]
    frames = [line["env_frames"] for line in reports]
    first = age // LOG + 1
    assert [f // LOG for f in frames] == list(range(first, first + len(frames))) and len(frames) >= 5
    assert [f // EVALUATE for f in trained.evaluated] == list(
        range(age // EVALUATE + 1, run.env_frames // EVALUATE + 1)
    )
    assert all(line["rollout/epsilon"] == pytest.approx(0.05) for line in reports)
    assert all(0 < line["rollout/episode_frames"] <= 501 for line in reports)
    run.monitor.flush()
    steps = [step for _, tag, step in harness.events(run.run_dir) if tag == "train/loss" and step >= age]
    assert steps == frames

    run.saver.save_last()
    checkpoint, _ = checkpoints.load_newest(run.run_dir)
    assert checkpoint.path.name == str(run.updates) and checkpoint.manifest["env_frames"] == run.env_frames
    assert int(checkpoint.read({"carry/iteration": run.carry.iteration})["carry/iteration"]) == age + played


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("length", [2**24 + 3, 2**31 + 1, 2**40 + 1, 2**53])
def test_the_learning_rate_is_right_where_float32_cannot_count(length, jit):
    """Keras counts in float32 there, which stops at 2^24; but a share of the whole loses only its rounding."""
    start, end = 1e-2, 1e-4
    config = configuration.resolve(
        {"learning_rate": start, "learning_rate_end": end, "learning_rate_decay_updates": length}
    )
    schedule = tf.function(optimizing.build_optimizer(config)._learning_rate, jit_compile=jit, autograph=False)
    for update in (0, 1, length // 3, length // 2 + 1, length - 1, length, length + 1, 2**62):
        share = Fraction(min(update, length), length)
        expected = float(Fraction(start) + (Fraction(end) - Fraction(start)) * share)
        assert abs(float(schedule(tf.constant(update, tf.int64))) - expected) < 2e-7 * start


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("optimizer", ["adam", "rmsprop", "rmsprop_graves"])
def test_an_optimizers_step_is_the_same_at_any_age(optimizer, jit):
    """Adam's correction for its first steps is a power of the count."""
    built, weight = optimizing.build_optimizer(configuration.resolve({"optimizer": optimizer})), tf.Variable([1.0])
    built.build([weight])
    apply = tf.function(lambda: built.apply_gradients([(weight * 0 + 0.5, weight)]), jit_compile=jit, autograph=False)
    fresh, steps = [variable.numpy() for variable in built.variables], []
    for age in (10**6, 2**24 + 1, 2**31 - 1, 2**40, 2**53 + 1):
        for variable, value in zip(built.variables, fresh, strict=True):
            variable.assign(value)
        weight.assign([1.0])
        built.iterations.assign(age)
        apply()
        assert int(built.iterations) == age + 1
        steps.append(weight.numpy()[0] - 1)
    assert steps[0] < 0 and steps == [steps[0]] * len(steps)
