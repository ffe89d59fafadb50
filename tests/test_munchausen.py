"""Munchausen's soft policy: its equations by hand, a whole agent against NumPy, and the values of known games."""

import numpy as np
import pytest
import tensorflow as tf

from tests.finite import DISCOUNT, MODES, STATES, Lab
from tests.probes import random_game
from tfdqn import config as configuration
from tfdqn.errors import UserError
from tfdqn.learners import losses
from tfdqn.learners.dqn.agent import DQN
from tfdqn.replay.transitions import Transition

WRAPS = {
    "eager": lambda function: function,
    "graph": lambda function: tf.function(function, autograph=False),
    "xla": lambda function: tf.function(function, autograph=False, jit_compile=True),
}


@pytest.fixture(params=WRAPS)
def mode(request):
    """Every equation runs op by op, as a graph and under XLA."""
    return WRAPS[request.param]


def test_the_policy_and_its_bonus_by_hand(mode):
    """Values log 3 and 0 at temperature 1: probabilities 3/4 and 1/4; at 1/2: 9/10 and 1/10."""
    q = tf.constant([[np.log(3.0), 0.0]], tf.float32)
    np.testing.assert_allclose(np.exp(mode(lambda q: losses.log_policy(q, 1.0))(q)), [[0.75, 0.25]], rtol=1e-6)
    policy = mode(lambda q: losses.log_policy(q, 0.5))(q)
    np.testing.assert_allclose(np.exp(policy), [[0.9, 0.1]], rtol=1e-5)

    def bonus(action, clip):
        run = mode(lambda: losses.munchausen_reward(tf.constant([2.0]), policy, tf.constant([action]), 0.8, 0.5, clip))
        return run().numpy()

    np.testing.assert_allclose(bonus(0, -1.0), [2 + 0.8 * 0.5 * np.log(0.9)], rtol=1e-6)
    np.testing.assert_allclose(bonus(1, -9.0), [2 + 0.8 * 0.5 * np.log(0.1)], rtol=1e-6)
    np.testing.assert_allclose(bonus(1, -1.0), [2 - 0.8], rtol=1e-6)  # 0.5 log 0.1 is below -1


def test_the_soft_expectation_is_the_log_of_a_sum(mode):
    """sum pi (Q - T log pi) = T log sum exp(Q / T), also where one action is illegal or nothing is left of it."""
    q = np.array([[0.3, -1.0, 2.0], [5.0, 5.0, 5.0], [0.0, -90.0, 1.0]])
    run = mode(lambda q, legal: losses.soft_expectation(q, losses.log_policy(q, 0.25, legal), 0.25))
    legal = np.array([[True, True, False], [True, True, True], [True, True, True]])
    expected = 0.25 * np.log((np.exp(q / 0.25) * legal).sum(1))
    infinite = np.where(legal, q, np.inf)
    np.testing.assert_allclose(run(tf.constant(infinite, tf.float32), tf.constant(legal)), expected, rtol=1e-5)
    each = tf.constant(np.stack([q, q + 1], axis=-1), tf.float32)  # numbers of two kinds for each action
    policy = losses.log_policy(tf.constant(q, tf.float32), 0.25)
    both = mode(lambda each: losses.soft_expectation(each, policy, 0.25))(each).numpy()
    np.testing.assert_allclose(both[:, 1] - both[:, 0], 1.0, rtol=1e-5)


def random_batch(size, actions, seed=0) -> Transition:
    dice = np.random.default_rng(seed)
    legal, next_legal = (dice.random((size, actions)) < 0.5 for _ in range(2))
    action = dice.integers(0, actions, size).astype(np.int32)
    legal[np.arange(size), action] = next_legal[np.arange(size), action] = True
    frames = dice.integers(0, 256, (2, size, 4, 4, 1)).astype(np.uint8)
    reward, discount = dice.normal(size=size), dice.choice([0.0, 0.9], size)
    return Transition(
        frames[0], action, reward.astype(np.float32), discount.astype(np.float32), frames[1], legal, next_legal
    )


RULES = [{"dueling": True, "double": False}, {"members": 2}, {"head": "quantile"}, {}, {"target": "none"}]


