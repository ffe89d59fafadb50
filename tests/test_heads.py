"""What the heads say of an output, and what it learns from, by numbers worked out by hand."""

import numpy as np
import pytest
import tensorflow as tf

from tfdqn.learners.dqn import heads


@pytest.mark.parametrize("jit", [False, True])
def test_dueling_head_joins_value_and_advantages(jit):
    head = heads.ScalarHead(3, dueling=True)
    output = tf.constant([[10.0, 1.0, 2.0, 6.0], [-1.0, 0.0, 0.0, 0.0]])
    values = tf.function(head.values, jit_compile=jit)(output)
    np.testing.assert_allclose(values, [[8.0, 9.0, 13.0], [-1.0, -1.0, -1.0]])


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("dueling", [False, True])
def test_categorical_head_learns_by_the_gradient_of_a_cross_entropy(dueling, jit):
    head = heads.CategoricalHead(2, dueling, atoms=3, value_min=-1.0, value_max=0.0)
    rng = np.random.default_rng(5)
    output = rng.normal(size=(4, 9 if dueling else 6)).astype(np.float32)
    action, target = np.array([0, 1, 1, 0], np.int32), rng.dirichlet(np.ones(3), 4).astype(np.float32)

    def run(output):
        with tf.GradientTape() as tape:
            tape.watch(output)
            loss, td_error = head.loss(output, tf.constant(action), tf.constant(target))
            total = tf.reduce_sum(loss)
        return head.values(output), loss, td_error, tape.gradient(total, output)

    values, loss, td_error, gradient = tf.function(run, jit_compile=jit, autograph=False)(tf.constant(output))
    logits = output.astype(np.float64)
    if dueling:
        value, advantage = logits[:, None, :3], logits[:, 3:].reshape(4, 2, 3)
        logits = value + advantage - advantage.mean(1, keepdims=True)
    logits = logits.reshape(4, 2, 3)
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    atoms, rows = np.array([-1.0, -0.5, 0.0]), np.arange(4)
    np.testing.assert_allclose(values, shares @ atoms, rtol=1e-4)
    np.testing.assert_allclose(loss, -(target * np.log(shares[rows, action])).sum(-1), rtol=1e-4)
    np.testing.assert_allclose(td_error, shares[rows, action] @ atoms - target @ atoms, atol=1e-5)
    slope = np.zeros((4, 2, 3))
    slope[rows, action] = shares[rows, action] - target
    if dueling:
        expected = np.concatenate([slope.sum(1), (slope - slope.mean(1, keepdims=True)).reshape(4, 6)], axis=1)
    else:
        expected = slope.reshape(4, 6)
    np.testing.assert_allclose(gradient, expected, atol=1e-5)


def test_categorical_head_refuses_what_is_no_distribution():
    for atoms, low, high in [(1, -1.0, 1.0), (51, 1.0, 1.0), (51, 1.0, 0.0)]:
        with pytest.raises(ValueError, match="no distribution"):
            heads.CategoricalHead(2, False, atoms, low, high)


@pytest.mark.parametrize("jit", [False, True])
def test_an_ensemble_plays_by_the_mean_and_each_member_learns_by_itself(jit):
    ensemble = heads.Ensemble(heads.ScalarHead(2), 2)
    output = tf.constant([[0.5, 0.1, 0.3, 0.5], [0.0, 1.0, 0.4, 0.2]])
    action, reward, discount = tf.constant([1, 0]), tf.constant([1.0, -1.0]), tf.constant([0.5, 0.0])
    next_output = tf.constant([[0.0, 0.2, 0.6, 0.2], [9.0, 9.0, 9.0, 9.0]])

    def run(output):
        with tf.GradientTape() as tape:
            tape.watch(output)
            # The mean values of the next state, 0.3 and 0.2, choose action 0, for which the members say 0 and 0.6.
            target = ensemble.target(reward, discount, next_output, ensemble.values(next_output))
            loss, td_error = ensemble.loss(output, action, target)
            total = tf.reduce_sum(loss)
        return ensemble.values(output), target, loss, td_error, tape.gradient(total, output)

    values, target, loss, td_error, gradient = tf.function(run, jit_compile=jit, autograph=False)(output)
    np.testing.assert_allclose(values, [[0.4, 0.3], [0.2, 0.6]], rtol=1e-6)
    np.testing.assert_allclose(target, [1.0 + 0.5 * 0.3, -1.0], rtol=1e-6)
    # TD errors 0.1 - 1.15 and 0.5 - 1.15; 0 + 1 and 0.4 + 1: Huber losses beyond 1 grow as the error does.
    np.testing.assert_allclose(loss, [(1.05 - 0.5) + 0.65**2 / 2, 0.5 + (1.4 - 0.5)], rtol=1e-5)
    np.testing.assert_allclose(td_error, [-0.85, 1.2], rtol=1e-5)
    np.testing.assert_allclose(gradient, [[0.0, -1.0, 0.0, -0.65], [1.0, 0.0, 1.0, 0.0]], rtol=1e-5)
