"""Practice: what players remember, where practisers start, and when they end."""

import functools
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from tests.whole_runs import make_run, resume
from tfdqn import config as configuration
from tfdqn.envs import Environment, TimeStep
from tfdqn.envs.rollout import push_frame
from tfdqn.programs import restarts
from tfdqn.programs.restarts import Past, Practice
from tfdqn.programs.training import Trainer
from tfdqn.runs.saving import Saver, named_tensors
from tfdqn.runtime import compiled


class _State(NamedTuple):
    time: tf.Tensor  # [N] int32
    trace: tf.Tensor  # [N, 2] int32, the same in another shape


def state_of(time):
    time = np.asarray(time, np.int32)
    return _State(tf.constant(time), tf.constant(np.stack([time, -time], axis=1)))


def past_of(time):
    """With a history of three frames, which tell the time modulo 256 as it was two ago, one ago, and is.

    What the agent carries is the time, too.
    """
    frames = np.asarray(time)[:, None] + [-2, -1, 0]
    history = tf.constant((frames % 256).astype(np.uint8)[:, :, None, None])
    return Past(state_of(time), history, state_of(np.asarray(time) + 7))


@pytest.mark.parametrize(
    ("mode", "device"), [("eager", "/CPU:0"), ("xla", "/CPU:0"), ("xla", "")], ids=["eager", "xla", "for a GPU"]
)
def test_memory_follows_a_plain_reference(mode, device):
    """400 decisions of 3 players and 2 practisers, whose episodes end at random, against lists of states."""
    practice, rng = Practice(5, 2, device=device), np.random.default_rng(1)
    remember = practice.remember if mode == "eager" else compiled.xla(practice.remember)
    time = np.arange(5) * 1000
    memory = practice.begin(past_of(time))
    snapshots, spots = [[time[i]] * restarts.NUM_SNAPSHOTS for i in range(3)], list(time[:3])
    was_over, far_back, lead_in = np.zeros(5, bool), 0, np.zeros(2, int)
    for decision in range(400):
        is_fresh = was_over
        time = np.where(is_fresh, decision * 10_000 + np.arange(5) * 1000, time + 1)
        crashed = ~is_fresh & (rng.random(5) < 0.02)
        memory = remember(memory, past_of(time), crashed, is_fresh, tf.constant(decision, tf.int64))
        for player in range(3):
            if crashed[player]:
                spots[player] = snapshots[player][-1]
                far_back += time[player] - spots[player] > 2 * restarts.SNAPSHOT_PERIOD
            if is_fresh[player]:
                snapshots[player] = [time[player]] * restarts.NUM_SNAPSHOTS
            elif decision % restarts.SNAPSHOT_PERIOD == 0:
                snapshots[player] = [time[player], *snapshots[player][:-1]]
        ring, taken = memory.snapshots.env_state.time.numpy(), memory.taken.numpy()
        for player, times in enumerate(snapshots):  # newest first; before the episode's first there is none
            places = [
                (int(memory.newest) - min(age, taken[player])) % restarts.NUM_SNAPSHOTS for age in range(len(times))
            ]
            assert ring[places, player].tolist() == times
        expected = past_of(spots)
        tf.nest.map_structure(np.testing.assert_array_equal, memory.spots, expected)
        lead_in = np.where(is_fresh[3:], 2, np.maximum(lead_in - 1, 0))
        np.testing.assert_array_equal(memory.lead_in, lead_in)
        was_over = crashed
    assert far_back > 5  # episodes were long enough to tell snapshots apart


