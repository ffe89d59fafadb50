"""The prioritized replay: what it draws, how it weighs, and that it stays a frame replay underneath."""

import numpy as np
import pytest
import tensorflow as tf

from tests.test_replay import DISCOUNT, MODES, PlainBuffer, check, fill, random_rows, step_of
from tfdqn.replay.prioritized import PRIORITY_FLOOR, PrioritizedReplay

NUM_ENVS, LENGTH, STACK, N_STEP = 3, 20, 2, 3


def filled(steps, *, mode="function", first_id=0, **kwargs):
    rows = random_rows(4, steps, NUM_ENVS, (3, 5), 6)
    replay = PrioritizedReplay((3, 5), NUM_ENVS, LENGTH * NUM_ENVS, STACK, 1, N_STEP, DISCOUNT, "cpu:0", **kwargs)
    replay.state["last_id"].assign(first_id - 1)
    fill(replay, rows, mode)
    return replay, PlainBuffer(rows, LENGTH, STACK, 1, N_STEP, first_id)


def set_priorities(replay, buffer):
    """Whole numbers, different for each anchor; returns them by (t, env)."""
    table = np.zeros([LENGTH, NUM_ENVS], np.float32)
    chosen = {}
    for k, (t, env) in enumerate(sorted(buffer.anchors())):
        chosen[t, env] = table[(t + buffer.first_id) % LENGTH, env] = 1 + k % 7
    replay.state["priority"].assign(table)
    return chosen


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("steps", [9, 20, 47])
def test_batches_are_transitions_of_the_plain_buffer(mode, steps):
    replay, buffer = filled(steps, mode=mode, beta=0.0)  # every transition weighs 1
    sample = MODES[mode](lambda seed: replay.sample(seed, 128))
    assert check(buffer, *sample(tf.constant([3, 4], tf.int64))) == 128


@pytest.mark.parametrize("steps", [12, 47])
def test_draws_are_in_proportion_to_priorities_and_nothing_else_is_drawn(steps):
    replay, buffer = filled(steps)
    priorities = set_priorities(replay, buffer)
    sample = MODES["xla"](lambda seed: replay.sample(seed, 512)[2])
    index = np.concatenate([sample(tf.constant([5, k], tf.int64)).numpy() for k in range(40)])
    places, counts = np.unique([NUM_ENVS * t + env for t, env in map(buffer.locate, index)], return_counts=True)
    found = {divmod(int(place), NUM_ENVS): count for place, count in zip(places, counts, strict=True)}
    assert found.keys() == buffer.anchors()
    total = sum(priorities.values())
    for place, count in found.items():
        expected = len(index) * priorities[place] / total
        # Stratified draws vary less than independent ones, whose deviation this is.
        assert abs(count - expected) < 5 * np.sqrt(expected)


def test_weights_undo_the_draws_and_beta_rises_to_one_by_updates():
    replay, buffer = filled(47, beta=0.4, beta_updates=1_000)
    priorities = set_priorities(replay, buffer)
    total = sum(priorities.values())
    for updates, beta in [(0, 0.4), (500, 0.7), (1_000, 1.0), (2**40, 1.0)]:
        replay.state["num_updates"].assign(updates)
        _, weights, index = replay.sample(tf.constant([1, 2], tf.int64), 64)
        shares = np.array([priorities[buffer.locate(i)] for i in index.numpy()]) / total
        expected = (shares * len(priorities)) ** -beta
        np.testing.assert_allclose(weights, expected / expected.max(), rtol=1e-4)


def test_modes_draw_the_same_batch():
    replay, buffer = filled(47)
    set_priorities(replay, buffer)
    eager, function, xla = (
        wrap(lambda seed: replay.sample(seed, 64))(tf.constant([3, 5], tf.int64)) for wrap in MODES.values()
    )
    for other in (function, xla):
        np.testing.assert_array_equal(eager[2], other[2])
        np.testing.assert_allclose(eager[1], other[1], rtol=1e-4)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("first_id", [0, 2**31 - 30, 2**40 - 3])
