"""Evaluation: the first episode of each environment, scored as the games define it, in one program."""

import numpy as np
import pytest
import tensorflow as tf

from tfdqn import config as configuration
from tfdqn import seeds
from tfdqn.envs import make
from tfdqn.learners.base import NoState
from tfdqn.learners.dqn.building import build_agent
from tfdqn.programs.evaluation import BLOCK_DECISIONS, STRIP_FRAMES, Evaluator, Stopped


class Scripted:
    """A player that computes action values from the screen by a rule."""

    def __init__(self, rule, num_actions):
        self.rule, self.num_actions = rule, num_actions

    def initial_state(self, num_envs):
        return NoState()

    def rewarded(self, agent_state, reward):
        return agent_state

    def action_values(self, observation, agent_state):
        return tf.one_hot(self.rule(observation[..., -1]), self.num_actions)

    def act(self, observation, agent_state, epsilon, seed, legal=None):
        return self.rule(observation[..., -1]), agent_state


def catches(screen):
    """Move the paddle's middle under the lowest ball that is still falling; [N, 8, 8] uint8 to actions [N]."""
    balls = tf.cast(screen[:, :-1] == 128, tf.int32)
    row, column = tf.range(1, 8)[None, :, None], tf.range(8)[None, None, :]
    lowest = tf.reduce_max(balls * row, axis=[1, 2], keepdims=True)
    target = tf.reduce_max(balls * tf.cast(row == lowest, tf.int32) * column, axis=[1, 2])
    # A ball caught in this frame hides a cell of the paddle; the mean of the cells still tells which way to go.
    cells = tf.cast(screen[:, -1] > 0, tf.int32)
    paddle = tf.reduce_sum(cells * tf.range(8), axis=1) / tf.reduce_sum(cells, axis=1)
    return tf.where(
        target < tf.cast(tf.round(paddle), tf.int32), 1, tf.where(target > tf.cast(tf.round(paddle), tf.int32), 2, 0)
    )


def always(action):
    return lambda screen: tf.fill([tf.shape(screen)[0]], action)


def make_evaluator(env_name, rule, episodes, **given):
    config = configuration.resolve({"env": env_name, "eval_episodes": episodes, "frame_stack": 1, **given})
    env = make(env_name)
    return Evaluator(config, env, Scripted(rule, env.num_actions)), env


def test_a_perfect_player_gets_the_perfect_score():
    evaluator, env = make_evaluator("catch8", catches, 32)
    scores = evaluator.evaluate(64)
    np.testing.assert_array_equal(scores.scores, np.full(64, env.best_score))
    np.testing.assert_array_equal(scores.frames, np.full(64, 501))
    assert scores.summary() == {
        "episodes": 64,
        "score_mean": 99.0,
        "score_std": 0.0,
        "score_median": 99.0,
        "score_min": 99.0,
        "score_max": 99.0,
    }
    assert evaluator.trace_count == 1


@pytest.mark.parametrize("repeat", [1, 3])
def test_exactly_the_first_episode_of_each_environment_counts(repeat):
    """Against a plain loop over the game with the same draws."""
    size, seed = 8, 11
    evaluator, env = make_evaluator("catch8", always(0), size, action_repeat=repeat)
    scores = evaluator.evaluate(size, seed)
    stream = seeds.stream(seed, "final_evaluation", 0, 0)
    state = env.reset(env.sample_noise(seeds.at(stream, 0), size))
    total, frames, over = np.zeros(size), np.zeros(size, int), np.zeros(size, bool)
    for frame in range(501):
        noise = env.sample_noise(seeds.at(stream, repeat + frame), size)
        state, timestep = env.compiled_step(state, tf.zeros([size], tf.int32), noise)
        total += np.where(over, 0, timestep.reward)
        frames += ~over
        over |= timestep.termination.numpy() | timestep.truncation.numpy()
        if over.all():
            break
    np.testing.assert_array_equal(scores.scores, total)
    np.testing.assert_array_equal(scores.frames, frames)


def test_cave_scores_are_frames_and_the_cap_cuts_them():
    evaluator, _ = make_evaluator("cave", always(1), 8)
    whole, cut = evaluator.evaluate(8), evaluator.evaluate(8, max_frames=10)
    assert (whole.scores == whole.frames).all() and (whole.scores > 10).all()
    np.testing.assert_array_equal(cut.scores, np.full(8, 10))
    assert evaluator.trace_count == 1