@pytest.mark.parametrize("mode", ["eager", "xla"])
def test_practisers_go_back_to_any_players_past_whole_and_players_begin_where_they_would(mode):
    practice = Practice(3 + 3000, 3000)
    memory = practice.begin(past_of(np.arange(3003)))._replace(spots=past_of([70, 80, 90]))
    go_back = practice.go_back if mode == "eager" else compiled.xla(practice.go_back)
    fresh, before = state_of(np.full(3003, 5)), past_of(np.full(3003, 33))
    is_over = np.arange(3003) < 2000
    state, past = go_back(memory, before.env_state, fresh, is_over, tf.constant([1, 2], tf.int64))
    np.testing.assert_array_equal(state.time[:3], 5)
    values, counts = np.unique(state.time[3:2000], return_counts=True)
    assert list(values) == [70, 80, 90] and counts.min() > 550
    np.testing.assert_array_equal(state.time[2000:], 33)  # they are leading in and wait
    np.testing.assert_array_equal(state.trace[:, 1], -state.time)
    np.testing.assert_array_equal(past.history[:1997], past_of(state.time[3:2000]).history)
    carried = practice.state_of(past, state_of(np.full(3003, 1)))
    np.testing.assert_array_equal(carried.time[:3], 1)
    np.testing.assert_array_equal(carried.time[3:2000], state.time[3:2000] + 7)
    other, _ = go_back(memory, before.env_state, fresh, is_over, tf.constant([1, 3], tf.int64))
    assert not np.array_equal(state.time, other.time)


def test_practice_is_cut_after_its_decisions_unless_it_ends_in_a_crash():
    end = np.array([False, False, True, False])
    timestep = TimeStep(tf.zeros([4, 1, 1]), tf.zeros([4]), tf.constant(end), tf.zeros([4], tf.bool))
    limit = restarts.PRACTICE_DECISIONS
    cut = Practice(4, 3).truncate(timestep, tf.constant([limit, limit, limit, limit - 1]))
    np.testing.assert_array_equal(cut.truncation, [False, True, False, False])
    np.testing.assert_array_equal(cut.termination, end)


def test_nobody_practises_by_default():
    practice, past = Practice(4, 0), past_of([1, 2, 3, 4])
    memory, history = practice.begin(past), restarts.by_environment(past.history)
    assert tf.nest.flatten(memory) == []
    fresh = state_of([5, 6, 7, 8])
    state, gone_back = practice.go_back(memory, past.env_state, fresh, np.ones(4, bool), [0, 0])
    assert state is fresh and practice.lead_in(memory, history, history, gone_back, np.ones(4, bool)) is history
    assert not practice.is_leading_in(memory).numpy().any()
    assert practice.is_player.numpy().all()


CRASH = 100  # frames


class _Fuse(Environment):
    """Burns down in 100 frames, whatever one does; the screen shows the time."""

    name, version, action_names = "fuse", 1, ("wait", "wait too")
    frames_per_second, time_limit, best_score = 30.0, 10_000, 100.0
    observation_shape = (1, 1)

    def sample_noise(self, seed, num_envs):
        return tf.zeros([num_envs], tf.int32)

    def reset(self, noise):
        return _State(noise, tf.stack([noise, noise], axis=1))

    def score(self, state, timestep):
        return tf.ones_like(timestep.reward)

    def step(self, state, action, noise):
        state = _State(state.time + 1, state.trace)
        crash = state.time >= CRASH
        return state, TimeStep(self.observe(state), -tf.cast(crash, tf.float32), crash, tf.zeros_like(crash))

    def observe(self, state):
        return tf.cast(state.time, tf.uint8)[:, tf.newaxis, tf.newaxis]


def fuse_trainer(**given):
    """Two players and a practiser, who never learn."""
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
            "epsilon_end": 1.0,
            "device": "cpu",
            **given,
        }
    )
    assert config.num_practisers == 1
    return Trainer(config, env=_Fuse())


@pytest.mark.parametrize("mode", [{}, pytest.param({"eager": True}, marks=pytest.mark.slow)])
def test_training_practises_where_players_crash(mode):
    """What the replay of a run holds, from a player's first crash on."""
    trainer = fuse_trainer(frame_stack=1, **mode)
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


