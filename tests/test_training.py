"""The compiled loop: what it counts, what it must not depend on, and how episodes begin and end in it."""

import functools
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from tfdqn import config as configuration
from tfdqn.envs import TimeStep, make, rollout
from tfdqn.learners import exploration, metrics, optimizing
from tfdqn.learners.dqn.learner import DQNLearner
from tfdqn.learners.dqn.metrics import CAUSES
from tfdqn.learners.metrics import MAX_REPORTS, Reports
from tfdqn.programs.training import Trainer
from tfdqn.runtime import loops

SMALL = {
    "env": "catch8",
    "num_envs": 8,
    "batch_size": 16,
    "replay_capacity": 1_000,
    "replay_min_rows": 200,
    "target_update_period_updates": 7,
    "epsilon_decay_env_frames": 500,
    "device": "cpu",
}


def make_trainer(**given) -> Trainer:
    return Trainer(configuration.resolve({**SMALL, **given}))


@functools.cache
def compiled_trainer(settings):
    trainer = make_trainer(**dict(settings))
    return trainer, {name: variable.numpy() for name, variable in trainer.learner.variables.items()}


def shared_trainer(**given) -> Trainer:
    """A trainer as new, with the programs that an earlier test of the same settings has compiled."""
    trainer, initial = compiled_trainer(tuple(given.items()))
    for name, variable in trainer.learner.variables.items():
        variable.assign(initial[name])
    return trainer


# What is played before anything is learnt.
PLAY = {"replay_min_rows": 1_000, "epsilon_decay_env_frames": 10**9}


def run(trainer, rounds, chunk, stop=2**62):
    carry = trainer.initial_carry()
    done = 0
    while done < rounds:
        carry = trainer.run_chunk(carry, min(chunk, rounds - done), stop)
        done += chunk
    return carry


def fingerprint(trainer, carry):
    """Everything that a run has changed, by name."""
    tensors = {f"carry/{i}": value for i, value in enumerate(tf.nest.flatten(carry))}
    tensors |= {f"agent/{i}": value for i, value in enumerate(trainer.agent.variables)}
    tensors |= {f"optimizer/{i}": value for i, value in enumerate(trainer.agent.optimizer.variables)}
    tensors |= {f"replay/{name}": value for name, value in trainer.replay.state.items()}
    return {name: value.numpy() for name, value in tensors.items()}


def differing(first, second):
    assert first.keys() == second.keys()
    return [name for name in first if not np.array_equal(first[name], second[name])]


@pytest.fixture(scope="module")
def whole():
    """What 150 rounds in one chunk lead to."""
    trainer = make_trainer(seed=3)
    return fingerprint(trainer, run(trainer, 150, 150))


@pytest.fixture(scope="module")
def in_chunks():
    """What another trainer of the same seed comes to in chunks, and how often it traced its program."""
    trainer = make_trainer(seed=3)
    carry = trainer.initial_carry()
    for rounds in (1, 1, 37, 37, 74):
        carry = trainer.run_chunk(carry, rounds, 2**62)
    return fingerprint(trainer, carry), trainer.trace_count


def test_results_do_not_depend_on_the_chunks_length_and_each_program_is_traced_once(whole, in_chunks):
    found, traced = in_chunks
    assert traced == 1
    assert int(whole["optimizer/0"]) > 100
    assert differing(whole, found) == []


def test_the_frames_of_one_environment_are_one_kernel():
    """XLA still knows the option that `tfdqn` sets, and finds the loop small enough."""
    trainer = make_trainer(num_envs=1, batch_size=8, iterations_per_update=3)
    one = tf.ones([], tf.int64)
    arguments = (trainer.initial_carry(), Reports.none(one, trainer.learner.sums()), one, one)
    program = trainer._chunk.experimental_get_compiler_ir(*arguments)(stage="optimized_hlo")
    assert program.count('xla_cpu_small_call="true"') == 1


