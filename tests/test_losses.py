"""Each equation by hand-sized numbers: values, gradients, and what must not change them."""

import numpy as np
import pytest
import tensorflow as tf

from tfdqn.learners import losses

MODES = {
    "eager": lambda function: function,
    "graph": lambda function: tf.function(function, autograph=False),
    "xla": lambda function: tf.function(function, autograph=False, jit_compile=True),
}


@pytest.fixture(params=MODES)
def mode(request):
    """Every equation runs op by op, as a graph and under XLA."""
    return MODES[request.param]


def test_td_target_discounts_the_next_value_and_stops_at_termination(mode):
    target = mode(losses.td_target)(tf.constant([1.0, -1.0]), tf.constant([0.9, 0.0]), tf.constant([10.0, 5.0]))
    np.testing.assert_allclose(target, [10.0, -1.0])


def test_td_target_ignores_an_infinite_value_behind_termination(mode):
    target = mode(losses.td_target)(tf.constant([1.0]), tf.constant([0.0]), tf.constant([np.inf], tf.float32))
    np.testing.assert_array_equal(target, [1.0])


def test_max_value_takes_the_target_networks_best(mode):
    np.testing.assert_array_equal(mode(losses.max_value)(tf.constant([[1.0, 3.0, 2.0]])), [3.0])


def test_double_value_reads_the_target_at_the_online_networks_choice(mode):
    online, target = tf.constant([[0.0, 2.0, 1.0]]), tf.constant([[7.0, 4.0, 9.0]])
    np.testing.assert_array_equal(mode(losses.double_value)(online, target), [4.0])


def test_taken_picks_the_numbers_of_the_action_and_survives_infinities(mode):
    numbers = tf.constant([[[1.0, 2.0], [np.inf, np.nan]], [[-np.inf, 0.0], [5.0, 6.0]]], tf.float32)
    np.testing.assert_array_equal(mode(losses.taken)(numbers, tf.constant([0, 1])), [[1.0, 2.0], [5.0, 6.0]])


def test_categorical_target_shares_each_outcome_between_the_atoms_beside_it(mode):
    atoms = tf.constant([-1.0, -0.5, 0.0])
    target = mode(losses.categorical_target)(
        tf.constant([0.0, -1.0, 0.1, -0.25]),
        tf.constant([0.9, 0.0, 1.0, 0.5]),
        tf.constant([[1.0, 0.0, 0.0], [0.2, 0.3, 0.5], [0.2, 0.3, 0.5], [0.0, 1.0, 0.0]]),
        atoms,
    )
    # -0.9 lies between -1 and -0.5; a death is -1 whatever follows; -0.9, -0.4 and 0.1, the last beyond the atoms;
    # -0.25 - 0.25 is the middle atom.
    expected = [[0.8, 0.2, 0.0], [1.0, 0.0, 0.0], [0.16, 0.04 + 0.24, 0.06 + 0.5], [0.0, 1.0, 0.0]]
    np.testing.assert_allclose(target, expected, atol=1e-6)


def test_a_categorical_target_keeps_the_mean_of_the_outcomes(mode):
    rng = np.random.default_rng(0)
    atoms = np.linspace(-2, 3, 11).astype(np.float32)
    probabilities = rng.dirichlet(np.ones(11), 20).astype(np.float32)
    reward, discount = rng.uniform(-0.1, 0.1, 20).astype(np.float32), rng.uniform(0, 0.9, 20).astype(np.float32)
    target = mode(losses.categorical_target)(*map(tf.constant, (reward, discount, probabilities, atoms)))
    np.testing.assert_allclose(np.sum(target, 1), 1, rtol=1e-5)
    np.testing.assert_allclose(target.numpy() @ atoms, reward + discount * (probabilities @ atoms), atol=1e-5)


def test_expected_over_actions_mixes_the_greedy_action_with_the_mean_of_all(mode):
    greedy, each = tf.constant([3.0]), tf.constant([[1.0, 3.0, -1.0]])
    np.testing.assert_allclose(mode(lambda g, e: losses.expected_over_actions(g, e, 0.25))(greedy, each), [2.5])
    infinite = tf.constant([[np.inf, 3.0, -np.inf]], tf.float32)
    np.testing.assert_array_equal(mode(lambda g, e: losses.expected_over_actions(g, e, 0.0))(greedy, infinite), [3.0])


def test_advantage_learning_takes_a_part_of_the_lag_off_the_reward(mode):
    q = tf.constant([[1.0, 3.0, -1.0], [1.0, 3.0, -1.0], [2.0, 2.0, 0.0]])
    action, reward = tf.constant([0, 1, 1]), tf.constant([5.0, 5.0, 5.0])
    run = mode(lambda *given: losses.advantage_learning(*given, 0.75))
    np.testing.assert_allclose(run(reward, q, action), [5.0 - 0.75 * 2, 5.0, 5.0])
    assert losses.advantage_learning(reward, q, action, 0.0) is reward


def test_advantage_learning_keeps_the_best_value_and_widens_the_gap():
    """Iterated to its fixed point in a choice between returns 1 and 0.8, with alpha 0.9: 1 and 1 - 0.2 * 10."""
    q = tf.zeros([2, 2])
    for _ in range(300):
        q = tf.stack([losses.advantage_learning(tf.constant([1.0, 0.8]), q, tf.constant([0, 1]), 0.9)] * 2)
    np.testing.assert_allclose(q[0], [1.0, -1.0], atol=1e-4)


