"""The replay of windows against plain Python: rows, stacks, states, priorities; eager, graph and XLA."""

from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from tfdqn import seeds
from tfdqn.replay.prioritized import PRIORITY_FLOOR
from tfdqn.replay.sequences import SequenceReplay
from tfdqn.replay.transitions import Row
from tfdqn.runtime import compiled

WRAP = {"eager": lambda function: function, "graph": tf.function, "xla": compiled.xla}
ENVS, WINDOW, PERIOD = 3, 7, 4


class State(NamedTuple):
    hidden: tf.Tensor
    count: tf.Tensor


def rows(steps, seed=0, longest=6):
    """Played rows as arrays [steps, ENVS, ...]: episodes of random lengths, each ended by its boundary row."""
    dice = np.random.default_rng(seed)
    is_first, is_boundary = np.zeros((2, steps, ENVS), bool)
    for env in range(ENVS):
        left = 0
        for t in range(steps):
            is_first[t, env] = left == 0
            left = dice.integers(2, longest) if left == 0 else left - 1
            is_boundary[t, env] = left == 0
    played = Row(
        frame=dice.integers(0, 256, (steps, ENVS, 2, 3)).astype(np.uint8),
        action=dice.integers(0, 4, (steps, ENVS)).astype(np.int32),
        reward=dice.normal(size=(steps, ENVS)).astype(np.float32),
        discount=(dice.random((steps, ENVS)) < 0.8).astype(np.float32),
        is_first=is_first,
        is_boundary=is_boundary,
        legal=dice.random((steps, ENVS, 4)) < 0.7,
    )
    state = State(dice.normal(size=(steps, ENVS, 5)).astype(np.float32), np.arange(steps * ENVS).reshape(steps, ENVS))
    return played, state._replace(count=state.count[..., None].astype(np.float32))


def make(length, stack=1, stride=1, **kwargs):
    return SequenceReplay(
        (2, 3),
        num_envs=ENVS,
        capacity=length * ENVS + 1,
        stack=stack,
        stride=stride,
        legal_actions=4,
        window=WINDOW,
        period=PERIOD,
        state=State(tf.zeros([1, 5]), tf.zeros([1, 1])),
        device="cpu:0",
        **kwargs,
    )


def fill(replay, played, state, mode="eager"):
    add = WRAP[mode](replay.add_with_state)
    for t in range(len(played.action)):
        add(*tf.nest.map_structure(lambda each, t=t: tf.constant(each[t]), (played, state)))


def stacked(played, t, env, stack, stride):
    """What the agent saw: frames before an episode's first are that one."""
    first = max(s for s in range(t + 1) if played.is_first[s, env])
    return np.stack([played.frame[max(t - lag * stride, first), env] for lag in reversed(range(stack))], axis=-1)


@pytest.mark.parametrize("mode", WRAP)
@pytest.mark.parametrize(("stack", "stride", "steps"), [(1, 1, 9), (1, 1, 50), (3, 1, 14), (2, 3, 61)])
def test_windows_hold_what_was_played(mode, stack, stride, steps):
    played, state = rows(steps)
    replay = make(20, stack, stride)
    assert replay.length == 20 and replay.num_rows == 0 and not replay.can_sample()
    fill(replay, played, state, mode)
    sample = WRAP[mode](lambda seed: replay.sample_windows(seed, 64))
    windows, weights, index = sample(seeds.at(1, 2))
    lookback, oldest = (stack - 1) * stride, max(steps - 20, 0)
    whole = [k for k in range(steps) if k * PERIOD - lookback >= oldest and k * PERIOD + WINDOW <= steps]
    assert whole and set(index.numpy().tolist()) == {k * ENVS + env for k in whole for env in range(ENVS)}
    np.testing.assert_array_equal(weights, 1)  # all new, so equally likely
    for b, (number, env) in enumerate(zip(index.numpy() // ENVS, index.numpy() % ENVS, strict=True)):
        start = number * PERIOD
        for name in ("action", "reward", "discount", "is_first", "is_boundary", "legal"):
            expected = getattr(played, name)[start : start + WINDOW, env]
            np.testing.assert_array_equal(getattr(windows, name)[:, b], expected, err_msg=name)
        for held, given in zip(windows.state, state, strict=True):
            np.testing.assert_array_equal(held[b], given[start, env])
        for i in range(WINDOW):
            expected = stacked(played, start + i, env, stack, stride)
            np.testing.assert_array_equal(windows.observation[i, b], expected)


def test_there_is_always_a_window_once_the_least_buffer_is_full():
    least = WINDOW + PERIOD - 1
    replay = make(-(-least // PERIOD) * PERIOD)
    played, state = rows(40)
    for t in range(40):
        replay.add_with_state(*tf.nest.map_structure(lambda each, t=t: tf.constant(each[t]), (played, state)))
        assert bool(replay.can_sample()) == (t + 1 >= WINDOW)
    with pytest.raises(ValueError, match="too small: 3 environments x 10 rows are needed"):
        make(least - 2)


@pytest.mark.parametrize("mode", WRAP)
def test_windows_are_drawn_in_proportion_to_their_priorities(mode):
    replay = make(40, alpha=0.5, beta=0.5, beta_updates=10)
    fill(replay, *rows(40))
    num = (40 - WINDOW) // PERIOD + 1
    everything = np.arange(num * ENVS)
    priority = np.where(everything % 2, 4.0, 0.25).astype(np.float32)
    draw = WRAP[mode](lambda seed: replay.sample_windows(seed, 4096)[1:])
    WRAP[mode](replay.update)(tf.constant(everything), tf.constant(priority))
    weights, index = (each.numpy() for each in draw(seeds.at(3, 4)))
    mass = np.sqrt(priority + PRIORITY_FLOOR)
    shares = np.bincount(index, minlength=len(mass)) / 4096
    np.testing.assert_allclose(shares, mass / mass.sum(), atol=1e-3)  # one from each of equal parts
    beta = 0.5 + 0.5 * 1 / 10  # after one update
    np.testing.assert_allclose(weights, (mass[index] / mass.min()) ** -beta, rtol=1e-4)
    # What is new is as likely as the likeliest: a window that begins now counts once it is whole.
    assert float(replay.state["max_priority"]) == pytest.approx(max(1.0, mass.max()))
    fill(replay, *rows(PERIOD + WINDOW))
    newest = (40 + PERIOD + WINDOW - WINDOW) // PERIOD
    assert np.isin(newest * ENVS + np.arange(ENVS), draw(seeds.at(3, 5))[1]).all()
    np.testing.assert_allclose(replay.state["priority"][newest % 10], mass.max(), rtol=1e-6)


def test_priorities_of_windows_that_are_gone_or_not_whole_stay_as_they_are():
    replay = make(20)
    fill(replay, *rows(22))
    before = replay.state["priority"].numpy()
    replay.update(tf.constant([0, 5 * ENVS], tf.int64), tf.constant([9.0, 9.0]))
    np.testing.assert_array_equal(replay.state["priority"], before)


def test_before_a_window_is_whole_compiled_draws_have_no_weight():
    replay = make(20)
    fill(replay, *rows(WINDOW - 1))
    _, weights, _ = compiled.xla(lambda seed: replay.sample_windows(seed, 8))(seeds.at(1, 1))
    np.testing.assert_array_equal(weights, 0)
