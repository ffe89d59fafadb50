"""RMSPropGraves against golden vectors, a float64 oracle and the faults that its kind is known for."""

import json

import numpy as np
import pytest

import tfdqn  # noqa: F401  (chooses Keras 2, so it comes before tensorflow)

# isort: split
import tensorflow as tf

from tfdqn.optimizers import DQN_NATURE_EPSILON, RMSPropGraves, global_norm

PRESETS = {"graves2013": RMSPropGraves.graves2013, "dqn_nature": RMSPropGraves.dqn_nature, "seed": RMSPropGraves.seed}
GOLDEN_GRADIENTS = [1.0, -2.0, 0.5, 3.0]
GOLDEN_WEIGHTS = {  # after each of the four gradients, from weight 0, computed once in float64
    "graves2013": [-4.583492485141054e-04, -4.666736467061792e-04, -5.747494314918516e-04, -1.038697121785770e-03],
    "dqn_nature": [-1.042572070285374e-03, -5.192665143622884e-05, -2.984954867730095e-04, -1.208489525336407e-03],
    "seed": [-3.333333148148164e-03, -3.440246101065284e-03, -4.270810412078939e-03, -7.697407477240494e-03],
}
GOLDEN_ARGUMENTS = {"graves2013": {}, "dqn_nature": {}, "seed": {"learning_rate": 1e-3}}


def run(optimizer, gradients, jit_compile=True, dtype=tf.float32):
    """The weight, from 0, after each gradient of `gradients` [steps, ...], as [steps, ...]."""
    gradients = tf.constant(gradients, dtype)
    weight = tf.Variable(tf.zeros(gradients.shape[1:], dtype))
    optimizer.build([weight])

    def step(gradient):
        optimizer.apply_gradients([(gradient, weight)])
        return weight.read_value()

    if jit_compile:
        loop = tf.function(lambda all_steps: tf.map_fn(step, all_steps), jit_compile=True, autograph=False)
        return loop(gradients).numpy()
    return np.stack([step(gradient).numpy() for gradient in gradients])


def oracle(gradients, learning_rate=1e-4, rho=0.95, momentum=0.9, epsilon=1e-4):
    """Graves's equations 38-45 as printed, in float64: n, g, delta, w."""
    n = g = delta = weight = np.zeros(np.shape(gradients)[1:])
    weights = []
    for step, gradient in enumerate(np.asarray(gradients, np.float64)):
        n = rho * n + (1 - rho) * gradient**2
        g = rho * g + (1 - rho) * gradient
        rate = learning_rate(step) if callable(learning_rate) else learning_rate
        delta = momentum * delta - rate * gradient / np.sqrt(n - g**2 + epsilon)
        weight = weight + delta
        weights.append(weight)
    return np.stack(weights)


def numbers(optimizer):
    return {name: optimizer.get_config()[name] for name in ("learning_rate", "rho", "momentum", "epsilon")}


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize("jit_compile", [False, True], ids=["eager", "xla"])
@pytest.mark.parametrize("preset", PRESETS)
def test_golden_vectors(preset, jit_compile):
    optimizer = PRESETS[preset](**GOLDEN_ARGUMENTS[preset])
    np.testing.assert_allclose(run(optimizer, GOLDEN_GRADIENTS, jit_compile), GOLDEN_WEIGHTS[preset], rtol=2e-5)
    np.testing.assert_allclose(oracle(GOLDEN_GRADIENTS, **numbers(optimizer)), GOLDEN_WEIGHTS[preset], rtol=1e-12)


def test_golden_vectors_in_float64_pin_every_digit_that_the_rate_allows():
    # Keras keeps the learning rate in float32, hence 1e-7 and not 1e-15.
    weights = run(RMSPropGraves(), GOLDEN_GRADIENTS, dtype=tf.float64)
    np.testing.assert_allclose(weights, GOLDEN_WEIGHTS["graves2013"], rtol=1e-7)


@pytest.mark.parametrize("preset", PRESETS)
def test_random_gradients_follow_the_float64_oracle(preset):
    optimizer = PRESETS[preset]()
    gradients = noise(500, 20)
    expected = oracle(gradients, **numbers(optimizer))
    np.testing.assert_allclose(run(optimizer, gradients), expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())


