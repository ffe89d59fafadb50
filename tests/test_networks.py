"""The networks' shapes, their seeds, and what they are made of."""

import numpy as np
import pytest
import tensorflow as tf

from tfdqn.envs import ObservationSpec
from tfdqn.learners.dqn import heads
from tfdqn.networks import catalogue, layers
from tfdqn.runtime import loops


def test_dueling_streams_share_the_body_and_nothing_else():
    network = catalogue.build("mlp", ObservationSpec((8, 8, 1)), heads.ScalarHead(3, dueling=True), 1, "net")
    # Body 64 -> 64; a hidden layer of 32 and an output for the value, and for the three advantages.
    assert network.count_params() == 65 * 64 + 2 * 65 * 32 + 33 * 1 + 33 * 3
    frames = tf.constant(np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1)), tf.uint8)
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(network(frames)[:, 0])
    gradients = tape.gradient(value, network.trainable_variables, unconnected_gradients="zero")
    reached = [bool(tf.reduce_any(gradient != 0)) for gradient in gradients]
    assert sum(reached) == 6 and len(reached) == 10  # body, hidden and output of the value: weights and biases


@pytest.mark.parametrize(
    ("body", "shape", "dueling", "apart"),
    [
        ("mlp", (8, 8, 1), True, [[5, 64]]),  # what the second stream is given
        ("columns", (48, 48, 2), False, [[5 * 24, 32]] * 2),  # what each frame's product is told
    ],
)
def test_a_gpu_keeps_products_with_a_factor_in_common_apart(body, shape, dueling, apart):
    network = catalogue.build(body, ObservationSpec(shape), heads.ScalarHead(3, dueling=dueling), 1, "net")
    frames = tf.constant(np.random.default_rng(0).integers(0, 256, (5, *shape)), tf.uint8)

    def gradients_for(device):
        @tf.function(jit_compile=True, autograph=False)
        def program():
            with loops.made_for(device), tf.GradientTape() as tape:
                loss = tf.reduce_sum(tf.square(network(frames)))
            return tape.gradient(loss, network.trainable_variables)

        operations = program.get_concrete_function().graph.get_operations()
        barriers = [each for each in operations if each.type == "XlaOptimizationBarrier"]
        return program(), [tensor.shape.as_list() for each in barriers for tensor in each.inputs]

    (wanted, none), (found, barriers) = gradients_for("/CPU:0"), gradients_for("")
    assert (none, barriers) == ([], apart)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_members_begin_apart_and_the_first_is_the_one_that_stands_alone():
    frames = tf.constant(np.random.default_rng(0).integers(0, 256, (5, 48, 48, 2)), tf.uint8)
    head = heads.ScalarHead(2)
    alone = catalogue.build("columns", ObservationSpec((48, 48, 2)), head, 1, "net")
    ensemble = catalogue.build("columns", ObservationSpec((48, 48, 2)), head, 1, "net", members=3)
    first, second, third = np.split(ensemble(frames).numpy(), 3, axis=-1)
    np.testing.assert_allclose(first, alone(frames), rtol=1e-5, atol=1e-6)
    assert not np.allclose(second, first) and not np.allclose(third, first) and not np.allclose(third, second)
    assert ensemble.count_params() == 3 * alone.count_params()


NAMES = [
    ("mlp", (8, 8, 1)),
    ("conv", (16, 16, 1)),
    ("conv_stride4", (48, 48, 4)),
    ("columns", (48, 48, 2)),
    ("columns_deep", (48, 48, 2)),
    ("columns_wide", (48, 48, 2)),
]


@pytest.mark.parametrize("name, shape", NAMES)
def test_networks_map_frames_to_units_and_follow_their_seed(name, shape):
    frames = tf.constant(np.random.default_rng(0).integers(0, 256, (5, *shape)), tf.uint8)
    first, same, other = (
        catalogue.build(name, ObservationSpec(shape), heads.ScalarHead(3), seed, "net") for seed in (1, 1, 2)
    )
    assert first(frames).shape == (5, 3)
    assert first(frames).dtype == tf.float32
    np.testing.assert_array_equal(first(frames), same(frames))
    assert not np.array_equal(first(frames), other(frames))


