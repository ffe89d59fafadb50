"""The rules of catch, against a scalar reference and one by one."""

import numpy as np
import pytest
import tensorflow as tf

from tests.envs import reference
from tests.envs.helpers import assert_uniform, noise_of, restarted, to_numpy
from tfdqn import envs
from tfdqn.envs.catch import rules as catch

GAMES = {
    "catch8": (8, 7, reference.EVERY_FIVE),
    "catch16": (16, 6, reference.EVERY_FIVE),
    "catch8_single": (8, 7, reference.SINGLE),
}


def make_noise(start_paddle, start_column, ball_rank):
    return catch.Noise(*(tf.constant([value], tf.int32) for value in (start_paddle, start_column, ball_rank)))


def catching_move(column, following, paddle):
    """The action toward a place that catches a ball in `column`, on the side of the ball that follows it."""
    middle = np.clip(following, column - 1, column + 1)
    return np.where(middle < paddle + 1, catch.LEFT, np.where(middle > paddle + 1, catch.RIGHT, 0)).astype(np.int32)


@pytest.mark.parametrize("name", GAMES)
def test_the_reference_plays_the_same_game(name):
    env = envs.make(name)
    num_envs, frames = 6, 150 if name == "catch8_single" else 1100  # two perfect games to the time limit
    games = [reference.CatchReference(*GAMES[name]) for _ in range(num_envs)]
    noise = noise_of(env, 1, 0, num_envs)
    state = to_numpy(env.compiled_reset(noise))
    for i, game in enumerate(games):
        game.reset(noise.start_paddle[i], noise.start_column[i])
    # From perfect, which meets the time limit, to random play.
    skill = np.linspace(1, 0, num_envs)
    generator = np.random.default_rng(0)
    truncations = 0
    for t in range(frames):
        noise = noise_of(env, 2, t, num_envs)
        action = np.array([catching_move(game.balls[0][1], game.balls[:2][-1][1], game.paddle) for game in games])
        is_random = generator.random(num_envs) >= skill
        action = np.where(is_random, generator.integers(0, 3, num_envs, np.int32), action)
        state, timestep = to_numpy(env.compiled_step(state, action, noise))
        for i, game in enumerate(games):
            frame, reward, termination, truncation = game.step(action[i], noise.ball_rank[i])
            np.testing.assert_array_equal(timestep.observation[i], frame)
            assert timestep.reward[i] == reward
            assert timestep.termination[i] == termination
            assert timestep.truncation[i] == truncation
            truncations += truncation
            if termination or truncation:
                game.reset(noise.start_paddle[i], noise.start_column[i])
        fresh = to_numpy(env.compiled_reset(noise))
        state = restarted(timestep.termination | timestep.truncation, fresh, state)
    assert truncations >= 2 or name == "catch8_single"


@pytest.mark.parametrize(("name", "frames"), [("catch8", 501), ("catch16", 501), ("catch8_single", 7)])
def test_perfect_play_reaches_the_best_score_and_the_limit(name, frames):
    env = envs.make(name)
    num_envs = 32
    state = to_numpy(env.compiled_reset(noise_of(env, 3, 3, num_envs)))
    score = np.zeros(num_envs)
    for t in range(frames):
        # The oldest ball that has not landed yet.
        age = np.arange(state.columns.shape[1]) * env._ball_period + t % env._ball_period
        oldest = np.flatnonzero((age < env.observation_shape[0] - 1) & (age <= t))[-1]
        action = catching_move(state.columns[:, oldest], state.columns[:, max(oldest - 1, 0)], state.paddle)
        state, timestep = to_numpy(env.compiled_step(state, action, noise_of(env, 4, t, num_envs)))
        score += timestep.reward
        assert np.all((timestep.termination | timestep.truncation) == (t + 1 == frames))
    assert timestep.termination.all() == (name == "catch8_single")
    np.testing.assert_array_equal(score, env.best_score)
    assert env.best_score == {"catch8": 99, "catch16": 98, "catch8_single": 1}[name]


def at(env, time, paddle, column):
    """The states at `time` of games [N] whose balls all fell into `column`."""
    paddle, column = np.atleast_1d(paddle).astype(np.int32), np.atleast_1d(column).astype(np.int32)
    state = env.reset(catch.Noise(tf.constant(paddle), tf.constant(column), tf.zeros_like(paddle)))
    return state._replace(time=tf.fill(paddle.shape, time))


def test_a_drop_at_the_limit_is_a_termination():
    # Ball landings are in frames 5 j + 2; make frame 502 be past the limit for the first time.
    env = envs.make("catch8")
    for paddle, reward, termination in [(0, -1, True), (5, 1, False)]:
        state = at(env, 501, paddle, column=6)
        _, timestep = env.step(state, tf.constant([0]), make_noise(0, 0, 0))
        assert timestep.reward.numpy() == reward
        assert timestep.termination.numpy() == termination
        assert timestep.truncation.numpy() != termination