def test_what_was_learnt_from_gets_its_error_as_priority(mode, first_id):
    replay, buffer = filled(31, mode=mode, first_id=first_id, alpha=0.5)
    _, _, index = replay.sample(tf.constant([0, 1], tf.int64), 16)
    index = tf.unique(index)[0]
    error = tf.range(1.0, index.shape[0] + 1.0)
    before = replay.state["priority"].numpy().copy()
    MODES[mode](replay.update)(index, error)
    expected = before
    for i, value in zip(index.numpy(), (error.numpy() + PRIORITY_FLOOR) ** 0.5, strict=True):
        expected[i // NUM_ENVS % LENGTH, i % NUM_ENVS] = value
    np.testing.assert_allclose(replay.state["priority"], expected, rtol=1e-6)
    assert replay.state["max_priority"].numpy() == pytest.approx(expected.max())
    assert replay.state["num_updates"].numpy() == 1
    # What comes next is as urgent as anything yet.
    replay.add(step_of(buffer.rows, 0))
    slot = (31 + first_id) % LENGTH
    np.testing.assert_allclose(replay.state["priority"][slot], expected.max())


def test_a_boundary_is_never_drawn_whatever_priority_it_is_given():
    replay, buffer = filled(31)
    boundary = next((t, env) for t in range(15, 28) for env in range(NUM_ENVS) if buffer.rows.is_boundary[t, env])
    index = tf.constant([boundary[0] * NUM_ENVS + boundary[1]], tf.int64)
    before = {name: variable.numpy() for name, variable in replay.state.items()}
    # Nor does its error count, nor that of rows whose window is not held: the newest, and those that were overwritten.
    index = tf.concat([index, tf.constant([30 * NUM_ENVS, 10 * NUM_ENVS], tf.int64)], axis=0)
    replay.update(index, tf.constant([1e6, 1e6, 1e6]))
    for name in ("priority", "max_priority"):
        np.testing.assert_array_equal(replay.state[name], before[name])
    drawn = replay.sample(tf.constant([0, 1], tf.int64), 512)[2]
    assert int(index[0]) not in drawn.numpy()


def test_beta_goes_on_where_an_emptied_buffer_begins_anew():
    replay, _ = filled(9)
    replay.continue_from(700)
    assert int(replay.state["num_updates"]) == 700


def test_draws_keep_their_proportion_in_a_large_buffer():
    """Sums of 200,000 priorities of very different sizes, in float32."""
    num_envs, length = 50, 4_000
    replay = PrioritizedReplay((1, 1), num_envs, num_envs * length, 1, 1, 1, DISCOUNT, "cpu:0")
    replay.state["last_id"].assign(length - 1)
    priorities = (10.0 ** -(3 * np.random.default_rng(0).random((length, num_envs)))).astype(np.float32)
    replay.state["priority"].assign(priorities)
    draw = MODES["xla"](lambda seed: replay._draw(seed, 4096, *replay._anchor_range()))
    anchors, weights = (
        np.concatenate(parts) for parts in zip(*(draw(tf.constant([1, k], tf.int64)) for k in range(20)), strict=True)
    )
    assert (weights == 0).mean() < 1e-3
    held = priorities[: length - 1].ravel().astype(np.float64)
    groups = np.digitize(held, 10.0 ** np.arange(-2.5, 0, 0.5))
    expected = np.bincount(groups, held) / held.sum()
    found = np.bincount(groups[anchors], minlength=len(expected)) / len(anchors)
    assert (np.abs(found - expected) < 4 * np.sqrt(expected / len(anchors))).all()


def test_without_an_anchor_a_compiled_batch_weighs_nothing():
    replay, _ = filled(N_STEP)
    transitions, weights, _ = MODES["xla"](lambda seed: replay.sample(seed, 8))(tf.constant([0, 0], tf.int64))
    assert not weights.numpy().any() and np.isfinite(transitions.reward).all()


def test_state_holds_all_that_the_draws_depend_on():
    replay, buffer = filled(47)
    set_priorities(replay, buffer)
    replay.update(replay.sample(tf.constant([0, 1], tf.int64), 8)[2], tf.range(8.0))
    other, _ = filled(9)
    for name, variable in other.state.items():
        variable.assign(replay.state[name])
    seed = tf.constant([8, 9], tf.int64)
    for ours, theirs in zip(*(tf.nest.flatten(r.sample(seed, 64)) for r in (replay, other)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_priorities_of_the_wrong_kind_are_refused():
    replay, _ = filled(20)
    _, _, index = replay.sample([1, 2], 4)
    before = replay.state["priority"].numpy()
    for given, kind, words in [
        ((index, [1.0]), ValueError, r"priority: float64 \[1\]; expected float32 \[4\]"),
        ((tf.cast(index, tf.float32), np.ones(4)), TypeError, "index: float32"),
    ]:
        with pytest.raises(kind, match=words):
            replay.update(*given)
    np.testing.assert_array_equal(replay.state["priority"], before)
    replay.update(index.numpy().tolist(), np.ones(4))
    assert not np.array_equal(replay.state["priority"], before)
    for name, value in {"alpha": -1, "beta": 2, "beta_updates": 0}.items():
        with pytest.raises(ValueError, match=f"{name} is {value}"):
            filled(1, **{name: value})