@pytest.mark.parametrize(
    "given, jit",
    [
        *((given, False) for given in RULES),
        *(pytest.param(given, True, marks=[pytest.mark.slow] * (number > 2)) for number, given in enumerate(RULES)),
    ],
    ids=str,
)
def test_a_whole_agent_learns_what_the_paper_says(given, jit):
    numbers = {"munchausen_alpha": 0.7, "munchausen_temperature": 0.3, "munchausen_clip": -0.5}
    agent, batch = DQN((4, 4, 1), 5, quantiles=3, **numbers, **given), random_batch(64, 5)
    agent.compile(optimizer=tf.keras.optimizers.SGD(0.01), jit_compile=jit)
    dice = np.random.default_rng(3)
    for variable in (*agent.online.variables, *agent.target.variables):
        variable.assign(dice.normal(size=variable.shape, scale=0.4))
    network = agent.online if given.get("target") == "none" else agent.target
    now, after = (agent.head.values(network(frames)).numpy().astype(float) for frames in (batch.observation, batch[4]))
    taken = agent(batch.observation).numpy()[np.arange(64), batch.action]

    def log_policy(q, legal):
        q = np.where(legal, q, -np.inf)
        q = (q - q.max(1, keepdims=True)) / 0.3
        return q - np.log(np.exp(q).sum(1, keepdims=True))

    policy, following = log_policy(now, batch.legal), log_policy(after, batch.next_legal)
    with np.errstate(invalid="ignore"):
        soft = np.where(batch.next_legal, np.exp(following) * (after - 0.3 * following), 0.0).sum(1)
    bonus = np.clip(0.3 * policy[np.arange(64), batch.action], -0.5, 0)
    assert (bonus == -0.5).sum() > 5 and (bonus > -0.5).sum() > 5
    expected = taken - (batch.reward + 0.7 * bonus + batch.discount * soft)
    learn = tf.function(agent.learn, autograph=False, jit_compile=True) if jit else agent.learn
    result = learn(Transition(*map(tf.constant, batch)), tf.ones([64]))
    np.testing.assert_allclose(result.td_error, expected, rtol=1e-3, atol=1e-4)


def munchausen_q(game, alpha, temperature, clip):
    """What the values settle at, [S, A] float64, by iteration."""
    q = np.zeros([STATES, 2])
    for _ in range(2000):
        log_policy = q / temperature - np.log(np.exp((q - q.max(1, keepdims=True)) / temperature).sum(1, keepdims=True))
        log_policy -= q.max(1, keepdims=True) / temperature
        soft = (np.exp(log_policy) * (q - temperature * log_policy)).sum(1)
        bonus = alpha * np.clip(temperature * log_policy, clip, 0)
        q = game.reward + bonus + DISCOUNT * ~game.terminates * soft[game.successor].mean(-1)
    return q[: game.num_states]


@pytest.mark.parametrize("head", ["scalar", pytest.param("quantile", marks=pytest.mark.slow)])
def test_a_random_games_values_are_those_of_the_iteration(head):
    game = random_game(0)
    numbers = {"munchausen_alpha": 0.5, "munchausen_temperature": 0.2, "munchausen_clip": -1.0}
    # Quantiles of the soft returns have their mean at those of a large kappa alone: then the loss is a square.
    lab = Lab(4000, head=head, quantiles=8, huber_kappa=20.0, **numbers, **MODES["xla"])
    known = munchausen_q(game, 0.5, 0.2, -1.0)
    np.testing.assert_allclose(lab.learn(game, 0), known, rtol=0.02)
    gap, plain = np.abs(np.diff(known)), np.abs(np.diff(munchausen_q(game, 0.0, 0.2, -1.0)))
    assert (gap > plain).all()  # the gap between the actions is what it widens


@pytest.mark.parametrize(
    "other, words",
    [
        ({"head": "categorical"}, "--head categorical"),
        ({"target_epsilon": 0.1}, "--target-epsilon 0.1"),
        ({"advantage_alpha": 0.5}, "--advantage-alpha 0.5"),
    ],
)
def test_what_contradicts_a_soft_policy_is_refused_in_one_line(other, words):
    with pytest.raises(UserError, match=f"--munchausen-alpha 0.9: .* {words}; use one or the other"):
        configuration.resolve({"munchausen_alpha": 0.9, **other})
    with pytest.raises(ValueError, match=r"munchausen_alpha 0\.9: does not go with"):
        DQN((4, 4, 1), 2, munchausen_alpha=0.9, **other)
    told = []  # the cave's preset has the first two, and they give way
    config = configuration.resolve({"env": "cave", "munchausen_alpha": 0.9}, tell=told.append)
    assert (config.head, config.target_epsilon, len(told)) == ("scalar", 0.0, 2)