@pytest.mark.parametrize(
    "given",
    [
        {},
        pytest.param({"iterations_per_update": 3, "updates_per_iteration": 2}, marks=pytest.mark.slow),
        pytest.param({"population": 2, "updates_per_iteration": 2}, marks=pytest.mark.slow),
        {"env": "cave", "network": "mlp", "restart_share": 0.5},
        pytest.param(
            {"learner": "r2d2", "burn_in": 2, "sequence_length": 4, "sequence_period": 2}, marks=pytest.mark.slow
        ),
        pytest.param({"learner": "pqn", "num_steps": 4}, marks=pytest.mark.slow),
        pytest.param({"learner": "a2c", "rollout_steps": 4}, marks=pytest.mark.slow),
    ],
    ids=["dqn", "rounds", "population", "practice", "r2d2", "pqn", "a2c"],
)
def test_the_form_for_a_gpu_computes_the_same(given):
    """Without XLA, to the bit: its loops are packed and hold variables, and rounds without updates are a program."""
    found = []
    for device in ("/CPU:0", ""):  # no device named: nothing here is a CPU to the trainer
        common = SMALL if given.get("learner", "r2d2") == "r2d2" else {"env": "catch8", "num_envs": 8}
        config = configuration.resolve({**common, "jit": False, "log_every_frames": 100, **given})
        trainer = Trainer(config, device)
        carry, rows, next_report = trainer.initial_carry(), [], 100
        for rounds in (2, 5, 40):
            carry, reports = trainer.run_reporting_chunk(carry, rounds, 2**62, next_report)
            rows += [
                (str(frames), updates, [np.asarray(each).tolist() for each in sums])
                for frames, updates, sums in reports.rows()
            ]
            next_report = int(reports.next_env_frames)
        state = {**{f"carry/{i}": value for i, value in enumerate(tf.nest.flatten(carry))}, **trainer.learner.variables}
        found.append((rows, {name: value.numpy().tobytes() for name, value in state.items()}))
        assert int(trainer.agent.optimizer.iterations) > 0 and rows
    assert (trainer._fill is not None) and found[0] == found[1]


@pytest.mark.slow
def test_frames_are_the_same_in_the_form_for_a_gpu_compiled():
    """Where XLA makes and carries a history layer by layer: random play and practice, to the bit."""
    found = []
    for device in ("/CPU:0", ""):
        config = configuration.resolve(
            {
                **{"env": "cave", "num_envs": 24, "network": "mlp", "epsilon_start": 1.0, "epsilon_end": 1.0},
                **{"replay_capacity": 4_800, "replay_min_rows": 4_800, "restart_share": 0.5, "frame_stack": 3},
            }
        )
        trainer = Trainer(config, device)
        carry = trainer.run_chunk(trainer.initial_carry(), 150, 2**62)
        assert carry.history.shape.num_elements() > loops.STACK_LIMIT
        assert len(np.unique(carry.memory.spots.env_state.time)) > 1  # players have crashed
        played = carry._replace(metrics=())
        state = {**{f"carry/{i}": value for i, value in enumerate(tf.nest.flatten(played))}, **trainer.replay.state}
        found.append({name: value.numpy().tobytes() for name, value in state.items()})
    assert [name for name in found[0] if found[0][name] != found[1][name]] == []


def test_a_chunk_stops_in_the_round_that_reaches_the_frames():
    trainer = shared_trainer(**PLAY)
    carry = trainer.run_chunk(trainer.initial_carry(), 10**6, 500)
    assert 500 <= int(carry.env_frames) < 500 + 8
    again = trainer.run_chunk(carry, 10**6, 500)
    assert int(again.iteration) == int(carry.iteration)


