"""The layers that read screens, against TensorFlow's own convolution: values and gradients."""

import numpy as np
import pytest
import tensorflow as tf

from tfdqn.networks import layers

# side, channels, filters, kernel, stride, padding: the article's, the presets', and awkward ones.
SHAPES = [
    (48, 4, 16, 4, 2, "same"),
    (24, 16, 32, 2, 1, "same"),
    (24, 32, 32, 2, 1, "same"),
    (48, 4, 16, 8, 4, "same"),
    (48, 4, 16, 8, 4, "valid"),
    (12, 16, 32, 4, 2, "same"),
    (11, 16, 32, 4, 2, "same"),
    (16, 1, 16, 4, 2, "same"),
    (17, 3, 5, 3, 2, "same"),
    (15, 2, 3, 4, 2, "valid"),
    (47, 4, 8, 8, 4, "valid"),
    (9, 2, 3, 5, 3, "same"),
    (9, 8, 3, 2, 3, "valid"),
]


def _layer_and_reference(filters, kernel, stride, padding, inputs):
    layer = layers.PatchConv2D(filters, kernel, stride, padding, "relu", seed=1)
    layer(inputs)
    layer.bias.assign(np.random.default_rng(1).normal(size=filters))

    def reference(x):
        return tf.nn.relu(tf.nn.conv2d(x, layer.kernel, stride, padding.upper()) + layer.bias)

    return layer, reference


@pytest.mark.parametrize("side, channels, filters, kernel, stride, padding", SHAPES)
@pytest.mark.parametrize("jit", [False, True])
def test_patch_conv_equals_conv2d_in_values_and_gradients(side, channels, filters, kernel, stride, padding, jit):
    inputs = tf.constant(np.random.default_rng(0).random((3, side, side, channels), np.float32))
    layer, reference = _layer_and_reference(filters, kernel, stride, padding, inputs)

    def both(function, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = function(x)
            loss = tf.reduce_sum(tf.square(outputs))
        return outputs, tape.gradient(loss, [x, layer.kernel, layer.bias])

    ours = tf.function(lambda x: both(layer, x), jit_compile=jit, autograph=False)
    outputs, gradients = ours(inputs)
    expected_outputs, expected_gradients = both(reference, inputs)
    np.testing.assert_allclose(outputs, expected_outputs, rtol=1e-4, atol=1e-5)
    for gradient, expected in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("side, channels, filters, kernel, stride, padding", SHAPES[:8])
def test_patch_conv_reads_uint8_as_levels_over_255(side, channels, filters, kernel, stride, padding):
    levels = np.random.default_rng(0).integers(0, 256, (2, side, side, channels)).astype(np.uint8)
    floats = tf.constant(levels / 255, tf.float32)
    layer, _ = _layer_and_reference(filters, kernel, stride, padding, floats)
    np.testing.assert_allclose(layer(tf.constant(levels)), layer(floats), rtol=1e-4, atol=1e-5)


def test_patch_conv_refuses_an_unknown_padding():
    with pytest.raises(ValueError, match="'same' or 'valid'"):
        layers.PatchConv2D(4, 3, padding="full")


def test_patch_conv_round_trips_through_its_config():
    layer = layers.PatchConv2D(4, 3, 2, "valid", "relu", seed=7, name="c")
    copy = layers.PatchConv2D.from_config(layer.get_config())
    assert copy.get_config() == layer.get_config()


@pytest.mark.parametrize("channels, filters, width", [(1, 5, 1), (2, 8, 2), (4, 3, 6)])
@pytest.mark.parametrize("jit", [False, True])
def test_column_dense_is_a_convolution_as_high_as_the_screen(channels, filters, width, jit):
    rows, columns = 10, 12
    levels = np.random.default_rng(0).integers(0, 256, (3, rows, columns, channels)).astype(np.uint8)
    layer = layers.ColumnDense(filters, width, "relu", seed=1)
    layer(tf.constant(levels))
    layer.bias.assign(np.random.default_rng(1).normal(size=filters))
    # Inputs in the layer's order: frame, column of the group, row.
    kernel = tf.transpose(tf.reshape(layer.kernel, [channels, width, rows, filters]), [2, 1, 0, 3])

    def both(function):
        with tf.GradientTape() as tape:
            outputs = function(tf.constant(levels))
            loss = tf.reduce_sum(tf.square(outputs))
        return outputs, tape.gradient(loss, layer.trainable_variables)

    outputs, gradients = tf.function(lambda: both(layer), jit_compile=jit, autograph=False)()
    expected = tf.nn.relu(tf.nn.conv2d(levels / np.float32(255), kernel, [1, width], "VALID") + layer.bias)
    np.testing.assert_allclose(outputs, expected[:, 0], rtol=1e-4, atol=1e-5)
    slope = 2 * expected[:, 0]  # of the loss by the outputs; nothing where the output is cut off
    groups = np.transpose(levels / 255, [0, 2, 3, 1]).reshape(3, columns // width, width, channels, rows)
    groups = np.transpose(groups, [0, 1, 3, 2, 4]).reshape(-1, channels * width * rows)
    np.testing.assert_allclose(gradients[0], groups.T @ slope.numpy().reshape(-1, filters), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(gradients[1], slope.numpy().sum((0, 1)), rtol=1e-3, atol=1e-3)


def test_column_dense_refuses_columns_left_over_and_round_trips():
    with pytest.raises(ValueError, match="10 columns are no multiple of the width 4"):
        layers.ColumnDense(3, 4)(tf.zeros([1, 6, 10, 1], tf.uint8))
    layer = layers.ColumnDense(3, 4, "relu", seed=5, name="c")
    assert layers.ColumnDense.from_config(layer.get_config()).get_config() == layer.get_config()


@pytest.mark.parametrize("height, width", [(10, 10), (7, 8), (1, 2), (5, 5)])
@pytest.mark.parametrize("jit", [False, True])
def test_pooling_is_tensorflows_in_values_and_gradients(height, width, jit):
    """Values below 0 too: what is padded is never the largest."""
    inputs = tf.constant(np.random.default_rng(0).normal(size=(3, height, width, 2)) - 2, tf.float32)

    def both(function, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = function(x)
            loss = tf.reduce_sum(tf.square(outputs))
        return outputs, tape.gradient(loss, x)

    ours = tf.function(lambda x: both(layers.MaxPool(), x), jit_compile=jit, autograph=False)
    for found, expected in zip(ours(inputs), both(lambda x: tf.nn.max_pool2d(x, 3, 2, "SAME"), inputs), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)
