"""Practice: what players remember, where practisers start, and when they end."""

from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from tfdqn import compiled, restarts
from tfdqn import config as configuration
from tfdqn.envs import Environment, TimeStep
from tfdqn.restarts import Practice
from tfdqn.training import Trainer


class _State(NamedTuple):
    time: tf.Tensor  # [N] int32
    trace: tf.Tensor  # [N, 2] int32, the same in another shape


def state_of(time):
    time = np.asarray(time, np.int32)
    return _State(tf.constant(time), tf.constant(np.stack([time, -time], axis=1)))


@pytest.mark.parametrize("mode", ["eager", "xla"])
def test_memory_follows_a_plain_reference(mode):
    """400 decisions of 3 players and 2 practisers, whose episodes end at random, against lists of states."""
    practice, rng = Practice(5, 2), np.random.default_rng(1)
    remember = practice.remember if mode == "eager" else compiled.xla(practice.remember)
    time = np.arange(5) * 1000
    memory = practice.begin(state_of(time))
    snapshots, spots = [[time[i]] * restarts.NUM_SNAPSHOTS for i in range(3)], list(time[:3])
    was_over, far_back = np.zeros(5, bool), 0
    for decision in range(400):
        is_fresh = was_over
        time = np.where(is_fresh, decision * 10_000 + np.arange(5) * 1000, time + 1)
        crashed = ~is_fresh & (rng.random(5) < 0.02)
        memory = remember(memory, state_of(time), crashed, is_fresh, tf.constant(decision, tf.int64))
        for player in range(3):
            if crashed[player]:
                spots[player] = snapshots[player][-1]
                far_back += time[player] - spots[player] > 2 * restarts.SNAPSHOT_PERIOD
            if is_fresh[player]:
                snapshots[player] = [time[player]] * restarts.NUM_SNAPSHOTS
            elif decision % restarts.SNAPSHOT_PERIOD == 0:
                snapshots[player] = [time[player], *snapshots[player][:-1]]
        np.testing.assert_array_equal(memory.snapshots.time, np.transpose(snapshots))
        np.testing.assert_array_equal(memory.spots.time, spots)
        np.testing.assert_array_equal(memory.spots.trace, np.stack([spots, np.negative(spots)], axis=1))
        was_over = crashed
    assert far_back > 5  # episodes were long enough to tell snapshots apart


@pytest.mark.parametrize("mode", ["eager", "xla"])
def test_practisers_start_at_any_players_spot_and_players_where_they_would(mode):
    practice = Practice(3 + 3000, 3000)
    memory = practice.begin(state_of(np.arange(3003)))
    memory = memory._replace(spots=state_of([70, 80, 90]))
    start = practice.start if mode == "eager" else compiled.xla(practice.start)
    fresh = state_of(np.full(3003, 5))
    state = start(memory, fresh, tf.constant([1, 2], tf.int64))
    np.testing.assert_array_equal(state.time[:3], 5)
    values, counts = np.unique(state.time[3:], return_counts=True)
    assert list(values) == [70, 80, 90] and counts.min() > 900
    np.testing.assert_array_equal(state.trace[:, 1], -state.time)
    other = start(memory, fresh, tf.constant([1, 3], tf.int64))
    assert not np.array_equal(state.time, other.time)


def test_practice_is_cut_after_its_decisions_unless_it_ends_in_a_crash():
    end = np.array([False, False, True, False])
    timestep = TimeStep(tf.zeros([4, 1, 1]), tf.zeros([4]), tf.constant(end), tf.zeros([4], tf.bool))
    limit = restarts.PRACTICE_DECISIONS
    cut = Practice(4, 3).truncate(timestep, tf.constant([limit, limit, limit, limit - 1]))
    np.testing.assert_array_equal(cut.truncation, [False, True, False, False])
    np.testing.assert_array_equal(cut.termination, end)


def test_nobody_practises_by_default():
    practice, state = Practice(4, 0), state_of([1, 2, 3, 4])
    memory = practice.begin(state)
    assert tf.nest.flatten(memory) == []
    assert practice.start(memory, state, [0, 0]) is state
    assert practice.is_player.numpy().all()


CRASH = 100  # frames


class _Fuse(Environment):
    """Burns down in 100 frames, whatever one does; the screen shows the time."""

    name, version, action_names = "fuse", 1, ("wait", "wait too")
    frames_per_second, time_limit, best_score, score_is_frames = 30.0, 10_000, 100.0, True
    observation_shape = (1, 1)

    def sample_noise(self, seed, num_envs):
        return tf.zeros([num_envs], tf.int32)

    def reset(self, noise):
        return _State(noise, tf.stack([noise, noise], axis=1))

    def training_reset(self, noise, curriculum):
        return self.reset(noise)

    def step(self, state, action, noise):
        state = _State(state.time + 1, state.trace)
        crash = state.time >= CRASH
        return state, TimeStep(self.observe(state), -tf.cast(crash, tf.float32), crash, tf.zeros_like(crash))

    def observe(self, state):
        return tf.cast(state.time, tf.uint8)[:, tf.newaxis, tf.newaxis]


@pytest.mark.parametrize("mode", [{}, {"eager": True}])
def test_training_practises_where_players_crash(mode):
    """What the replay of a run holds, from a player's first crash on."""
    config = configuration.resolve(
        {
            "env": "cave",
            "num_envs": 3,
            "restart_share": 0.4,
            "start_curriculum": 0.0,
            "network": "mlp",
            "prioritized": False,
            "replay_capacity": 900,
            "replay_min_rows": 900,
            "batch_size": 8,
            "device": "cpu",
            **mode,
        }
    )
    assert config.num_practisers == 1
    trainer = Trainer(config, env=_Fuse())
    carry = trainer.run_chunk(trainer.initial_carry(), 280, 2**62)
    rows = trainer.replay.gather_all()
    time, discount, is_boundary, is_first = (
        tensor.numpy() for tensor in (rows.frame[:, :, 0, 0], rows.discount, rows.is_boundary, rows.is_first)
    )
    for player in (0, 1):
        np.testing.assert_array_equal(time[player, : 2 * CRASH + 1], [*range(CRASH + 1), *range(CRASH)])
    # Before the first crash practice is at the first start; it ends by truncation.
    length = restarts.PRACTICE_DECISIONS
    np.testing.assert_array_equal(time[2, : 2 * (length + 1)], [*range(length + 1)] * 2)
    np.testing.assert_array_equal(np.flatnonzero(is_boundary[2])[:2], [length, 2 * length + 1])
    assert (discount[2, : 2 * length] == 1).all()
    # Players crash in decision 99. The oldest of three snapshots is then of the state after decision 64.
    spot = 65
    practice = time[2, 2 * (length + 1) :]
    episode = [*range(spot, CRASH + 1)]
    np.testing.assert_array_equal(practice[: 2 * len(episode)], episode * 2)
    crash = 2 * (length + 1) + len(episode) - 2
    assert (discount[2, crash], is_boundary[2, crash + 1], is_first[2, crash + 2]) == (0, True, True)
    # What practisers reach is no score.
    assert int(carry.metrics.episodes) == 4
    assert float(carry.metrics.score) == 4 * CRASH
