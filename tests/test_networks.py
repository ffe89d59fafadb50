"""The convolution against TensorFlow's own, values and gradients, and the networks' shapes."""

import numpy as np
import pytest
import tensorflow as tf

from tfdqn import networks

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
    layer = networks.PatchConv2D(filters, kernel, stride, padding, "relu", seed=1)
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
        networks.PatchConv2D(4, 3, padding="full")


def test_patch_conv_round_trips_through_its_config():
    layer = networks.PatchConv2D(4, 3, 2, "valid", "relu", seed=7, name="c")
    copy = networks.PatchConv2D.from_config(layer.get_config())
    assert copy.get_config() == layer.get_config()


@pytest.mark.parametrize("name, shape", [("mlp", (8, 8, 1)), ("conv", (16, 16, 1)), ("conv_stride4", (48, 48, 4))])
def test_networks_map_frames_to_units_and_follow_their_seed(name, shape):
    frames = tf.constant(np.random.default_rng(0).integers(0, 256, (5, *shape)), tf.uint8)
    first, same, other = (networks.build(name, shape, 3, seed, "net") for seed in (1, 1, 2))
    assert first(frames).shape == (5, 3)
    assert first(frames).dtype == tf.float32
    np.testing.assert_array_equal(first(frames), same(frames))
    assert not np.array_equal(first(frames), other(frames))


def test_the_articles_cave_network_has_its_size():
    """Convolutions 16 4x4/2, 32 2x2, 32 2x2, dense 128, 2 actions, on 48 x 48 x 4."""
    convolutions = (4 * 4 * 4 + 1) * 16 + (2 * 2 * 16 + 1) * 32 + (2 * 2 * 32 + 1) * 32
    assert networks.build("conv", (48, 48, 4), 2, 0, "net").count_params() == (
        convolutions + (24 * 24 * 32 + 1) * 128 + 129 * 2
    )
