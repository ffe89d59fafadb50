"""A2C: advantages against plain loops, its loss against float64, what it draws, and that it learns."""

import numpy as np
import pytest
import tensorflow as tf

from tfdqn import config as configuration
from tfdqn import seeds
from tfdqn.learners.a2c.agent import ActorCritic
from tfdqn.learners.a2c.learner import advantages
from tfdqn.programs.evaluation import Evaluator
from tfdqn.programs.training import Trainer
from tfdqn.runtime import compiled

WRAP = {"eager": lambda function: function, "graph": tf.function, "xla": compiled.xla}


def reference(reward, discount, value, is_boundary, last_value, gae_lambda):
    """The same in float64, one environment and one decision at a time."""
    found = np.zeros(reward.shape)
    for env in range(reward.shape[1]):
        after, following = 0.0, float(last_value[env])
        for t in reversed(range(len(reward))):
            if is_boundary[t, env]:
                after = 0.0
            else:
                error = reward[t, env] + discount[t, env] * following - value[t, env]
                after = found[t, env] = error + discount[t, env] * gae_lambda * after
            following = float(value[t, env])
    return found


@pytest.mark.parametrize("mode", WRAP)
@pytest.mark.parametrize("gae_lambda", [0.0, 0.95, 1.0])
def test_advantages_agree_with_plain_loops(mode, gae_lambda):
    rng = np.random.default_rng(0)
    reward, value = rng.normal(size=(2, 9, 5)).astype(np.float32)
    discount = np.where(rng.random((9, 5)) < 0.2, 0, 0.9).astype(np.float32)
    is_boundary = rng.random((9, 5)) < 0.2
    last = rng.normal(size=5).astype(np.float32)
    found = WRAP[mode](lambda *given: advantages(*given, gae_lambda))(reward, discount, value, is_boundary, last)
    expected = reference(reward, discount, value, is_boundary, last, gae_lambda)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_advantages_by_hand():
    """Two decisions, the second the last of an episode that ended by the rules."""
    found = advantages(
        reward=tf.constant([[1.0], [2.0]]),
        discount=tf.constant([[0.5], [0.0]]),
        value=tf.constant([[3.0], [4.0]]),
        is_boundary=tf.constant([[False], [False]]),
        last_value=tf.constant([100.0]),
        gae_lambda=0.5,
    )
    second = 2.0 - 4.0
    np.testing.assert_allclose(found[:, 0], [1.0 + 0.5 * 4.0 - 3.0 + 0.5 * 0.5 * second, second])


def test_the_loss_is_that_of_the_paper_in_float64_and_its_gradient_by_differences():
    agent = ActorCritic((3,), 4, observation_dtype="float32", entropy_weight=0.3, value_weight=0.7)
    agent.compile(tf.keras.optimizers.SGD(1.0))
    rng = np.random.default_rng(1)
    observation = rng.normal(size=(5, 3)).astype(np.float32)
    action, legal = np.array([0, 1, 2, 3, 0], np.int32), np.ones([5, 4], bool)
    legal[0, 3] = legal[1, 0] = False
    advantage, target = rng.normal(size=(2, 5)).astype(np.float32)
    weight = np.array([1, 1, 1, 0, 1], np.float32)

    def loss(weights):
        values = observation.astype(np.float64)
        for i in range(0, len(weights), 2):
            values = values @ weights[i] + weights[i + 1]
            values = np.maximum(values, 0) if i < len(weights) - 2 else values
        logits, value = np.where(legal, values[:, :-1], -np.inf), values[:, -1]
        log_policy = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        policy = np.exp(log_policy)
        entropy = -np.sum(np.where(legal, policy * np.where(legal, log_policy, 0), 0), axis=1)
        each = -advantage * log_policy[np.arange(5), action] + 0.7 * 0.5 * (value - target) ** 2 - 0.3 * entropy
        return np.sum(np.where(weight > 0, each, 0)) / 4

    before = [value.astype(np.float64) for value in agent.online.get_weights()]
    result = agent.learn(*(tf.constant(each) for each in (observation, action, advantage, target, weight, legal)))
    np.testing.assert_allclose(float(result.loss), loss(before), rtol=1e-5)
    moved = [old - new for old, new in zip(before, agent.online.get_weights(), strict=True)]
    for i, j in ((0, (1, 5)), (2, (7, 3)), (4, (2, 1)), (5, (4,))):
        slopes = []
        for sign in (1, -1):
            weights = [value.copy() for value in before]
            weights[i][j] += sign * 1e-6
            slopes.append(loss(weights))
        np.testing.assert_allclose(moved[i][j], (slopes[0] - slopes[1]) / 2e-6, rtol=2e-3, atol=1e-5)


def test_actions_are_drawn_from_the_policy_and_never_an_illegal_one():
    agent = ActorCritic((2,), 3, observation_dtype="float32")
    observation = tf.zeros([60_000, 2])
    agent.online.layers[-1].set_weights([np.zeros([32, 4]), np.log([0.6, 0.3, 0.1, 1.0])])
    for legal, policy in ((None, [0.6, 0.3, 0.1]), ([False, True, True], [0.0, 0.75, 0.25])):
        mask = None if legal is None else tf.tile([legal], [60_000, 1])
        action, _ = compiled.xla(lambda seed, mask=mask: agent.act(observation, (), 1.0, seed, mask))(
            tf.constant([1, 2], tf.int64)
        )
        shares = np.bincount(action, minlength=3) / 60_000
        np.testing.assert_allclose(shares, policy, atol=0.01)
        assert legal is None or shares[0] == 0
    greedy, _ = agent.act(observation[:5], (), 0.0, tf.constant([1, 2], tf.int64))
    assert greedy.numpy().tolist() == [0] * 5


def test_the_largest_number_there_is_draws_like_any_other(monkeypatch):
    """2^24 - 1, and a half, is 2^24 in float32: no noise may be infinite for it, nor an action greedy."""
    agent = ActorCritic((2,), 3, observation_dtype="float32")
    agent.online.layers[-1].set_weights([np.zeros([32, 4]), np.log([0.2, 0.7, 0.1, 1.0])])
    largest, large, middle = 2**24 - 1, 2**24 - 2**10, 2**23
    numbers = [[0, largest, largest, largest], [largest, middle, middle, large]]  # what decides, then one an action
    monkeypatch.setattr(seeds, "draw", lambda seed, num: tf.reshape(tf.constant(numbers, tf.int64), [num]))
    action, _ = agent.act(tf.zeros([2, 2]), (), 1.0, tf.constant([1, 2], tf.int64))
    assert action.numpy().tolist() == [1, 2]


def test_it_learns_catch8():
    config = configuration.resolve({"env": "catch8", "learner": "a2c"})
    trainer = Trainer(config)
    carry = trainer.run_chunk(trainer.initial_carry(), 1600, 10**9)
    assert trainer.trace_count == 1 and int(carry.metrics.updates) == 1600
    scores = Evaluator(config, trainer.env, trainer.agent).evaluate(64).scores
    assert scores.mean() > 80