def test_agrees_with_centered_rmsprop_of_keras_on_ordinary_gradients():
    arguments = dict(learning_rate=1e-3, rho=0.95, momentum=0.9, epsilon=1e-2)
    gradients = noise(200, 10, seed=1)
    keras = run(tf.keras.optimizers.RMSprop(centered=True, **arguments), gradients)
    np.testing.assert_allclose(run(RMSPropGraves(**arguments), gradients), keras, rtol=1e-4, atol=1e-6)


# --- P1: the variance must not turn negative when gradients are steady ---

SIZES = [1e-20, 0.13, 3.0, 32.0, 100.0, 1e3, 1e4]


def steady_gradients(steps):
    """[steps, 21]: constant, alternating and 1e-4-noisy gradients of each size."""
    sign = np.where(np.arange(steps) % 2, -1.0, 1.0)[:, None]
    shapes = [np.ones((steps, 7)), sign * np.ones(7), 1 + 1e-4 * noise(steps, 7)]
    return np.concatenate([shape * SIZES for shape in shapes], axis=1).astype(np.float32)


@pytest.mark.parametrize("preset", ["graves2013", "dqn_nature"])
def test_steady_gradients_stay_finite_and_near_float64(preset):
    gradients = steady_gradients(5_000)
    optimizer = PRESETS[preset]()
    weights = run(optimizer, gradients)
    assert np.isfinite(weights).all()
    assert all(np.isfinite(variable.numpy()).all() for variable in optimizer.variables)
    assert (optimizer._variances[0].numpy() >= 0).all()

    # Beyond 100 the float32 mean stalls short of the gradient by about ulp / (2 (1 - rho)): a floor, not a fault.
    small = np.abs(gradients).max(axis=0) < 110
    expected = oracle(gradients[:, small], **numbers(optimizer))
    first = np.zeros_like(expected[:1])
    step_error = np.diff(weights[:, small].astype(np.float64), axis=0, prepend=first) - np.diff(
        expected, axis=0, prepend=first
    )
    largest_weight = np.maximum.accumulate(np.abs(expected), axis=0)
    rounding = 1e-7 * largest_weight  # a step is read off as a difference of float32 weights
    assert (np.abs(step_error) <= 1e-3 * np.abs(np.diff(expected, axis=0, prepend=first)) + rounding).all()


def test_the_steady_table_would_find_the_fault():
    """The same gradients break n - g^2 in float32, so the test above can fail."""
    n = g = np.zeros(21, np.float32)
    lowest = np.full(21, np.inf)
    for gradient in steady_gradients(1_000):
        n = np.float32(0.95) * n + np.float32(0.05) * gradient**2
        g = np.float32(0.95) * g + np.float32(0.05) * gradient
        lowest = np.minimum(lowest, n - g**2 + np.float32(1e-4))
    assert (lowest <= 0).any()


# --- P2, P3: how large steps become, and that the first is not corrected ---


@pytest.mark.parametrize(
    ("preset", "gradient", "limit"),
    [("graves2013", 1, 0.1), ("graves2013", 32, 3.2), ("dqn_nature", 1, 0.0025), ("dqn_nature", 32, 0.08)],
)
def test_step_under_a_constant_gradient_tends_to_the_known_limit(preset, gradient, limit):
    weights = run(PRESETS[preset](), np.full((1_000, 1), gradient))
    assert weights[-2, 0] - weights[-1, 0] == pytest.approx(limit, rel=5e-3)


@pytest.mark.parametrize("gradient", [1e-3, 0.7, -40.0])
def test_first_step_has_no_bias_correction(gradient):
    first = run(RMSPropGraves(learning_rate=0.01), [gradient])[0]
    assert first == pytest.approx(-0.01 * gradient / np.sqrt(0.95 * 0.05 * gradient**2 + 1e-4), rel=1e-5)


# --- P4: sum against mean ---


def test_nature_preset_for_a_mean_loss_follows_the_path_of_the_summed_loss():
    summed = noise(300, 5, seed=2).astype(np.float32)
    batch_size = 32
    of_sum = run(RMSPropGraves.dqn_nature(), summed)
    of_mean = run(RMSPropGraves.dqn_nature(batch_size=batch_size), summed / batch_size)
    np.testing.assert_allclose(of_mean, of_sum, rtol=1e-5, atol=1e-6)
    wrong = run(RMSPropGraves.dqn_nature(), summed / batch_size)
    assert np.abs(wrong - of_sum).max() > 1e-3
    assert RMSPropGraves.dqn_nature(batch_size=32).epsilon == pytest.approx(9.765625e-06)
    assert RMSPropGraves.dqn_nature().epsilon == DQN_NATURE_EPSILON == 0.01