def test_dueling_value_joins_value_and_advantages(mode):
    values = mode(losses.dueling_value)(tf.constant([[[10.0]]]), tf.constant([[[1.0], [2.0], [6.0]]]))
    np.testing.assert_allclose(values[0, :, 0], [8.0, 9.0, 13.0])


def test_masked_value_picks_the_taken_action_and_survives_infinities(mode):
    q = tf.constant([[1.0, np.inf, 3.0], [-np.inf, 5.0, 6.0]], tf.float32)
    np.testing.assert_array_equal(mode(losses.masked_value)(q, tf.constant([2, 1])), [3.0, 5.0])


def test_huber_matches_its_definition(mode):
    error = np.linspace(-3, 3, 10_001).astype(np.float32)
    expected = np.where(np.abs(error) <= 1, 0.5 * error**2, np.abs(error) - 0.5)
    np.testing.assert_allclose(mode(losses.huber)(tf.constant(error)), expected, atol=1e-6)


def test_hubers_gradient_is_the_clipped_error(mode):
    error = np.concatenate([np.linspace(-3, 3, 10_001), [1e6, -1e6, 0.0, 1.0, -1.0]]).astype(np.float32)

    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = losses.huber(x)
        return tape.gradient(loss, x)

    np.testing.assert_allclose(mode(gradient)(tf.constant(error)), np.clip(error, -1, 1), atol=1e-6)


def test_gradient_reaches_only_the_taken_action(mode):
    def gradient(q, action, target):
        with tf.GradientTape() as tape:
            tape.watch(q)
            loss = tf.reduce_mean(losses.huber(losses.masked_value(q, action) - target))
        return tape.gradient(loss, q)

    rng = np.random.default_rng(0)
    q, action = rng.normal(size=(1000, 3)).astype(np.float32), rng.integers(0, 3, 1000).astype(np.int32)
    target = rng.normal(scale=2, size=1000).astype(np.float32)
    result = mode(gradient)(tf.constant(q), tf.constant(action), tf.constant(target)).numpy()
    expected = np.zeros_like(q)
    rows = np.arange(1000)
    expected[rows, action] = np.clip(q[rows, action].astype(np.float64) - target, -1, 1) / 1000
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-9)
    expected[rows, action] = 1
    assert np.all(result[expected == 0] == 0)


def test_squared_is_half_the_square(mode):
    np.testing.assert_allclose(mode(losses.squared)(tf.constant([3.0, -2.0])), [4.5, 2.0])


def test_greedy_action_takes_the_first_of_equals(mode):
    np.testing.assert_array_equal(mode(losses.greedy_action)(tf.constant([[1.0, 2.0, 2.0], [0.0, 0.0, 0.0]])), [1, 0])


def rescaled(value, epsilon):
    """As in the paper, in float64."""
    value = np.asarray(value, np.float64)
    return np.sign(value) * (np.sqrt(np.abs(value) + 1) - 1) + epsilon * value


def unscaled(value, epsilon):
    value = np.asarray(value, np.float64)
    root = (np.sqrt(1 + 4 * epsilon * (np.abs(value) + 1 + epsilon)) - 1) / (2 * epsilon)
    return np.sign(value) * (root**2 - 1)


RETURNS = np.concatenate([np.linspace(-5, 5, 1001), [1e-6, -1e-4, 300.0, -1e4, 1e6]]).astype(np.float32)


def test_values_are_rescaled_as_in_the_paper(mode):
    for epsilon in (1e-3, 0.1):
        np.testing.assert_allclose(
            mode(lambda x, e=epsilon: losses.rescale(x, e))(RETURNS), rescaled(RETURNS, epsilon), rtol=1e-6, atol=1e-12
        )
        np.testing.assert_allclose(
            mode(lambda x, e=epsilon: losses.unscale(x, e))(RETURNS), unscaled(RETURNS, epsilon), rtol=2e-6, atol=1e-9
        )
    # By hand: sqrt(3 + 1) - 1 = 1 and sqrt(8 + 1) - 1 = 2, without and with a tenth of the value itself.
    hand = tf.constant([3.0, -8.0, 0.0])
    np.testing.assert_array_equal(mode(lambda x: losses.rescale(x, 0.0))(hand), [1.0, -2.0, 0.0])
    np.testing.assert_allclose(mode(lambda x: losses.rescale(x, 0.1))(hand), [1.3, -2.8, 0.0])
    np.testing.assert_array_equal(mode(lambda x: losses.unscale(x, 0.0))(tf.constant([1.0, -2.0])), [3.0, -8.0])
    np.testing.assert_allclose(mode(lambda x: losses.unscale(x, 0.1))(tf.constant([1.3, -2.8])), [3.0, -8.0], rtol=1e-6)


def test_rescaling_and_its_inverse_undo_each_other_to_the_last_digits(mode):
    both = mode(lambda x: losses.unscale(losses.rescale(x, 1e-3), 1e-3))
    np.testing.assert_allclose(both(RETURNS), RETURNS, rtol=2e-6)


def test_the_slope_of_rescaling_is_known_everywhere(mode):
    def slope(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = losses.rescale(x, 1e-3)
        return tape.gradient(y, x)

    expected = 0.5 / np.sqrt(np.abs(RETURNS.astype(np.float64)) + 1) + 1e-3
    np.testing.assert_allclose(mode(slope)(tf.constant(RETURNS)), expected, rtol=1e-5)
    assert mode(slope)(tf.constant([0.0])).numpy() == np.float32(0.501)
