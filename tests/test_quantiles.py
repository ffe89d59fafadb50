"""Quantiles of returns: the loss against NumPy in float64, the head by hand, and known distributions."""

import numpy as np
import pytest
import tensorflow as tf

from tests.finite import DISCOUNT, MODES, Lab, rules
from tfdqn import config as configuration
from tfdqn.learners import losses
from tfdqn.learners.dqn import heads
from tfdqn.learners.dqn.agent import DQN
from tfdqn.runs import donor

WRAPS = {
    "eager": lambda function: function,
    "graph": lambda function: tf.function(function, autograph=False),
    "xla": lambda function: tf.function(function, autograph=False, jit_compile=True),
}


@pytest.fixture(params=WRAPS)
def mode(request):
    """Every equation runs op by op, as a graph and under XLA."""
    return WRAPS[request.param]


def reference(quantiles, taus, returns, shares, kappa):
    """The equation of Dabney et al. 2018a and its gradient for the quantiles, pair by pair in float64."""
    loss, slope = np.zeros(len(quantiles)), np.zeros(quantiles.shape)
    taus = np.broadcast_to(taus, quantiles.shape)
    for b, i in np.ndindex(*quantiles.shape):
        for j in range(returns.shape[1]):
            u = float(returns[b, j]) - float(quantiles[b, i])
            weight = shares[b, j] * abs(taus[b, i] - (u < 0))
            loss[b] += weight * (u * u / 2 / kappa if abs(u) <= kappa else abs(u) - kappa / 2)
            slope[b, i] -= weight * np.clip(u / kappa, -1, 1)
    return loss, slope


@pytest.mark.parametrize("kappa", [1e-3, 0.5, 1.0, 20.0])
def test_the_loss_and_its_gradient_are_those_of_the_paper(mode, kappa):
    dice = np.random.default_rng(1)
    quantiles, returns = dice.normal(scale=2, size=(6, 5)), dice.normal(scale=2, size=(6, 7))
    shares = dice.dirichlet(np.ones(7), 6)
    given = [tf.constant(x, tf.float32) for x in (quantiles, returns, shares)]

    def run(quantiles, taus):
        with tf.GradientTape() as tape:
            tape.watch(quantiles)
            loss = losses.quantile_huber(quantiles, taus, *given[1:], kappa)
        return loss, tape.gradient(loss, quantiles)

    for taus in (np.array([0.1, 0.3, 0.5, 0.7, 0.9]), dice.uniform(size=(6, 5))):  # the same for all, or each its own
        loss, slope = mode(run)(given[0], tf.constant(taus, tf.float32))
        expected, expected_slope = reference(quantiles, taus, returns, shares, kappa)
        np.testing.assert_allclose(loss, expected, rtol=1e-4)
        np.testing.assert_allclose(slope, expected_slope, rtol=1e-3, atol=1e-5)


def test_the_loss_by_hand(mode):
    """Quantiles 1/4 and 3/4 at 0, returns -2 and 0.5: linear beyond 1, a square within."""
    run = mode(lambda: losses.quantile_huber(tf.zeros([1, 2]), tf.constant([0.25, 0.75]), RETURNS, HALVES, 1.0))
    # Above the quantile counts tau, below 1 - tau: (0.75 + 0.25) * 1.5 / 2 + (0.25 + 0.75) * 0.125 / 2.
    np.testing.assert_allclose(run(), [0.75 + 0.0625])


RETURNS, HALVES = tf.constant([[-2.0, 0.5]]), tf.constant([[0.5, 0.5]])


def test_its_least_is_at_the_quantiles():
    """Of the returns 0, 1, 2, 3: the middles of four shares are these themselves."""
    returns, shares = tf.constant([[0.0, 1.0, 2.0, 3.0]]), tf.fill([1, 4], 0.25)
    taus = tf.constant([0.125, 0.375, 0.625, 0.875])

    def body(step, quantiles):
        with tf.GradientTape() as tape:
            tape.watch(quantiles)
            loss = losses.quantile_huber(quantiles, taus, returns, shares, 1e-3)
        return step + 1, quantiles - 0.1 / (1 + step / 100) * tape.gradient(loss, quantiles)

    def descend(start):
        return tf.while_loop(lambda step, _: step < 3000, body, (tf.constant(0.0), start))[1]

    quantiles = tf.function(descend, autograph=False, jit_compile=True)(tf.zeros([1, 4]))
    np.testing.assert_allclose(quantiles[0], [0, 1, 2, 3], atol=0.01)


# --- The head ---


