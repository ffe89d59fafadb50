"""Cart-pole against recordings of Gymnasium's CartPole-v1, and the recordings against Gymnasium itself."""

from pathlib import Path

import gymnasium
import numpy as np
import pytest
import tensorflow as tf

from tests.envs.helpers import noise_of
from tfdqn import envs
from tfdqn.envs import check
from tfdqn.envs.cartpole import rules

TRACE = Path(__file__).parents[1] / "data" / "traces" / "cartpole.npz"
BALANCED, RANDOM = 2, 30  # recorded episodes: of the policy below, to the time limit, and of random actions
LEFT_THE_TRACK = 3  # of holding "right" with a pole that is set upright again and again


def balance(observation):
    """Push towards the side to which the pole falls."""
    position, speed, angle, turn = observation
    return int(0.02 * position + 0.1 * speed + angle + 0.3 * turn > 0)


def recorded():
    """Play Gymnasium's game: states [T + 1, 4] float64 and actions, ends [T] of each episode, one after another."""
    rows = {"state": [], "action": [], "terminated": [], "truncated": [], "reward": [], "start": []}
    env = gymnasium.make("CartPole-v1")
    dice = np.random.default_rng(0)
    for episode in range(BALANCED + RANDOM + LEFT_THE_TRACK):
        observation, _ = env.reset(seed=episode)
        rows["start"].append(len(rows["action"]))
        is_over = False
        while not is_over:
            if episode < BALANCED:
                action = balance(observation)
            elif episode < BALANCED + RANDOM:
                action = int(dice.integers(2))
            else:
                action = 1
                env.unwrapped.state = np.array([*env.unwrapped.state[:2], 0.0, 0.0])
            before = np.array(env.unwrapped.state, np.float64)
            observation, reward, terminated, truncated, _ = env.step(action)
            is_over = terminated or truncated
            after = np.array(env.unwrapped.state, np.float64)
            values = {"action": action, "terminated": terminated, "truncated": truncated, "reward": reward}
            for name, value in {"state": (before, after), **values}.items():
                rows[name].append(value)
    return {name: np.array(value) for name, value in rows.items()}


@pytest.fixture(scope="module")
def trace():
    return dict(np.load(TRACE))


def episodes(trace):
    """The rows of each episode."""
    ends = [*trace["start"][1:], len(trace["action"])]
    return [slice(start, end) for start, end in zip(trace["start"], ends, strict=True)]


def no_draws(num_envs):
    return rules.Noise(*[tf.zeros([num_envs], tf.int32)] * 4)


def states(time, numbers):
    """States from frames [N] and Gymnasium's four numbers [N, 4]."""
    columns = [tf.constant(column, tf.float32) for column in np.transpose(numbers)]
    return rules.State(tf.constant(time, tf.int32), *columns)


def test_gymnasium_as_it_is_installed_plays_the_recording(trace):
    """Each frame from the recorded one before: Gymnasium's own sine may differ by a bit on another machine."""
    env = gymnasium.make("CartPole-v1")
    for rows in episodes(trace):
        env.reset(seed=0)
        for t in range(rows.start, rows.stop):
            env.unwrapped.state = trace["state"][t, 0]
            _, reward, terminated, truncated, _ = env.step(int(trace["action"][t]))
            np.testing.assert_allclose(env.unwrapped.state, trace["state"][t, 1], atol=1e-12, rtol=0)
            expected = [trace[name][t] for name in ("reward", "terminated", "truncated")]
            assert [reward, terminated, truncated] == expected


def test_the_recording_has_every_kind_of_end(trace):
    rows = episodes(trace)
    assert [rows[i].stop - rows[i].start for i in range(BALANCED)] == [500] * BALANCED
    assert trace["truncated"].sum() == BALANCED
    position, angle = np.abs(trace["state"][trace["terminated"], 1][:, [0, 2]]).T
    assert (angle > rules.MAX_ANGLE).sum() >= RANDOM and (position > rules.MAX_POSITION).sum() == LEFT_THE_TRACK


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "xla"])
def test_every_recorded_frame_follows_from_the_one_before(trace, compiled):
    """To 1e-5, over the 500 frames of balanced episodes and all of the others, with rewards and ends."""
    env = envs.make("cartpole")
    time = np.concatenate([np.arange(rows.stop - rows.start) for rows in episodes(trace)])
    state = states(time, trace["state"][:, 0])
    step = env.compiled_step if compiled else env.step
    state, timestep = step(state, tf.constant(trace["action"], tf.int32), no_draws(len(time)))
    np.testing.assert_allclose(timestep.observation, trace["state"][:, 1], atol=1e-5, rtol=0)
    np.testing.assert_array_equal(timestep.observation, env.observe(state))
    np.testing.assert_array_equal(timestep.reward, trace["reward"])
    np.testing.assert_array_equal(timestep.termination, trace["terminated"])
    np.testing.assert_array_equal(timestep.truncation, trace["truncated"])
    np.testing.assert_array_equal(state.time, time + 1)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "xla"])
