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


@pytest.mark.parametrize("channels, filters, width", [(1, 5, 1), (2, 8, 2), (4, 3, 6)])
@pytest.mark.parametrize("jit", [False, True])
def test_column_dense_is_a_convolution_as_high_as_the_screen(channels, filters, width, jit):
    rows, columns = 10, 12
    levels = np.random.default_rng(0).integers(0, 256, (3, rows, columns, channels)).astype(np.uint8)
    layer = networks.ColumnDense(filters, width, "relu", seed=1)
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
        networks.ColumnDense(3, 4)(tf.zeros([1, 6, 10, 1], tf.uint8))
    layer = networks.ColumnDense(3, 4, "relu", seed=5, name="c")
    assert networks.ColumnDense.from_config(layer.get_config()).get_config() == layer.get_config()


@pytest.mark.parametrize("jit", [False, True])
def test_dueling_head_joins_value_and_advantages(jit):
    head = networks.ScalarHead(3, dueling=True)
    output = tf.constant([[10.0, 1.0, 2.0, 6.0], [-1.0, 0.0, 0.0, 0.0]])
    values = tf.function(head.values, jit_compile=jit)(output)
    np.testing.assert_allclose(values, [[8.0, 9.0, 13.0], [-1.0, -1.0, -1.0]])


def test_dueling_streams_share_the_body_and_nothing_else():
    network = networks.build("mlp", (8, 8, 1), networks.ScalarHead(3, dueling=True), 1, "net")
    # Body 64 -> 64; a hidden layer of 32 and an output for the value, and for the three advantages.
    assert network.count_params() == 65 * 64 + 2 * 65 * 32 + 33 * 1 + 33 * 3
    frames = tf.constant(np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1)), tf.uint8)
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(network(frames)[:, 0])
    gradients = tape.gradient(value, network.trainable_variables, unconnected_gradients="zero")
    reached = [bool(tf.reduce_any(gradient != 0)) for gradient in gradients]
    assert sum(reached) == 6 and len(reached) == 10  # body, hidden and output of the value: weights and biases


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("dueling", [False, True])
def test_categorical_head_learns_by_the_gradient_of_a_cross_entropy(dueling, jit):
    head = networks.CategoricalHead(2, dueling, atoms=3, value_min=-1.0, value_max=0.0)
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
            networks.CategoricalHead(2, False, atoms, low, high)


@pytest.mark.parametrize("jit", [False, True])
def test_an_ensemble_plays_by_the_mean_and_each_member_learns_by_itself(jit):
    ensemble = networks.Ensemble(networks.ScalarHead(2), 2)
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


def test_members_begin_apart_and_the_first_is_the_one_that_stands_alone():
    frames = tf.constant(np.random.default_rng(0).integers(0, 256, (5, 48, 48, 2)), tf.uint8)
    head = networks.ScalarHead(2)
    alone = networks.build("columns", (48, 48, 2), head, 1, "net")
    ensemble = networks.build("columns", (48, 48, 2), head, 1, "net", members=3)
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
    first, same, other = (networks.build(name, shape, networks.ScalarHead(3), seed, "net") for seed in (1, 1, 2))
    assert first(frames).shape == (5, 3)
    assert first(frames).dtype == tf.float32
    np.testing.assert_array_equal(first(frames), same(frames))
    assert not np.array_equal(first(frames), other(frames))


def test_residual_layers_add_to_what_they_are_given():
    """With their matrices at zero, `columns_deep` is `columns`, which has the same other weights."""
    frames = tf.constant(np.random.default_rng(0).integers(0, 256, (5, 48, 48, 2)), tf.uint8)
    plain, deep = (
        networks.build(name, (48, 48, 2), networks.ScalarHead(2), 1, "net") for name in ("columns", "columns_deep")
    )
    assert not np.allclose(deep(frames), plain(frames))
    dense = [layer for layer in deep.layers if isinstance(layer, tf.keras.layers.Dense)]
    residual = [layer for layer in dense if layer.kernel.shape == (256, 256)]
    assert len(residual) == networks.DEEP_LAYERS
    for layer in residual:
        layer.kernel.assign(tf.zeros_like(layer.kernel))
    np.testing.assert_allclose(deep(frames), plain(frames), rtol=1e-5, atol=1e-6)


def test_the_articles_cave_network_has_its_size():
    """Convolutions 16 4x4/2, 32 2x2, 32 2x2, dense 128, 2 actions, on 48 x 48 x 4."""
    convolutions = (4 * 4 * 4 + 1) * 16 + (2 * 2 * 16 + 1) * 32 + (2 * 2 * 32 + 1) * 32
    assert networks.build("conv", (48, 48, 4), networks.ScalarHead(2), 0, "net").count_params() == (
        convolutions + (24 * 24 * 32 + 1) * 128 + 129 * 2
    )