def test_seeds_streams_and_blocks_have_draws_of_their_own():
    evaluator, _ = make_evaluator("catch8", always(0), 16)
    first = evaluator.evaluate(64, 1).scores
    np.testing.assert_array_equal(evaluator.evaluate(64, 1).scores, first)
    np.testing.assert_array_equal(evaluator.evaluate(20, 1).scores, first[:20])
    assert not np.array_equal(evaluator.evaluate(64, 2).scores, first)
    assert not np.array_equal(evaluator.evaluate(64, 1, stream="evaluation").scores, first)
    blocks = first.reshape(4, 16)
    assert all(not np.array_equal(blocks[0], block) for block in blocks[1:])


@pytest.mark.parametrize(
    ("env_name", "mode"),
    [
        ("catch8", {}),
        ("catch8", {"eager": True}),
        ("cave", {}),
        pytest.param("cave", {"eager": True}, marks=pytest.mark.slow),
    ],
    ids=["catch8-xla", "catch8-eager", "cave-xla", "cave-eager"],
)
def test_an_episode_is_the_same_however_many_are_played_at_a_time(env_name, mode):
    """With the agent's own exploration, which draws, too."""
    results = []
    for size in (32, 5):
        config = configuration.resolve({"env": env_name, "network": "mlp", "eval_episodes": size, **mode})
        env = make(env_name)
        evaluator = Evaluator(config, env, build_agent(config, env))
        results.append(evaluator.evaluate(32, 3, epsilon=1.0, max_frames=60))
    whole, blocks = results
    np.testing.assert_array_equal(blocks.frames, whole.frames)
    np.testing.assert_array_equal(blocks.scores, whole.scores)
    assert len(set(whole.frames[16:])) > 2
    assert not np.array_equal(whole.frames[16:], whole.frames[:16])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"episodes": 0}, "episodes is 0, but must be between 1 and 1000000"),
        ({"episodes": 8, "max_frames": 0}, "max_frames is 0, but must be at least 1"),
        ({"episodes": 8, "epsilon": 1.5}, "epsilon is 1.5, but must be between 0 and 1"),
    ],
)
def test_numbers_out_of_range_are_refused(given, message):
    evaluator, _ = make_evaluator("catch8", always(0), 8)
    with pytest.raises(ValueError, match=message):
        evaluator.evaluate(**given)


def test_strip_and_action_values_come_from_the_first_episode():
    evaluator, _ = make_evaluator("catch8", catches, 4)
    scores = evaluator.evaluate(4)
    assert scores.strip.shape == (STRIP_FRAMES, 8, 8)
    assert scores.strip[0].max() > 0 and scores.strip[-1].max() > 0
    assert scores.q_values.shape == (501, 3)
    np.testing.assert_array_equal(scores.q_values.sum(1), np.ones(501))


def test_an_evaluation_can_be_stopped_long_before_its_end():
    evaluator, env = make_evaluator("cave", always(1), 2, jit=False)
    env.time_limit = 10**9
    evaluator.env.step = forever(env.step)
    asked = []

    def should_stop():
        asked.append(None)
        return len(asked) == 3

    evaluator.should_stop = should_stop
    with pytest.raises(Stopped):
        evaluator.evaluate(2)
    assert len(asked) == 3 and 10 < BLOCK_DECISIONS < 1000


def forever(step):
    """The game's step without any end."""

    def endless(state, action, noise):
        after, timestep = step(state, action, noise)
        no = tf.zeros_like(timestep.termination)
        return after, timestep._replace(termination=no, truncation=no)

    return endless


@pytest.mark.parametrize("jit", [True, False])
def test_how_often_an_evaluation_can_be_stopped_changes_nothing(monkeypatch, jit):
    found = []
    for decisions in (7, 10**6):
        monkeypatch.setattr("tfdqn.programs.evaluation.BLOCK_DECISIONS", decisions)
        evaluator, _ = make_evaluator("catch8", catches, 5, jit=jit)
        found.append(evaluator.evaluate(8, seed=3, epsilon=0.3))
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