# --- P7: one epsilon, inside the root ---


def test_epsilon_is_inside_the_root_and_nowhere_else():
    gradient = 1e-6  # so small that only epsilon is left: one step of learning_rate * gradient / sqrt(epsilon)
    assert run(RMSPropGraves(epsilon=0.04), [gradient])[0] == pytest.approx(-1e-4 * gradient / 0.2, rel=1e-4)
    with pytest.raises(ValueError, match="epsilon must be above 0"):
        RMSPropGraves(epsilon=0)


@pytest.mark.parametrize("name", ["rho", "momentum"])
@pytest.mark.parametrize("value", [-0.1, 1.0, float("nan")])
def test_decays_outside_their_range_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be"):
        RMSPropGraves(**{name: value})


def test_a_gradient_of_another_shape_is_refused():
    """Broadcast, it would pass for one."""
    variable = tf.Variable(tf.zeros([3]))
    optimizer = RMSPropGraves()
    with pytest.raises(ValueError, match=r"gradient of .*: float32 \[1\]; expected float32 \[3\]"):
        optimizer.apply_gradients([(tf.ones([1]), variable)])
    for rate in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="learning_rate must be"):
            RMSPropGraves(rate)
    for size in (0, -3):
        with pytest.raises(ValueError, match="batch_size must be at least 1"):
            RMSPropGraves.dqn_nature(size)


# --- P8: state and configuration ---


@pytest.mark.parametrize("preset", PRESETS)
def test_three_float32_slots_per_variable_and_the_step_counter(preset):
    optimizer = PRESETS[preset]()
    optimizer.build([tf.Variable(tf.ones([2, 3])), tf.Variable(tf.ones(4))])
    assert [tuple(v.shape) for v in optimizer.variables] == [(), *[(2, 3), (4,)] * 3]
    assert {v.dtype for v in optimizer.variables[1:]} == {tf.float32}
    assert optimizer.iterations.dtype == tf.int64
    with pytest.raises(ValueError, match="float16"):
        RMSPropGraves().build([tf.Variable(tf.ones(2, tf.float16))])


def test_config_round_trip_keeps_every_number():
    config = {"learning_rate": 3e-4, "rho": 0.8, "momentum": 0.7, "epsilon": 3e-3, "global_clipnorm": 5.0}
    optimizer = RMSPropGraves(**config)
    serialized = json.loads(json.dumps(tf.keras.optimizers.serialize(optimizer)))
    assert serialized["registered_name"] == "tfdqn>RMSPropGraves"
    restored = tf.keras.optimizers.deserialize(serialized)
    assert isinstance(restored, RMSPropGraves)
    assert restored.get_config() == optimizer.get_config()
    assert {name: restored.get_config()[name] for name in config} == config


def test_saved_model_goes_on_where_it_stopped(tmp_path):
    model = tf.keras.Sequential([tf.keras.layers.Dense(3, input_shape=(4,)), tf.keras.layers.Dense(2)])
    model.compile(RMSPropGraves(learning_rate=0.01), "mse")
    x, y = noise(8, 4).astype(np.float32), noise(8, 2, seed=1).astype(np.float32)
    model.train_on_batch(x, y)
    model.save(tmp_path / "model.keras")
    copy = tf.keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(copy.optimizer, RMSPropGraves)
    for both in (model, copy):
        both.train_on_batch(x, y)
    for mine, theirs in zip(model.weights, copy.weights, strict=True):
        np.testing.assert_array_equal(mine.numpy(), theirs.numpy())


def test_checkpoint_holds_all_state(tmp_path):
    def make():
        weight, optimizer = tf.Variable([1.0, 2.0]), RMSPropGraves()
        optimizer.build([weight])
        return weight, optimizer, tf.train.Checkpoint(weight=weight, optimizer=optimizer)

    weight, optimizer, checkpoint = make()
    optimizer.apply_gradients([(tf.constant([3.0, -1.0]), weight)])
    optimizer.learning_rate = 5e-4
    path = checkpoint.save(str(tmp_path / "checkpoint"))
    other_weight, other_optimizer, other_checkpoint = make()
    other_checkpoint.restore(path).assert_consumed()
    for one, two in ((weight, optimizer), (other_weight, other_optimizer)):
        two.apply_gradients([(tf.constant([0.5, 0.5]), one)])
    assert other_optimizer.iterations == 2
    np.testing.assert_array_equal(weight.numpy(), other_weight.numpy())