def test_values_and_targets_of_the_head_by_hand(mode):
    head = heads.QuantileHead(2, False, 2)
    output = tf.constant([[0.0, 2.0, 3.0, 5.0]])  # values 1 and 4
    np.testing.assert_array_equal(mode(head.values)(output), [[1.0, 4.0]])
    run = mode(lambda q: head.target(tf.constant([1.0]), tf.constant([0.5]), output, q))
    # Of the action that others choose, not of the one that looks best.
    target = run(tf.constant([[9.0, 0.0]]))
    np.testing.assert_array_equal(target.returns, [[1.0, 2.0]])
    np.testing.assert_array_equal(target.shares, [[0.5, 0.5]])
    loss, td_error = mode(lambda: head.loss(output, tf.constant([1]), target))()
    np.testing.assert_allclose(td_error, [4.0 - 1.5])
    expected, _ = reference(np.array([[3.0, 5.0]]), [0.25, 0.75], np.array([[1.0, 2.0]]), np.full((1, 2), 0.5), 1.0)
    np.testing.assert_allclose(loss, expected)


def test_an_epsilon_greedy_players_returns_are_an_exact_mixture(mode):
    """Three actions of two quantiles; the third is illegal and worth no number. A fifth of the actions is random."""
    head = heads.QuantileHead(3, False, 2, target_epsilon=0.2)
    output = tf.constant([[0.0, 2.0, 3.0, 5.0, np.inf, np.nan]] * 2, tf.float32)
    legal = tf.constant([[True, True, False], [False, False, False]])
    reward, discount = tf.constant([1.0, 7.0]), tf.constant([1.0, 0.0])
    target = mode(lambda: head.target(reward, discount, output, head.values(output), legal))()
    found = {}
    for value, share in zip(target.returns[0].numpy(), target.shares[0].numpy(), strict=True):
        found[value] = found.get(value, 0.0) + share
    assert found.pop(1.0) == pytest.approx(0.05) and found.pop(3.0) == pytest.approx(0.05)
    assert found.pop(4.0) == pytest.approx(0.45) and found.pop(6.0) == pytest.approx(0.45)
    assert not any(found.values())
    np.testing.assert_array_equal(target.returns[1], np.full(8, 7.0))  # where the game is over nothing follows
    np.testing.assert_allclose(np.sum(target.shares, 1), 1.0, rtol=1e-6)


def test_members_learn_from_the_mixture_of_their_returns(mode):
    ensemble = heads.Ensemble(heads.QuantileHead(2, False, 2), 2)
    output = tf.constant([[0.0, 2.0, 3.0, 5.0, 1.0, 1.0, 7.0, 9.0]])
    np.testing.assert_array_equal(mode(ensemble.values)(output), [[1.0, 6.0]])
    one, zero = tf.constant([1.0]), tf.constant([0.0])
    target = mode(lambda: ensemble.target(zero, one, output, ensemble.values(output)))()
    np.testing.assert_array_equal(target.returns, [[3.0, 5.0, 7.0, 9.0]])
    np.testing.assert_array_equal(target.shares, [[0.25] * 4])


# --- A known distribution ---

# From the first state to one of four, whose reward is 0, 1, 2 or 3; the other action pays 1 at once.
DRAW = rules(
    [[0.0, 1.0], [0.0, 0.0], [1.0, 1.0], [2.0, 2.0], [3.0, 3.0]],
    [[[1, 2, 3, 4], [0, 0, 0, 0]], *[[[0] * 4] * 2] * 4],
    [[False, True], *[[True, True]] * 4],
)


@pytest.mark.parametrize("name", ["xla", pytest.param("graph", marks=pytest.mark.slow)])
def test_the_quantiles_of_a_draw_are_learnt(name):
    settings = {"head": "quantile", "quantiles": 4, "huber_kappa": 0.01, "target_update_period_updates": 10}
    lab = Lab(3000, **settings, **MODES[name])
    values = lab.learn(DRAW, 0)
    np.testing.assert_allclose(values[0], [DISCOUNT * 1.5, 1.0], atol=0.05)
    agent, frame = lab.trainer.agent, tf.constant(DRAW.frames[:1, :, :, None])
    quantiles = np.reshape(agent.online(frame), [2, 4])
    np.testing.assert_allclose(np.sort(quantiles[0]), DISCOUNT * np.arange(4.0), atol=0.1)
    np.testing.assert_allclose(quantiles[1], np.ones(4), atol=0.05)


def test_an_agent_with_quantiles_is_saved_and_loaded(tmp_path):
    given = {"head": "quantile", "quantiles": 7, "huber_kappa": 0.5}
    agent = DQN((4, 4, 1), 2, **given)
    agent.save(tmp_path / "agent.keras")
    loaded = tf.keras.models.load_model(tmp_path / "agent.keras")
    assert loaded.get_config() == agent.get_config() and given.items() <= loaded.get_config().items()
    frames = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 1)).astype(np.uint8)
    np.testing.assert_array_equal(loaded(frames), agent(frames))


def test_weights_of_another_number_of_quantiles_do_not_fit():
    ours, theirs = (configuration.resolve({"head": "quantile", "quantiles": count}) for count in (5, 7))
    assert donor.differences(ours, theirs) == ["quantiles"]
    assert donor.differences(*(config.replace(head="scalar") for config in (ours, theirs))) == []
