"""Networks of one's own: stock layers, subclassed models, several parts of one observation; and one line for faults."""

import gc
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import tfdqn
from tests.faults import harness
from tests.own_games import Line, Planes
from tests.whole_runs import SETTINGS
from tfdqn import config
from tfdqn.envs import ObservationSpec, loading
from tfdqn.errors import UserError
from tfdqn.learners.dqn import heads
from tfdqn.networks import catalogue
from tfdqn.runs.loop import Run
from tfdqn.runtime.signals import StopRequest

layers = tf.keras.layers
OWN_TINY = {name: value for name, value in SETTINGS.items() if name != "env"}
TINY = {**SETTINGS, "total_env_frames": 500, "eval_every_frames": 400, "log_every_frames": 200}


def stock(spec):
    """Layers as they come."""
    return tf.keras.Sequential(
        [
            layers.Rescaling(1 / 255),
            layers.Conv2D(4, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(8, "relu"),
        ],
        name="stock",
    )


class Normed(tf.keras.Model):
    """A subclassed model, its layers made here and their weights when it is first called."""

    def __init__(self, units):
        super().__init__(name="normed")
        self.flatten, self.dense, self.norm = layers.Flatten(), layers.Dense(units), layers.LayerNormalization()
        self.more = [layers.Dense(units, kernel_initializer="he_normal") for _ in range(2)]

    def call(self, inputs, training=False):
        features = tf.nn.relu(self.norm(self.dense(self.flatten(tf.cast(inputs, tf.float32)))))
        for layer in self.more:
            features += tf.nn.relu(layer(features))
        return features


def subclassed(spec):
    return Normed(8)


def two_parts(spec):
    """One plane and the numbers of another, each in its own way: of [H, W, C] planes C - 1 and 1."""
    inputs = tf.keras.Input(spec.shape, dtype=spec.dtype)
    planes = layers.Lambda(lambda x: tf.cast(x[..., :-1], tf.float32))(inputs)
    numbers = layers.Lambda(lambda x: tf.cast(x[:, 0, :, -1], tf.float32))(inputs)
    seen = layers.Flatten()(layers.Conv2D(3, 2, activation="relu")(planes))
    return tf.keras.Model(inputs, layers.Concatenate()([seen, layers.Dense(4, "relu")(numbers)]), name="two_parts")


def build(body, spec, seed=0, **changes):
    return catalogue.build(loading.adopt(body), spec, heads.ScalarHead(3, dueling=True), seed, "online", **changes)


KINDS = [
    (stock, ObservationSpec((8, 8, 2))),
    (subclassed, ObservationSpec((6,), "float32")),
    (two_parts, ObservationSpec((2, 7, 4), "bool")),
]


@pytest.mark.parametrize("body, spec", KINDS, ids=["stock", "subclassed", "two parts"])
def test_seeds_decide_the_weights_and_nothing_else_does(body, spec):
    draw = np.random.default_rng(0).integers(0, 256, (5, *spec.shape))
    seen = tf.constant(draw > 127 if spec.dtype == "bool" else draw.astype(spec.dtype))
    tf.keras.utils.set_random_seed(1)
    first = build(body, spec, 1)
    tf.keras.utils.set_random_seed(2)
    before = tf.keras.initializers.GlorotUniform()((3, 3))
    tf.keras.utils.set_random_seed(2)
    same, other = build(body, spec, 1), build(body, spec, 2)
    # What the user's own layers draw is as if nothing had been built between.
    np.testing.assert_array_equal(tf.keras.initializers.GlorotUniform()((3, 3)), before)
    assert first(seen).shape == (5, 3 + 1)
    np.testing.assert_array_equal(first(seen), same(seen))
    assert len(first.trainable_variables) > 6
    kernels = [i for i, variable in enumerate(first.variables) if len(variable.shape) > 1]
    assert not any(np.array_equal(first.variables[i], other.variables[i]) for i in kernels)
    both = build(body, spec, 1, members=2)
    mine, theirs = np.split(both(seen).numpy(), 2, axis=-1)
    np.testing.assert_allclose(mine, first(seen), rtol=1e-4, atol=1e-5)
    assert not np.allclose(mine, theirs)


def test_the_target_network_is_another_network():
    agent = tfdqn.Agent("catch8", network=subclassed, frame_stack=2, device="cpu").model
    online, target = agent.online.variables, agent.target.variables
    assert not {id(variable) for variable in online} & {id(variable) for variable in target}
    assert len(online) == len(target) > 6
    for ours, theirs in zip(online, target, strict=True):
        np.testing.assert_array_equal(ours, theirs)


class Interrupted(tf.keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        os.kill(os.getpid(), signal.SIGINT)


def test_equal_runs_give_equal_bits_and_a_broken_one_goes_on(tmp_path):
    settings = {**TINY, "env": Planes(), "network": two_parts, "jit": False}
    whole, broken = tfdqn.Agent(**settings), tfdqn.Agent(**settings)
    whole.fit(logdir=tmp_path, run_name="whole", verbose=0)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background of a shell
    try:
        history = broken.fit(logdir=tmp_path, run_name="broken", callbacks=[Interrupted()], verbose=0)
    finally:
        signal.signal(signal.SIGINT, before)
    assert 400 <= history.params["env_frames"] < 500
    broken.fit(verbose=0)
    assert harness.differences(tmp_path / "whole", tmp_path / "broken") == []
    begun = tfdqn.Agent(**settings).model.online.get_weights()
    learnt = whole.model.online.get_weights()
    assert all(not np.array_equal(ours, theirs) for ours, theirs in zip(begun, learnt, strict=True))


def test_stock_layers_learn_and_are_kept(tmp_path):
    agent = tfdqn.Agent(**{**TINY, "network": stock})
    begun = agent.model.online.get_weights()
    agent.fit(logdir=tmp_path, verbose=0)
    learnt = agent.model.online.get_weights()
    assert len(begun) == 6 and all(not np.array_equal(a, b) for a, b in zip(begun, learnt, strict=True))
    loaded = tfdqn.load(agent.run_dir, network=stock)
    for ours, theirs in zip(loaded.model.online.get_weights(), learnt, strict=True):
        np.testing.assert_array_equal(ours, theirs)


# --- What is wrong with a body, in one line. ---


class Lookup(layers.Layer):
    """What only Python can do."""

    def call(self, inputs):
        values = tf.py_function(lambda x: x, [tf.cast(inputs, tf.float32)], tf.float32)
        return tf.ensure_shape(values, inputs.shape)


shared = []


def share(spec):
    if not shared:
        shared.append(stock(spec))
    return shared[0]


def share_a_layer(spec):
    if not shared:
        shared.append(layers.Dense(8, name="mine"))
    return tf.keras.Sequential([layers.Flatten(), shared[0]])


def twice_as_wide(spec):
    return tf.keras.Sequential([layers.Flatten(), layers.Dense(8, name="mine", dtype="float64")])


def whole_numbers(spec):
    return layers.Lambda(lambda x: tf.cast(x, tf.int32))


def fail(spec):
    raise KeyError("no such\nkey")


def keras_3(spec):
    return sys.modules["keras"].layers.Dense(8)


FAULTS = [
    (layers.Dense(8), "is a layer itself; name a function that makes a new one"),
    (lambda spec: None, "returned NoneType; it must return a tf.keras.Model or layer"),
    (keras_3, "returned Dense; it must return a tf.keras.Model or layer .of Keras 2"),
    (fail, "raised KeyError: "),
    (lambda: stock(None), "raised TypeError: .*takes 0 positional arguments"),
    (whole_numbers, "must make one float tensor"),
    (lambda spec: tf.keras.Sequential([layers.Conv1D(8, 3)], name="mine"), r"mine cannot take uint8 \[B, 8, 8, 2\]: "),
    (lambda spec: layers.Conv2D(8, 3, name="mine"), r"mine cannot take uint8 \[B, 8, 8, 2\]: "),
    (lambda spec: layers.Lambda(lambda x: {"a": tf.cast(x, tf.float32)}), "must make one float tensor"),
    (share, "returned stock a second time; make a new model at each call"),
    (share_a_layer, "mine/kernel:0 is a weight of an earlier network, too; make new layers at each call"),
    (twice_as_wide, "mine/kernel:0 is float64, and weights that learn must be float32; .* dtype='mixed_bfloat16'"),
]


@pytest.mark.parametrize("body, message", FAULTS)
def test_a_fault_is_one_line(body, message):
    if body is keras_3:
        pytest.importorskip("keras")
    shared.clear()
    with pytest.raises(UserError, match=message) as error:
        tfdqn.Agent("catch8", network=body, frame_stack=2, device="cpu").model  # noqa: B018
    assert "\n" not in str(error.value) and str(error.value).startswith("--network ")
    assert len(str(error.value)) < 500
    gc.collect()


@pytest.mark.parametrize(
    "text, message",
    [
        ("stock", "no stock in bodies.py: .*my_body"),
        ("nobody", "did you mean 'my_body'"),
    ],
)
def test_a_name_that_is_not_there_is_said_before_anything_runs(text, message, tmp_path):
    path = tmp_path / "bodies.py"
    path.write_text("raise SystemExit\ndef my_body(spec):\n    return None\n")
    with pytest.raises(UserError, match=f"{text}: no {text} in|{message}"):
        config.resolve({"network": f"{path}:{text}"})
    with pytest.raises(UserError, match="no such file"):
        config.resolve({"network": f"{tmp_path}/body.py:my_body"})


def python_inside(spec):
    return tf.keras.Sequential([Lookup(name="lookup"), layers.Flatten(), layers.Dense(8)], name="mine")


def test_what_xla_cannot_compile_is_said_in_one_line_with_the_layers_name(tmp_path):
    agent = tfdqn.Agent(**{**TINY, "network": python_inside})
    with pytest.raises(UserError, match="layer mine/lookup uses EagerPyFunc, which XLA cannot compile") as error:
        agent.fit(logdir=tmp_path / "runs", verbose=0)
    assert "\n" not in str(error.value)
    assert agent.run_dir is None and not list((tmp_path / "runs").iterdir())
    with pytest.raises(UserError, match="layer mine/lookup uses EagerPyFunc"):
        agent.evaluate(2)
    assert agent.act(np.zeros([8, 8, 2], np.uint8)) in (0, 1, 2)  # no program, no fault


class AtEase(layers.Layer):
    def call(self, inputs, training=False):
        if training:
            raise ValueError("not yet\nwritten")
        return tf.cast(inputs, tf.float32)


def fails_in_training(spec):
    return tf.keras.Sequential([AtEase(name="mine"), layers.Flatten()])


def test_what_fails_in_training_alone_is_said_in_one_line(tmp_path):
    agent = tfdqn.Agent(**{**TINY, "network": fails_in_training, "jit": False})
    message = r"--network \S+:fails_in_training: layer mine raised ValueError: not yet \(line \d+\)"
    with pytest.raises(UserError, match=message) as error:
        agent.fit(logdir=tmp_path / "runs", verbose=0)
    assert "\n" not in str(error.value)
    assert agent.run_dir is None and not list((tmp_path / "runs").iterdir())


class Talking(Line):
    """A game that leaves the program."""

    def step(self, state, action, noise):
        state, timestep = super().step(state, action, noise)
        reward = tf.ensure_shape(tf.py_function(lambda x: x, [timestep.reward], tf.float32), timestep.reward.shape)
        return state, timestep._replace(reward=reward)


class Broken(Line):
    def step(self, state, action, noise):
        if not tf.executing_eagerly():
            raise RuntimeError("not yet\nwritten")
        return super().step(state, action, noise)


@pytest.mark.parametrize(
    "name, message",
    [
        ("Talking", "uses EagerPyFunc, which XLA cannot compile .*; python -m tfdqn.check_env"),
        ("Broken", r"raised RuntimeError: not yet \(line [0-9]+\); python -m tfdqn.check_env"),
    ],
)
def test_a_game_that_cannot_be_compiled_is_named(name, message, tmp_path):
    spec = f"{__file__}:{name}"
    run = Run(config.resolve({**TINY, "env": spec}), tmp_path / "run", "/CPU:0", StopRequest())
    with pytest.raises(UserError, match=f"--env {spec}: {message}") as error:
        run.train()
    assert "\n" not in str(error.value)
    run.close()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "given, message",
    [
        ({"network": "conv"}, r"--network conv: looks at screens \[H, W, C\], but observations are \[6\]: use mlp"),
        ({"start_curriculum": 0.5}, "--start-curriculum 0.5: Line is equally difficult from start to end; use 0"),
    ],
)
def test_settings_that_do_not_fit_a_game_of_ones_own_are_one_line(given, message, tmp_path):
    agent = tfdqn.Agent(f"{Path(__file__).with_name('own_games.py')}:Line", **{**OWN_TINY, **given})
    with pytest.raises(UserError, match=message):
        agent.fit(logdir=tmp_path / "runs", verbose=0)
    assert not (tmp_path / "runs").exists()