def test_random_episodes_are_the_recorded_ones_from_start_to_end(trace, compiled):
    env = envs.make("cartpole")
    step = env.compiled_step if compiled else env.step
    rows = episodes(trace)[BALANCED : BALANCED + RANDOM]
    state = states(np.zeros(RANDOM), [trace["state"][each.start, 0] for each in rows])
    longest = max(each.stop - each.start for each in rows)
    assert longest > 30
    for t in range(longest):
        live = np.array([t < each.stop - each.start for each in rows])
        place = [min(each.start + t, each.stop - 1) for each in rows]
        state, timestep = step(state, tf.constant(trace["action"][place], tf.int32), no_draws(RANDOM))
        expected = trace["state"][place, 1]
        np.testing.assert_allclose(timestep.observation.numpy()[live], expected[live], atol=1e-5, rtol=0)
        np.testing.assert_array_equal(timestep.termination.numpy()[live], trace["terminated"][place][live])


def test_the_scripted_player_balances_to_the_time_limit():
    env, size = envs.make("cartpole"), 16
    state = env.compiled_reset(noise_of(env, 0, 0, size))
    for t in range(1, 501):
        action = [balance(numbers) for numbers in env.observe(state).numpy()]
        state, timestep = env.compiled_step(state, tf.constant(action), no_draws(size))
        assert not timestep.termination.numpy().any()
        assert timestep.truncation.numpy().all() == timestep.truncation.numpy().any() == (t == 500)


def test_an_end_by_the_rules_in_the_last_frame_is_no_truncation():
    env = envs.make("cartpole")
    state = states([499, 499], [[0.0, 0, 0, 0], [2.39, 1.0, 0, 0]])
    _, timestep = env.step(state, [1, 1], no_draws(2))
    assert timestep.termination.numpy().tolist() == [False, True]
    assert timestep.truncation.numpy().tolist() == [True, False]


def test_starts_are_uniform_between_the_ends_of_their_range():
    env = envs.make("cartpole")
    numbers = env.observe(env.reset(noise_of(env, 3, 0, 50_000))).numpy()
    assert np.abs(numbers).max() <= np.float32(rules.START)
    ends = rules.Noise(*[tf.constant([0, rules.START_PLACES - 1])] * 4)
    np.testing.assert_allclose(env.observe(env.reset(ends)), [[-0.05] * 4, [0.05] * 4], rtol=1e-6)
    # Five standard errors of a share of a tenth.
    for column in numbers.T:
        shares = np.histogram(column, 10, (-0.05, 0.05))[0] / len(column)
        assert np.abs(shares - 0.1).max() < 5 * np.sqrt(0.09 / len(column))
    correlations = np.corrcoef(numbers.T)[np.triu_indices(4, 1)]
    assert np.abs(correlations).max() < 5 / np.sqrt(len(numbers))


def test_it_keeps_the_contract():
    assert not [str(result) for result in check.check_env(envs.make("cartpole")) if result.is_fault]


def test_its_picture_shows_where_the_cart_is_and_how_the_pole_leans():
    env = envs.make("cartpole")
    left, middle, right = env.picture(tf.constant([[-1.2, 0, 0, 0], [0, 0, 0, 0], [1.2, 0, 0.2, 0.0]])).numpy()

    def columns(frame, name):
        return np.flatnonzero((frame == rules.COLOURS[name]).all(-1).any(0)).mean()

    width = rules.PICTURE[1]
    for frame, place in ((left, width / 4), (middle, width / 2), (right, 3 * width / 4)):
        assert abs(columns(frame, "cart") - place) < 1
    assert abs(columns(left, "pole") - columns(left, "cart")) < 0.1
    assert columns(right, "pole") - columns(right, "cart") > 1


if __name__ == "__main__":  # writes the recording
    np.savez_compressed(TRACE, **recorded())
