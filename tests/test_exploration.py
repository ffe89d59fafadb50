"""How environments explore: shares of random actions that differ, draws from a softmax, and their schedules."""

import numpy as np
import pytest
import tensorflow as tf

from tfdqn import config as configuration
from tfdqn import learners
from tfdqn.learners import exploration
from tfdqn.learners.dqn.agent import DQN
from tfdqn.programs.training import Trainer

SEED = tf.constant([5, 6], tf.int64)
WRAPS = {
    "eager": lambda function: function,
    "xla": lambda function: tf.function(function, autograph=False, jit_compile=True),
}


@pytest.fixture(params=WRAPS)
def mode(request):
    return WRAPS[request.param]


def of(**given):
    return exploration.exploration(configuration.resolve({"env": "catch8", **given}))


def test_a_ladder_spreads_epsilon_over_the_environments(mode):
    """Horgan et al. 2018: 0.4^(1 + 7 i / (N - 1)), once the schedule has come to 0.4; before, all play at random."""
    given = {"num_envs": 8, "epsilon_ladder": 7.0, "epsilon_end": 0.4, "epsilon_decay_env_frames": 1000}
    told = of(**given)
    found = mode(lambda frames: (told.at(frames).epsilon, told.epsilon_at(frames)))(tf.constant(5000, tf.int64))
    expected = 0.4 ** (1 + np.arange(8.0))
    np.testing.assert_allclose(found[0], expected, rtol=1e-5)
    np.testing.assert_allclose(found[1], expected.mean(), rtol=1e-5)  # what a run reports
    np.testing.assert_array_equal(told.at(tf.constant(0, tf.int64)).epsilon, np.ones(8))
    halfway = 0.7 ** (1 + np.arange(8.0))
    np.testing.assert_allclose(told.at(tf.constant(500, tf.int64)).epsilon, halfway, rtol=1e-5)
    alone = of(**{**given, "num_envs": 1}).at(tf.constant(5000, tf.int64)).epsilon
    np.testing.assert_allclose(alone, [0.4])
    zero = of(**{**given, "epsilon_end": 0.0}).at(tf.constant(5000, tf.int64)).epsilon
    np.testing.assert_array_equal(zero, np.zeros(8))


def test_each_environment_explores_by_its_own_epsilon(mode):
    num_envs = 4000
    q = tf.tile(tf.constant([[0.0, 1.0, 0.0, 0.0]]), [4 * num_envs, 1])
    shares = np.repeat([0.0, 0.1, 0.5, 1.0], num_envs).astype(np.float32)
    actions = mode(lambda e: exploration.choose(q, exploration.Explore(e), SEED, None))(tf.constant(shares)).numpy()
    for i, share in enumerate([0.0, 0.1, 0.5, 1.0]):
        found, expected = np.mean(actions.reshape(4, -1)[i] != 1), 0.75 * share
        assert abs(found - expected) <= 5 * np.sqrt(expected * (1 - expected) / num_envs)
    # The same draws as of one epsilon for all.
    same = exploration.choose(q, tf.constant(0.5), SEED, None).numpy()
    np.testing.assert_array_equal(actions.reshape(4, -1)[2], same.reshape(4, -1)[2])


def test_boltzmann_draws_from_the_softmax_of_what_is_legal(mode):
    """Pearson's statistic of 100,000 draws: below 25 but for one case in 10,000 of four categories."""
    count = 100_000
    q, legal = np.array([0.3, -0.2, 0.0, 0.5, 9.0]), np.array([1, 1, 1, 1, 0], bool)
    many = tf.tile(tf.constant([q], tf.float32), [count, 1]), tf.tile(tf.constant([legal]), [count, 1])
    for temperature, epsilon in ((0.5, 0.0), (0.2, 0.3)):
        explore = exploration.Explore(tf.constant(epsilon), tf.constant(temperature))
        actions = mode(lambda q, legal, how=explore: exploration.choose(q, how, SEED, legal))(*many).numpy()
        softmax = np.where(legal, np.exp(q / temperature), 0)
        expected = count * ((1 - epsilon) * softmax / softmax.sum() + epsilon * legal / 4)
        counts = np.bincount(actions, minlength=5)
        assert counts[4] == 0
        assert ((counts - expected)[:4] ** 2 / expected[:4]).sum() < 25
    coldest = exploration.Explore(tf.constant(0.0), tf.constant(1e-30))
    np.testing.assert_array_equal(exploration.choose(*many[:1], coldest, SEED, many[1]), np.full(count, 3))


def test_an_environments_draws_do_not_hang_on_how_many_there_are():
    q, explore = tf.random.stateless_normal([64, 3], [1, 2]), exploration.Explore(tf.constant(0.1), tf.constant(1.0))
    all_of_them = exploration.choose(q, explore, SEED, None)
    np.testing.assert_array_equal(exploration.choose(q[:5], explore, SEED, None), all_of_them[:5])


def test_a_temperature_falls_as_epsilon_does():
    given = {"temperature_start": 2.0, "temperature_end": 1.0, "epsilon_decay_env_frames": 1000, "epsilon_end": 0.0}
    told = of(exploration="boltzmann", **given)
    for frames, temperature, epsilon in ((0, 2.0, 1.0), (250, 1.75, 0.75), (4000, 1.0, 0.0)):
        explore = told.at(tf.constant(frames, tf.int64))
        np.testing.assert_allclose([explore.temperature, explore.epsilon], [temperature, epsilon], rtol=1e-6)


SMALL = {"env": "catch8", "device": "cpu", "num_envs": 4, "exploration": "boltzmann", "epsilon_ladder": 7.0}


@pytest.mark.parametrize("learner", [name for name in learners.LEARNERS if name != "a2c"])
def test_every_learner_of_q_values_explores_so(learner):
    """In the training loop itself: at a high temperature about two in three actions are not the best."""
    rounds = {"pqn": {"num_steps": 4, "minibatches": 1}, "r2d2": {"replay_capacity": 2000}}.get(learner, {})
    given = {**SMALL, **rounds, "learner": learner, "epsilon_start": 0.0, "epsilon_end": 0.0}
    actions = {}
    for temperature in (1e-6, 1e6):
        heat = {"temperature_start": temperature, "temperature_end": temperature}
        trainer = Trainer(configuration.resolve({**given, **heat, "jit": False}))
        carry, taken = trainer.initial_carry(), []
        interact = tf.function(trainer._interact, autograph=False)
        for _ in range(60):
            carry, decision = interact(carry)
            taken.append(decision.row.action.numpy())
        actions[temperature] = np.concatenate(taken)
    counts = np.bincount(actions[1e6], minlength=3)
    assert counts.min() > 50 and np.bincount(actions[1e-6], minlength=3).max() > 100


def test_an_agent_takes_an_epsilon_for_each_environment():
    agent = DQN((4, 4, 1), 3)
    frames = tf.zeros([2000, 4, 4, 1], tf.uint8)
    epsilon = tf.constant([0.0, 1.0] * 1000)
    actions = agent.act(frames, (), epsilon, SEED)[0].numpy()
    assert len(set(actions[::2])) == 1 and len(set(actions[1::2])) == 3