# "columns_wide" has the layers of "columns_deep", only wider, and those are the largest.
@pytest.mark.parametrize(
    "name, shape",
    [
        pytest.param(*each, marks=[pytest.mark.slow] * (each[0] == "columns_deep"))
        for each in NAMES
        if each[0] != "columns_wide"
    ],
)
def test_no_two_kernels_of_any_seeds_and_members_share_values(name, shape):
    """Whatever their shapes: drawn alike, a larger layer's values are a smaller one's, but for their scale."""
    places, draws = [], []
    for seed in (0, 1, 2, 3, 4, 20, 100, 1000, 1001):
        network = catalogue.build(
            name, ObservationSpec(shape), heads.ScalarHead(3, dueling=True), seed, "net", members=2
        )
        kernels = [weight.numpy() for weight in network.weights if len(weight.shape) > 1]
        assert len(kernels) >= 10
        for number, kernel in enumerate(kernels):
            fans = np.prod(kernel.shape[:-2], dtype=int) * (kernel.shape[-2] + kernel.shape[-1])
            places.append((seed, number))
            draws.append(kernel.ravel()[:8] * np.sqrt(fans / 6))  # from -1 to 1, whatever the layer's size
    assert 0.9 < np.abs(draws).max() <= 1
    apart = np.abs(np.array(draws)[:, np.newaxis] - draws).max(axis=-1)
    np.fill_diagonal(apart, 1)
    alike = [(places[i], places[j]) for i, j in np.argwhere(apart < 1e-4) if i < j]
    assert not alike, f"these (seed, kernel) share values: {alike[:5]}"


def test_residual_layers_add_to_what_they_are_given():
    """With their matrices at zero, `columns_deep` is `columns`, which has the same other weights."""
    frames = tf.constant(np.random.default_rng(0).integers(0, 256, (5, 48, 48, 2)), tf.uint8)
    plain, deep = (
        catalogue.build(name, ObservationSpec((48, 48, 2)), heads.ScalarHead(2), 1, "net")
        for name in ("columns", "columns_deep")
    )
    assert not np.allclose(deep(frames), plain(frames))
    dense = [layer for layer in deep.layers if isinstance(layer, tf.keras.layers.Dense)]
    residual = [layer for layer in dense if layer.kernel.shape == (256, 256)]
    assert len(residual) == catalogue.DEEP_LAYERS
    for layer in residual:
        layer.kernel.assign(tf.zeros_like(layer.kernel))
    np.testing.assert_allclose(deep(frames), plain(frames), rtol=1e-5, atol=1e-6)


def test_the_articles_cave_network_has_its_size():
    """Convolutions 16 4x4/2, 32 2x2, 32 2x2, dense 128, 2 actions, on 48 x 48 x 4."""
    convolutions = (4 * 4 * 4 + 1) * 16 + (2 * 2 * 16 + 1) * 32 + (2 * 2 * 32 + 1) * 32
    assert catalogue.build("conv", ObservationSpec((48, 48, 4)), heads.ScalarHead(2), 0, "net").count_params() == (
        convolutions + (24 * 24 * 32 + 1) * 128 + 129 * 2
    )


def test_the_residual_network_has_its_size_and_its_blocks_add_to_what_they_are_given():
    """Each stage: a convolution, and four more in two blocks; a screen of 10 is one of 2 behind three poolings."""
    sizes = {}
    for name, width in (("resnet", 1), ("resnet_wide", 2)):
        network = catalogue.build(name, ObservationSpec((10, 10, 4)), heads.ScalarHead(3), 1, "net")
        count, before = 0, 4
        for filters in (16 * width, 32 * width, 32 * width):
            count, before = count + (9 * before + 1) * filters + 4 * (9 * filters + 1) * filters, filters
        assert network.count_params() == count + (2 * 2 * 32 * width + 1) * 256 + 257 * 3
        sizes[name] = network
    network, frames = sizes["resnet"], np.random.default_rng(0).integers(0, 256, (3, 10, 10, 4)).astype(np.uint8)
    convolutions = [layer for layer in network.layers if isinstance(layer, layers.PatchConv2D)]
    kernels = [layer.kernel.numpy() for layer in (*convolutions, *network.layers[-2:])]
    fans = [np.prod(kernel.shape[:-2], dtype=int) * sum(kernel.shape[-2:]) for kernel in kernels]
    draws = [kernel.ravel()[:8] * np.sqrt(fan / 6) for kernel, fan in zip(kernels, fans, strict=True)]
    assert len(np.unique(np.round(draws, 3), axis=0)) == 17  # no two of one seed
    for layer in convolutions:
        layer.bias.assign(np.random.default_rng(1).normal(size=layer.bias.shape, scale=0.1))

    def convolved(layer, inputs):
        return tf.nn.conv2d(inputs, layer.kernel, 1, "SAME") + layer.bias

    expected, each = tf.constant(frames, tf.float32) / 255.0, iter(convolutions)
    for _ in range(3):
        expected = tf.nn.max_pool2d(convolved(next(each), expected), 3, 2, "SAME")
        for _ in range(2):
            inner = convolved(next(each), tf.nn.relu(expected))
            expected = expected + convolved(next(each), tf.nn.relu(inner))
    hidden, output = (layer for layer in network.layers if isinstance(layer, tf.keras.layers.Dense))
    expected = output(hidden(tf.reshape(tf.nn.relu(expected), [3, -1])))
    np.testing.assert_allclose(network(frames), expected, rtol=1e-4, atol=1e-5)