@functools.cache
def played_with_a_past(eager):
    """A trainer of three frames two decisions apart, its carry after 290 decisions, and what was acted on if eager."""
    trainer = fuse_trainer(frame_stack=3, frame_stride=2, n_step=1, eager=eager)
    act, seen = trainer.agent.act, []

    def spy(observation, *rest):
        seen.append(observation.numpy())
        return act(observation, *rest)

    if eager:
        trainer.agent.act = spy
    return trainer, trainer.run_chunk(trainer.initial_carry(), 290, 2**62), seen


def test_what_is_acted_on_after_a_practice_start_is_what_the_replay_gives():
    """Bit for bit the stack that was remembered, not one frame three times."""
    trainer, carry, seen = played_with_a_past(True)
    assert carry.history.shape[0] == 5
    np.testing.assert_array_equal(carry.history[-1], trainer.env.observe(carry.env_state))
    transitions, weights, index = trainer.replay.sample(tf.constant([3, 4], tf.int64), 20_000)
    steps, envs = index.numpy() // 3, index.numpy() % 3
    is_transition = weights.numpy() > 0
    assert len(set(index.numpy()[is_transition])) > 700
    seen = np.stack(seen)  # [decision, N, H, W, stack]
    for row in np.flatnonzero(is_transition):
        np.testing.assert_array_equal(transitions.observation[row], seen[steps[row], envs[row]])
    rows = trainer.replay.gather_all()
    frame, is_boundary, is_first = (
        tensor.numpy() for tensor in (rows.frame[2, :, 0, 0], rows.is_boundary[2], rows.is_first[2])
    )
    # Once players have crashed practice begins at frame 65, whose past goes before it: rows that are no transitions.
    begins = [t for t in np.flatnonzero(is_first)[:-1] if frame[t] == 61]
    assert len(begins) >= 2
    for t in begins:
        np.testing.assert_array_equal(frame[t : t + 6], [61, 62, 63, 64, 65, 66])
        np.testing.assert_array_equal(is_boundary[t - 1 : t + 6], [True, True, True, True, True, False, False])
        np.testing.assert_array_equal(seen[t + 4, 2, 0, 0], [61, 63, 65])
        assert t + 4 in steps[is_transition & (envs == 2)]
    # Waiting is no playing: frames are those of rows that are decisions.
    assert int(carry.env_frames) == (~rows.is_boundary.numpy()).sum()


def test_practice_with_a_past_is_the_same_compiled():
    results = []
    for eager in (False, True):
        trainer, carry, _ = played_with_a_past(eager)
        results.append([*tf.nest.flatten(carry), *trainer.replay.state.values()])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("depth", [1, 2, 3, 6])
@pytest.mark.parametrize("mode", ["eager", "xla"])
def test_a_past_goes_frame_by_frame_to_where_it_was(mode, depth):
    """Two players and three practisers, who begin one after the other; frames are numbers."""
    practice = Practice(5, 3)
    past = tf.constant(np.arange(3)[:, None] * 10 + 100 + np.arange(depth), tf.uint8)[:, :, None, None]
    lead_in = compiled.xla(practice.lead_in) if mode == "xla" else practice.lead_in
    history = tf.zeros([depth, 5, 1, 1], tf.uint8)
    waiting, newest = np.zeros(3, int), [[] for _ in range(5)]
    for decision in range(3 * depth + 2):
        begins = np.array([decision == 1, False, decision == 0, decision == 2, False])
        # What the game shows: its state is the spot's from the beginning on.
        frame = [decision, decision, 100 + depth - 1, 110 + depth - 1, decision]
        memory = restarts.Memory((), (), (), (), tf.constant(waiting, tf.int32))
        pushed = push_frame(history, tf.constant(frame, tf.uint8)[:, None, None], tf.constant(begins))
        history = lead_in(memory, history, pushed, Past((), past, ()), tf.constant(begins))
        waiting = np.where(begins[2:], depth - 1, np.maximum(waiting - 1, 0))
        for env in range(5):
            newest[env].append(int(history[-1, env, 0, 0]))
        if decision in (depth - 1, depth + 1):
            which = 0 if decision == depth - 1 else 1
            np.testing.assert_array_equal(history[:, 2 + which, 0, 0], past[which, :, 0, 0])
    assert newest[2][:depth] == list(range(100, 100 + depth))
    assert newest[3][2 : 2 + depth] == list(range(110, 110 + depth))
    assert newest[0] == newest[1] == newest[4] == list(range(3 * depth + 2))


