"""Spectral normalisation against NumPy's singular values: what layers multiply by, its gradient, when it moves on."""

import numpy as np
import pytest
import tensorflow as tf

from tests import whole_runs
from tests.faults import harness
from tfdqn import config as configuration
from tfdqn.errors import UserError
from tfdqn.learners.dqn.agent import DQN
from tfdqn.networks import layers
from tfdqn.replay.transitions import Transition

WRAPS = {
    "eager": lambda function: function,
    "xla": lambda function: tf.function(function, autograph=False, jit_compile=True),
}


@pytest.fixture(params=WRAPS)
def mode(request):
    return WRAPS[request.param]


LAYERS = {
    "dense": (lambda: layers.Dense(6, spectral=True), (5, 7), tf.float32),
    "rounded": (lambda: layers.Dense(6, True, True), (5, 7), tf.float32),
    "conv": (lambda: layers.PatchConv2D(6, 3, seed=1, spectral=True), (2, 5, 5, 2), tf.float32),
    "native conv": (lambda: layers.PatchConv2D(6, 3, seed=1, native=True, spectral=True), (2, 5, 5, 2), tf.float32),
    "columns": (lambda: layers.ColumnDense(6, 2, seed=1, spectral=True), (2, 4, 4, 2), tf.uint8),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_multiply_by_the_kernel_over_its_largest_singular_value(name, mode):
    """Once the direction is found; the layer without it, with such a kernel, computes the same."""
    make, shape, dtype = LAYERS[name]
    layer, inputs = make(), tf.cast(tf.random.stateless_uniform(shape, [1, 2], 0, 9), dtype)
    layer(inputs)
    layer.kernel.assign(np.random.default_rng(0).normal(size=layer.kernel.shape))
    train = mode(lambda: layer(inputs, training=True))
    for _ in range(60):
        train()
    kernel = layer.kernel.numpy()
    largest = np.linalg.svd(kernel.reshape(-1, 6).astype(np.float64), compute_uv=False)[0]
    plain = type(layer).from_config({**layer.get_config(), "spectral": False})
    plain(inputs)
    plain.kernel.assign(kernel / largest)
    before = layer.direction.numpy()
    tolerance = {"rtol": 0.05, "atol": 0.05} if name == "rounded" else {"rtol": 1e-3, "atol": 1e-4}
    np.testing.assert_allclose(mode(layer)(inputs), plain(inputs), **tolerance)
    np.testing.assert_array_equal(layer.direction, before)  # only updates move it
    assert [weight.name.split("/")[-1].split(":")[0] for weight in layer.trainable_weights] == ["kernel", "bias"]


def test_the_gradient_is_that_of_the_quotient(mode):
    """By central differences of K / sigma(K) in float64."""
    layer, inputs = (
        layers.Dense(3, spectral=True),
        tf.constant(np.random.default_rng(1).normal(size=(5, 4)), tf.float32),
    )
    layer(inputs)
    layer.kernel.assign(np.random.default_rng(0).normal(size=(4, 3)))
    for _ in range(100):
        layer(inputs, training=True)

    def run():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(inputs) ** 3)
        return tape.gradient(loss, layer.kernel)

    kernel = layer.kernel.numpy().astype(np.float64)

    def loss(kernel):
        return ((np.float64(inputs) @ (kernel / np.linalg.svd(kernel, compute_uv=False)[0])) ** 3).sum()

    expected = np.zeros((4, 3))
    for place in np.ndindex(4, 3):
        step = np.zeros((4, 3))
        step[place] = 1e-5
        expected[place] = (loss(kernel + step) - loss(kernel - step)) / 2e-5
    np.testing.assert_allclose(mode(run)(), expected, rtol=1e-3, atol=1e-3)


def test_an_agents_body_is_normalised_its_head_is_not_and_updates_move_on(mode):
    agent = DQN((4, 4, 1), 2, spectral_norm=True, target_update_period_updates=2)
    agent.compile(optimizer=tf.keras.optimizers.SGD(0.01))
    dense = [layer for layer in agent.online.layers if isinstance(layer, layers.Dense)]
    assert [layer.spectral for layer in dense] == [True, False, False]
    dice = np.random.default_rng(2)
    frames = tf.constant(dice.integers(0, 256, (2, 8, 4, 4, 1)), tf.uint8)
    action, reward = tf.constant(dice.integers(0, 2, 8), tf.int32), tf.constant(dice.normal(size=8), tf.float32)
    batch, learn = Transition(frames[0], action, reward, 0.9 * tf.ones([8]), frames[1]), mode(agent.learn)
    before = dense[0].direction.numpy()
    agent(frames[0])
    np.testing.assert_array_equal(dense[0].direction, before)
    for _ in range(2):
        learn(batch, tf.ones([8]))
    assert not np.array_equal(dense[0].direction, before)
    for online, target in zip(agent.online.variables, agent.target.variables, strict=True):
        np.testing.assert_array_equal(online, target)  # the copy is whole


@pytest.mark.slow
def test_a_run_that_was_broken_ends_like_an_unbroken_one(tmp_path):
    given = {"spectral_norm": True, "target": "soft", "total_env_frames": 1600}
    runs = {name: whole_runs.make_run(tmp_path / name, **given) for name in ("whole", "broken")}
    runs["whole"].train()
    whole_runs.train_until(runs["broken"], 900)
    runs["broken"].close()
    resumed = whole_runs.resume(tmp_path / "broken")
    resumed.train()
    resumed.close()
    runs["whole"].close()
    assert harness.differences(tmp_path / "whole", tmp_path / "broken") == []


def test_a_network_of_ones_own_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_network.py").write_text("def my_body(spec): ...\n")
    with pytest.raises(UserError, match=r"--spectral-norm: is of tfdqn's own networks, not of my_network\.py:my_body"):
        configuration.resolve({"spectral_norm": True, "network": "my_network.py:my_body"})