def test_the_limit_is_passed_in_frame_501():
    env = envs.make("catch8")
    for time, truncation in [(498, False), (499, False), (500, True)]:
        _, timestep = env.step(at(env, time, 5, 6), tf.constant([0]), make_noise(0, 0, 0))
        assert timestep.truncation.numpy() == truncation


@pytest.mark.parametrize("name", ["catch8", "catch16"])
def test_the_paddle_catches_exactly_its_three_columns(name):
    env = envs.make(name)
    size = env.observation_shape[0]
    paddle, column = (axis.ravel() for axis in np.mgrid[0 : size - 2, 0:size])
    noise = noise_of(env, 0, 0, len(paddle))
    stay = tf.zeros_like(noise.ball_rank)
    state, timestep = env.step(at(env, size - 2, paddle, column), stay, noise)
    np.testing.assert_array_equal(timestep.reward, np.where(np.isin(column - paddle, [0, 1, 2]), 1, -1))
    # Drawn over the paddle, and gone in the next frame.
    bottom = timestep.observation.numpy()[:, -1]
    assert np.all(bottom[np.arange(len(column)), column] == catch.BALL_LEVEL)
    _, timestep = env.step(state, stay, noise)
    assert np.all(np.sum(timestep.observation.numpy()[:, -1] == catch.PADDLE_LEVEL, axis=1) == 3)


def test_the_paddle_moves_before_the_catch_and_stops_at_the_sides():
    env = envs.make("catch8")
    for paddle, action, moved in [(0, 1, 0), (0, 2, 1), (5, 2, 5), (5, 1, 4), (3, 0, 3)]:
        state, _ = env.step(at(env, 0, paddle, 0), tf.constant([action]), make_noise(0, 0, 0))
        assert state.paddle.numpy() == moved
    _, timestep = env.step(at(env, 6, 2, 5), tf.constant([2]), make_noise(0, 0, 0))
    assert timestep.reward.numpy() == 1


def test_balls_are_posted_every_five_frames_and_fall_from_the_next_frame_on():
    env = envs.make("catch16")
    state = env.reset(make_noise(12, 4, 0))
    for t in range(1, 15):
        state, timestep = env.step(state, tf.constant([0]), make_noise(0, 0, 1))
        rows = np.argwhere(timestep.observation.numpy()[0] == catch.BALL_LEVEL)[:, 0].tolist()
        assert rows == [row for row in range(t % 5, t + 1, 5)]


@pytest.mark.parametrize("name", ["catch8", "catch16"])
def test_starts_are_uniform_and_never_at_the_right_side(name):
    env = envs.make(name)
    size = env.observation_shape[0]
    noise = noise_of(env, 11, 12, 50_000)
    # size-3 would be the rightmost place; the original never starts there.
    assert_uniform(noise.start_paddle, size - 3)
    assert_uniform(noise.start_column, size)
    assert_uniform(noise.start_paddle * size + noise.start_column, (size - 3) * size)


@pytest.mark.parametrize("name", ["catch8", "catch16"])
def test_new_balls_are_uniform_over_the_allowed_columns(name):
    env = envs.make(name)
    size, max_jump, _ = GAMES[name]
    per_column = 10_000
    last = np.repeat(np.arange(size, dtype=np.int32), per_column)
    noise = noise_of(env, 13, 14, len(last))
    state = env.reset(noise._replace(start_column=tf.constant(last)))
    state = state._replace(time=tf.fill([len(last)], 4))
    state, _ = env.compiled_step(state, tf.zeros([len(last)], tf.int32), noise)
    new = state.columns.numpy()[:, 0]
    for column in range(size):
        allowed = [c for c in range(size) if 3 <= abs(c - column) <= max_jump]
        drawn = new[last == column]
        assert set(drawn.tolist()) == set(allowed)
        assert_uniform(np.searchsorted(allowed, drawn), len(allowed))
        # The rank counts from the left: this is how recorded play is fed in.
        rank = np.arange(2 * len(allowed), dtype=np.int32)
        chosen = env._allowed_column(tf.constant(rank), tf.fill(rank.shape, column))
        np.testing.assert_array_equal(chosen, np.take(allowed, rank, mode="wrap"))


@pytest.mark.parametrize(("name", "expected"), [("catch8", -0.56), ("catch16", -0.77)])
def test_random_play_scores_as_the_originals(name, expected):
    env = envs.make(name)
    num_envs = 8000
    generator = np.random.default_rng(21)
    state = env.compiled_reset(noise_of(env, 21, 0, num_envs))
    score, alive = np.zeros(num_envs), np.ones(num_envs, bool)
    for t in range(60):
        action = generator.integers(0, 3, num_envs, np.int32)
        state, timestep = env.compiled_step(state, action, noise_of(env, 23, t, num_envs))
        score += np.where(alive, timestep.reward, 0)
        alive &= ~timestep.termination.numpy()
    assert abs(score.mean() - expected) < 0.04


def test_other_sizes_are_refused():
    with pytest.raises(ValueError, match="no size 9: choose one of 8, 16"):
        catch.Catch(size=9)