@pytest.mark.parametrize("super_resolution", [pytest.param(False, marks=pytest.mark.slow), True])
def test_the_caves_practisers_see_what_its_players_saw(super_resolution):
    config = configuration.resolve(
        {
            "env": "cave",
            "num_envs": 16,
            "super_resolution": super_resolution,
            "network": "mlp",
            "frame_stack": 3,
            "replay_capacity": 16 * 400,
            "replay_min_rows": 16 * 400,
            "epsilon_end": 1.0,
            "device": "cpu",
        }
    )
    trainer = Trainer(config)
    carry = trainer.run_chunk(trainer.initial_carry(), 380, 2**62)
    rows = trainer.replay.gather_all()
    frames, is_boundary = rows.frame.numpy(), rows.is_boundary.numpy()
    histories = {}  # of the players, at each frame of theirs
    for env in range(8):
        for t in range(2, 380):
            if not is_boundary[env, t - 2 : t].any() and not rows.is_first.numpy()[env, t - 1 : t + 1].any():
                histories[frames[env, t].tobytes()] = frames[env, t - 2 : t + 1]
    moving = found = 0
    for env in range(8, 16):
        for t in np.flatnonzero(rows.is_first.numpy()[env, :-3]):
            if t and frames[env, t + 2].tobytes() in histories:
                found += 1
                past = frames[env, t : t + 3]
                np.testing.assert_array_equal(past, histories[frames[env, t + 2].tobytes()])
                moving += len(np.unique(past, axis=0)) == 3
    assert found > 10 and moving > found / 2  # the first screens of a game can be alike
    np.testing.assert_array_equal(carry.history[-1], trainer.env.observe(carry.env_state))


@pytest.mark.slow
def test_a_checkpoint_from_before_pasts_were_whole_is_resumed_with_an_empty_memory(tmp_path, monkeypatch, capfd):
    game = {"env": "cave", "network": "mlp", "restart_share": 0.5, "start_curriculum": 0.0}
    run, tensors = make_run(tmp_path / "run", **game), Saver._tensors

    def as_before(saver):
        """The names that such a checkpoint has, in which players remembered states alone."""
        kept = {
            name: tensor
            for name, tensor in tensors(saver).items()
            if name != "carry/is_standard" and not name.startswith("carry/memory/")
        }
        memory = named_tensors(saver.run.carry.memory, "carry/memory")
        return kept | {
            name.replace("/env_state", ""): tensor + 1 for name, tensor in memory.items() if "/env_state/" in name
        }

    monkeypatch.setattr(Saver, "_tensors", as_before)
    run.saver.save_last()
    monkeypatch.undo()
    run.monitor.close()
    run._lock.close()
    again = resume(tmp_path / "run")
    assert "remembers practice starts in an earlier form: they are found anew" in capfd.readouterr().err
    tf.nest.map_structure(np.testing.assert_array_equal, again.carry, run.carry)
    again.train_chunk()
    again.saver.save_last()
    again.monitor.close()
    again._lock.close()
    capfd.readouterr()
    last = resume(tmp_path / "run")
    assert "practice starts" not in capfd.readouterr().err
    tf.nest.map_structure(np.testing.assert_array_equal, last.carry.memory, again.carry.memory)
    last.monitor.close()