@pytest.mark.parametrize("mode", [{}, pytest.param({"eager": True}, marks=pytest.mark.slow)], ids=["xla", "eager"])
def test_reports_do_not_depend_on_the_chunks_length(mode):
    """Each closes the sums at the round that reaches its frames, whether or not the program goes on from there."""
    found = []
    for chunks in ([60], [*[1] * 18, 7, 7, 7, 21]):
        trainer = shared_trainer(log_every_frames=100, **mode)
        carry, next_report, rows = trainer.initial_carry(), 100, []
        for rounds in chunks:
            carry, reports = trainer.run_reporting_chunk(carry, rounds, 2**62, next_report)
            rows += list(reports.rows())
            next_report = int(reports.next_env_frames)
            assert next_report == ((rows[-1][0] // 100 + 1) * 100 if rows else 100)
        found.append((rows, carry.metrics))
    (rows, rest), *others = found
    assert len(rows) >= 4 and all(0 <= frames % 100 < 8 for frames, _, _ in rows)
    assert all(float(a) == float(b) for other in others for a, b in zip(rest, other[1], strict=True))
    assert all(rows == other[0] for other in others)
    # Nothing is lost in between, nothing counted twice.
    assert sum(row[2].updates for row in rows) + int(rest.updates) == int(trainer.agent.optimizer.iterations) > 30
    assert [updates for _, updates, _ in rows] == list(np.cumsum([row[2].updates for row in rows]))


def test_a_chunk_ends_when_it_holds_no_more_reports():
    trainer = make_trainer(log_every_frames=1, replay_min_rows=1_000, jit=False)
    carry, reports = trainer.run_reporting_chunk(trainer.initial_carry(), 10**6, 2**62, 1)
    assert int(reports.count) == len(list(reports.rows())) == MAX_REPORTS == int(carry.iteration)


def test_equal_seeds_give_equal_bits_and_others_do_not(whole, in_chunks):
    assert differing(whole, in_chunks[0]) == []
    other = make_trainer(seed=4, jit=False)
    found = fingerprint(other, run(other, 150, 150))
    assert not np.allclose(found["agent/0"], whole["agent/0"], atol=0.01)  # by more than what XLA rounds otherwise


@pytest.mark.parametrize("mode", [{"jit": False}, {"eager": True}])
def test_games_and_replay_are_the_same_without_xla(mode):
    """Up to the first update all is integers, so the bits agree; after it floats are summed in another order."""
    rounds = 30
    results = []
    for given in ({}, mode):
        trainer = shared_trainer(**PLAY, frame_stack=2, **given)
        results.append(fingerprint(trainer, run(trainer, rounds, rounds)))
    assert differing(*results) == []


def test_learning_without_xla_agrees_to_rounding():
    results = []
    for given in ({}, {"jit": False}, {"eager": True}):
        trainer = make_trainer(replay_min_rows=40, epsilon_decay_env_frames=10**9, **given)
        run(trainer, 12, 12)
        results.append([variable.numpy() for variable in trainer.agent.online.variables])
        assert int(trainer.agent.optimizer.iterations) == 8
    for other in results[1:]:
        for ours, theirs in zip(results[0], other, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)


def test_learning_waits_for_the_replay_and_keeps_the_asked_pace():
    trainer = make_trainer(replay_min_rows=200, iterations_per_update=3, updates_per_iteration=2, jit=False)
    carry = run(trainer, 20, 20)
    assert int(carry.iteration) == 60
    # After round r the replay holds 24 r rows; 200 are reached in round 9, the first of 12 rounds with 2 updates.
    assert int(trainer.agent.optimizer.iterations) == int(carry.metrics.updates) == 24


def test_frames_and_episodes_are_counted_without_the_boundary_rows():
    trainer = shared_trainer(**PLAY)
    carry = run(trainer, 100, 100)
    rows = trainer.replay.gather_all()
    boundary = rows.is_boundary.numpy()
    assert boundary.sum() > 20
    assert int(carry.env_frames) == (~boundary).sum()
    ends = (rows.discount.numpy() == 0) & ~boundary
    assert int(carry.metrics.episodes) == ends.sum()
    rewards = np.where(boundary, 0, rows.reward.numpy())
    finished = [rewards[env, : np.flatnonzero(ends[env])[-1] + 1].sum() for env in range(8) if ends[env].any()]
    assert float(carry.metrics.score) == sum(finished)
    # Each boundary is followed by a first row, and each episode but the first follows a boundary.
    is_first = rows.is_first.numpy()
    assert is_first[:, 0].all()
    np.testing.assert_array_equal(is_first[:, 1:], boundary[:, :-1])


@pytest.mark.parametrize("mode", [{}, {"eager": True}], ids=["xla", "eager"])
def test_sums_over_environments_are_wider_than_the_numbers_summed(mode):
    """Eight episodes that end together, each of which fits int32."""
    trainer = shared_trainer(**PLAY, **mode)
    carry = trainer.initial_carry()
    ball = carry.env_state._replace(time=tf.fill([8], 6), columns=tf.zeros([8, 2], tf.int32), paddle=tf.fill([8], 4))
    carry = carry._replace(env_state=ball, episode_frames=tf.fill([8], 2**30), is_first=tf.zeros([8], tf.bool))
    carry = trainer.run_chunk(carry, 1, 2**62)
    assert int(carry.metrics.episodes) == 8
    assert int(carry.metrics.episode_frames) == 8 * (2**30 + 1)


@pytest.mark.parametrize("mode", [pytest.param({}, marks=pytest.mark.slow), {"eager": True}], ids=["xla", "eager"])
def test_only_episodes_from_the_games_own_start_are_scored(mode):
    """Of the cave's starts at a drawn difficulty and of practice nothing is told."""
    trainer = make_trainer(
        env="cave",
        network="mlp",
        num_envs=32,
        replay_min_rows=992,
        epsilon_decay_env_frames=10**9,
        frame_stack=1,
        restart_share=0.5,
        start_curriculum=0.6,
        **mode,
    )
    carry = trainer.initial_carry()
    begins, standard, lives = carry.env_state.time.numpy(), carry.is_standard.numpy(), []
    np.testing.assert_array_equal(standard, (begins == 0) & (np.arange(32) < 16))
    assert 2 < standard[:16].sum() < 14
    for _ in range(60):
        before, carry = carry, trainer.run_chunk(carry, 1, 2**62)
        is_over = carry.is_over.numpy()
        lives += list(carry.episode_frames.numpy()[is_over & standard])
        reset = before.is_over.numpy()
        standard = np.where(reset, (carry.env_state.time.numpy() == 0) & (np.arange(32) < 16), standard)
        np.testing.assert_array_equal(carry.is_standard, standard)
    assert int(carry.metrics.episodes) == len(lives) > 3
    assert int(carry.metrics.episode_frames) == sum(lives) == float(carry.metrics.score)


def test_counters_are_right_at_a_great_age():
    trainer = shared_trainer(replay_min_rows=8)
    start = 2**40 - 3
    carry = trainer.initial_carry()._replace(
        iteration=tf.constant(start, tf.int64), env_frames=tf.constant(2**31 - 5, tf.int64)
    )
    carry = trainer.run_chunk(carry, 6, 2**62)
    assert int(carry.iteration) == start + 6
    assert 2**31 < int(carry.env_frames) <= 2**31 - 5 + 48
    assert carry.env_frames.dtype == carry.iteration.dtype == tf.int64


@pytest.mark.parametrize("jit", [False, True])
def test_epsilon_is_linear_clipped_and_exact_at_any_age(jit):
    config = configuration.resolve({"env": "catch8", "epsilon_end": 0.1, "epsilon_decay_env_frames": 1000})
    epsilon = tf.function(lambda n: exploration.exploration(config).epsilon_at(n), jit_compile=jit)
    for frames in (0, 1, 500, 999, 1000, 1001, 2**31, 2**40, 2**62):
        expected = 1 - 0.9 * min(frames, 1000) / 1000
        assert abs(float(epsilon(tf.constant(frames, tf.int64))) - expected) < 1e-6


def test_history_repeats_the_first_frame_of_an_episode():
    history = tf.constant(np.arange(3)[:, None, None, None] * np.ones([3, 2, 1, 1]), tf.uint8)
    pushed = rollout.push_frame(history, tf.fill([2, 1, 1], tf.constant(9, tf.uint8)), tf.constant([False, True]))
    np.testing.assert_array_equal(pushed[:, 0, 0, 0], [1, 2, 9])
    np.testing.assert_array_equal(pushed[:, 1, 0, 0], [9, 9, 9])
    np.testing.assert_array_equal(rollout.stack_frames(pushed, 2)[:, 0, 0, :], [[1, 9], [9, 9]])


class _CountdownState(NamedTuple):
    left: tf.Tensor  # [N] int32, frames until the end


class _Countdown:
    """Ends after a given number of frames, by death if that number is even; each frame pays its number."""

    def sample_noise(self, seed, num_envs):
        return tf.fill([num_envs], seed[1])

    def step(self, state, action, noise):
        left = state.left - 1
        reward = tf.cast(noise, tf.float32) + 1
        over = left == 0
        death = over & (action == 0)
        return _CountdownState(left), TimeStep(left[:, None, None], reward, death, over & ~death)

    def score(self, state, timestep):
        return tf.cast(state.left, tf.float32)


def test_a_held_action_stops_with_the_episode():
    state = _CountdownState(tf.constant([1, 2, 3, 9]))
    action = tf.constant([0, 1, 0, 0])
    state, timestep, score, frames, _ = rollout.play(_Countdown(), state, action, 7, 0, 3)
    np.testing.assert_array_equal(frames, [1, 2, 3, 3])
    np.testing.assert_array_equal(state.left, [0, 0, 0, 6])
    np.testing.assert_array_equal(timestep.reward, [1, 1 + 2, 1 + 2 + 3, 6])
    np.testing.assert_array_equal(score, [0, 1 + 0, 2 + 1 + 0, 8 + 7 + 6])
    np.testing.assert_array_equal(timestep.termination, [True, False, True, False])
    np.testing.assert_array_equal(timestep.truncation, [False, True, False, False])
    np.testing.assert_array_equal(timestep.observation[:, 0, 0], [0, 0, 0, 6])


def test_cave_scores_are_frames_capped_at_the_limit_and_catch_scores_are_rewards():
    yes, no = tf.constant([True]), tf.constant([False])
    for name, expected in (("cave", [1, 1, 0]), ("catch8", [-1, -1, -1])):
        ends = [(no, no), (yes, no), (no, yes)]  # goes on, a crash, the frame that passes the limit
        steps = [TimeStep(None, tf.constant([-1.0]), *end) for end in ends]
        assert [float(make(name).score(None, step)[0]) for step in steps] == expected


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop", "rmsprop_graves"])
@pytest.mark.parametrize("jit", [False, True])
def test_learning_rate_falls_linearly_by_updates_and_stays(optimizer, jit):
    config = configuration.resolve(
        {"optimizer": optimizer, "learning_rate": 1e-2, "learning_rate_decay_updates": 100, "learning_rate_end": 1e-3}
    )
    built = optimizing.build_optimizer(config)
    weight = tf.Variable([1.0])
    built.build([weight])
    step = tf.function(lambda: built.apply_gradients([(tf.ones([1]), weight)]), autograph=False, jit_compile=jit)
    for updates, expected in ((0, 1e-2), (50, 5.5e-3), (100, 1e-3), (2**40, 1e-3)):
        built.iterations.assign(updates)
        step()
        np.testing.assert_allclose(built.learning_rate, expected, rtol=1e-5)


def test_metrics_start_from_nothing():
    zeros = DQNLearner.sums().zeros()
    assert int(zeros.updates) == 0
    assert float(zeros.max_q) == -np.inf


def test_each_bit_of_what_is_not_finite_has_a_name_of_its_own():
    for members in (1, 12):
        trainer = make_trainer(replay_min_rows=8, network="mlp", members=members)
        count = len(CAUSES) + len(trainer.agent.online.trainable_variables)
        names = trainer.guarded
        assert len(set(names)) == len(names) == min(count, 62)
        one_hot = np.eye(count, dtype=bool)
        found = [int(metrics.bits(tf.constant(flags))) for flags in one_hot]
        assert [names[number.bit_length() - 1] for number in found[:61]] == names[:61]
        assert {number.bit_length() for number in found[61:]} == ({62} if count > 62 else set())
    assert names[61] == f"one of {count - 61} more weights"


def test_diverging_updates_are_counted():
    trainer = shared_trainer(replay_min_rows=8)
    trainer.agent.online.trainable_variables[0].assign(np.full([64, 64], np.nan, np.float32))
    carry = run(trainer, 12, 12)
    assert int(carry.metrics.non_finite_updates) > 0


def test_a_gradient_that_overflows_is_named():
    """The TD target comes from the other network, and a Huber loss grows no faster than its values."""
    trainer = shared_trainer(replay_min_rows=8)
    kernel = trainer.agent.online.trainable_variables[-2]
    kernel.assign(tf.fill(kernel.shape, 1e25))
    carry = run(trainer, 4, 4)
    found = int(carry.metrics.non_finite_tensors)
    assert trainer.guarded[(found & -found).bit_length() - 1] == "the gradient"