# --- P9, P10 and the rest of the interface ---


def test_a_zero_gradient_still_moves_by_momentum_and_decays_the_slots():
    weights = run(optimizer := RMSPropGraves(), [[1.0], [0.0]])
    first, second = np.diff(weights[:, 0], prepend=0)
    assert second == pytest.approx(0.9 * first, rel=1e-4)
    assert optimizer._means[0].numpy()[0] == pytest.approx(0.05 * 0.95)
    n, g = 0.05 * 0.95, 0.05 * 0.95
    assert optimizer._variances[0].numpy()[0] == pytest.approx(n - g**2)


@pytest.mark.parametrize("jit_compile", [False, True], ids=["eager", "xla"])
def test_learning_rate_schedule_reaches_the_weights_through_the_momentum(jit_compile):
    schedule = tf.keras.optimizers.schedules.PiecewiseConstantDecay([2], [1e-2, 1e-4])
    gradients = noise(6, 3, seed=3)
    optimizer = RMSPropGraves(schedule)
    expected = oracle(gradients, learning_rate=lambda step: 1e-2 if step <= 2 else 1e-4)
    np.testing.assert_allclose(run(optimizer, gradients, jit_compile), expected, rtol=1e-4)
    restored = RMSPropGraves.from_config(optimizer.get_config())
    np.testing.assert_allclose(run(restored, gradients), expected, rtol=1e-4)


def test_assigned_learning_rate_is_used_without_a_new_trace():
    weight, optimizer = tf.Variable([0.0]), RMSPropGraves(learning_rate=1.0)
    optimizer.build([weight])
    step = tf.function(lambda g: optimizer.apply_gradients([(g, weight)]), jit_compile=True, autograph=False)
    optimizer.learning_rate = 0.0
    step(tf.ones(1))
    assert weight.numpy()[0] == 0


@pytest.mark.parametrize("jit_compile", [False, True], ids=["eager", "xla"])
def test_sparse_gradient_is_the_dense_one(jit_compile):
    sparse_weight, dense_weight = tf.Variable(tf.zeros([4, 2])), tf.Variable(tf.zeros([4, 2]))
    sparse, dense = RMSPropGraves(), RMSPropGraves()
    sparse.build([sparse_weight])
    dense.build([dense_weight])

    def step(values):
        # A row that is named twice adds up. Inside XLA Keras's own merging of such rows does not compile.
        rows = tf.IndexedSlices(values, tf.constant([1, 3]), tf.constant([4, 2]))
        sparse.update_step(rows, sparse_weight)
        dense.update_step(tf.scatter_nd([[1], [3]], values, [4, 2]), dense_weight)

    if jit_compile:
        step = tf.function(step, jit_compile=True, autograph=False)
    for values in noise(3, 2, 2):
        step(tf.constant(values, tf.float32))
    np.testing.assert_allclose(sparse_weight.numpy(), dense_weight.numpy(), rtol=1e-6)
    assert sparse_weight.numpy()[1, 0] != 0


@pytest.mark.parametrize("jit_compile", [False, True])
def test_global_norm_counts_every_number_once(jit_compile):
    norm = tf.function(global_norm, jit_compile=jit_compile, autograph=False)
    rng = np.random.default_rng(0)
    for shapes in (
        [[1]],
        [[64]],
        [[65]],
        [[3], [32, 2], [31]],
        [[1024]],
        [[1025]],
        [[64, 64], [64], [5, 7]],
        [[100_003]],
    ):
        # Whole numbers: their squares add up to the same whatever the order.
        arrays = [rng.integers(-9, 10, shape).astype(np.float32) for shape in shapes]
        squares = sum(int((array.astype(np.int64) ** 2).sum()) for array in arrays)
        np.testing.assert_allclose(norm([tf.constant(array) for array in arrays]), np.sqrt(squares), rtol=1e-6)
    for wrong in (np.nan, np.inf, 1e20):
        assert not np.isfinite(norm([tf.zeros([70]), tf.constant([0, wrong], tf.float32)]))
