"""Recurrent cells: against Keras's layers and float64, beginnings in a sequence, gradients; eager, graph and XLA."""

import numpy as np
import pytest
import tensorflow as tf

from tfdqn.networks.cells import CELLS
from tfdqn.runtime import compiled

WRAP = {"eager": lambda function: function, "graph": tf.function, "xla": compiled.xla}
STEPS, BATCH, INPUTS, UNITS = 7, 3, 4, 5


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


def lstm_step(x, state, kernel, recurrent, bias):
    hidden, cell = state
    i, f, g, o = np.split(x @ kernel + hidden @ recurrent + bias, 4, axis=-1)
    cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(cell), cell


def gru_step(x, state, kernel, recurrent, bias, recurrent_bias):
    (hidden,) = state
    z, r, n = np.split(x @ kernel + bias, 3, axis=-1)
    z_held, r_held, n_held = np.split(hidden @ recurrent + recurrent_bias, 3, axis=-1)
    keep = sigmoid(z + z_held)
    return (keep * hidden + (1 - keep) * np.tanh(n + sigmoid(r + r_held) * n_held),)


REFERENCE = {"lstm": lstm_step, "gru": gru_step}


def make(kind, seed=0):
    cell = CELLS[kind](UNITS, seed)
    cell.build((None, INPUTS))
    rng = np.random.default_rng(seed)
    for weight in cell.weights:  # also the biases, which begin at round numbers
        weight.assign(rng.normal(0, 0.5, weight.shape))
    return cell


def sequences(seed=1):
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(STEPS, BATCH, INPUTS)).astype(np.float32)
    begins = rng.random((STEPS, BATCH)) < 0.3
    return inputs, begins, rng.normal(size=(2, BATCH, UNITS)).astype(np.float32)


def reference(kind, weights, inputs, begins, state):
    """Outputs [T, B, U] and the last state in float64, one step and one sequence at a time."""
    weights = [np.asarray(weight, np.float64) for weight in weights]
    outputs, state = np.zeros((STEPS, BATCH, UNITS)), [np.array(each, np.float64) for each in state]
    for b in range(BATCH):
        for t in range(STEPS):
            now = [np.zeros(UNITS) if begins[t, b] else each[b] for each in state]
            for each, new in zip(state, REFERENCE[kind](inputs[t, b], now, *weights), strict=True):
                each[b] = new
            outputs[t, b] = state[0][b]
    return outputs, state


@pytest.mark.parametrize("kind", CELLS)
def test_keras_says_the_same_of_the_same_weights(kind):
    cell, (inputs, _, _) = make(kind), sequences()
    layer = {"lstm": tf.keras.layers.LSTM, "gru": tf.keras.layers.GRU}[kind](UNITS, return_sequences=True)
    layer.build((None, STEPS, INPUTS))
    kernel, recurrent, *biases = cell.get_weights()
    layer.set_weights([kernel, recurrent, biases[0] if kind == "lstm" else np.stack(biases)])
    outputs, _ = cell.unroll(cell(inputs), tf.zeros([STEPS, BATCH], tf.bool), cell.initial_state(BATCH))
    expected = layer(tf.transpose(inputs, [1, 0, 2]))
    np.testing.assert_allclose(tf.transpose(outputs, [1, 0, 2]), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", WRAP)
@pytest.mark.parametrize("kind", CELLS)
def test_a_sequence_is_that_of_plain_loops_and_its_gradients_stop_where_an_episode_begins(kind, mode):
    """In float64; gradients by central differences, of a weighted sum of all outputs."""
    cell, (inputs, begins, held) = make(kind), sequences()
    at_random = begins.copy()
    begins[:, 0], begins[:, 1], begins[0, 2] = False, np.arange(STEPS) == STEPS - 1, True
    state = cell.STATE(*held[: len(cell.STATE._fields)])
    weigh = np.random.default_rng(2).normal(size=(STEPS, BATCH, UNITS)).astype(np.float32)

    def unrolled(inputs, begins, state):
        with tf.GradientTape() as tape:
            tape.watch((inputs, state))
            outputs, last = cell.unroll(cell(inputs), begins, state)
            total = tf.reduce_sum(weigh * outputs)
        return outputs, last, tape.gradient(total, [inputs, state.hidden, *cell.trainable_variables])

    run = WRAP[mode](unrolled)
    for beginning in (begins, at_random):
        given = tf.nest.map_structure(tf.constant, (inputs, beginning, state))
        outputs, last, _ = run(*given)
        expected, expected_last = reference(kind, cell.get_weights(), inputs, beginning, state)
        np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)
        for each, wanted in zip(last, expected_last, strict=True):
            np.testing.assert_allclose(each, wanted, rtol=1e-4, atol=1e-5)
    found = run(*tf.nest.map_structure(tf.constant, (inputs, begins, state)))[2]
    values = [inputs, state.hidden, *cell.get_weights()]

    def total(values):
        full = [values[1], *state[1:]]
        return np.sum(weigh * reference(kind, values[2:], values[0], begins, full)[0])

    rng = np.random.default_rng(3)
    for number, value in enumerate(values):
        for _ in range(4):
            place, slopes = tuple(rng.integers(0, value.shape)), []
            for sign in (1, -1):
                moved = [np.array(each, np.float64) for each in values]
                moved[number][place] += sign * 1e-5
                slopes.append(total(moved))
            expected = (slopes[0] - slopes[1]) / 2e-5
            np.testing.assert_allclose(found[number][place], expected, rtol=2e-3, atol=2e-4)
    assert np.all(found[0][: STEPS - 1, 0] != 0)  # through time, as far as nothing begins
    assert not np.any(found[1][2])  # a state that was dropped at once teaches nothing


def test_weights_follow_from_the_seed_and_an_lstm_begins_by_remembering():
    for kind, kinds in CELLS.items():
        same, other, more = (kinds(UNITS, seed) for seed in (3, 3, 4))
        for cell in (same, other, more):
            cell.build((None, INPUTS))
        assert all(np.array_equal(a, b) for a, b in zip(same.get_weights(), other.get_weights(), strict=True))
        assert not np.array_equal(same.get_weights()[0], more.get_weights()[0])
        product = same.get_weights()[1] @ same.get_weights()[1].T
        np.testing.assert_allclose(product, np.eye(UNITS), atol=1e-5)
        if kind == "lstm":
            np.testing.assert_array_equal(same.get_weights()[2], np.repeat([0, 1, 0, 0], UNITS))
