"""What a Keras user tries on a `DQN` works, or one line says what to do instead."""

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tfdqn import config, envs, optimizers
from tfdqn.learners import optimizing
from tfdqn.learners.dqn import building
from tfdqn.learners.dqn.agent import DQN
from tfdqn.networks import names
from tfdqn.programs import evaluation
from tfdqn.replay.transitions import Transition
from tfdqn.runs import models, run_config

SHAPE = (4, 4, 1)
ROOT = Path(__file__).parents[1]


def numbers(size=16, seed=0) -> Transition:
    """A batch as NumPy makes it: int64 and float64 but for the frames."""
    rng = np.random.default_rng(seed)
    return Transition(
        observation=rng.integers(0, 256, (size, *SHAPE)).astype(np.uint8),
        action=rng.integers(0, 2, size),
        reward=rng.normal(size=size),
        discount=rng.choice([0.0, 0.9], size),
        next_observation=rng.integers(0, 256, (size, *SHAPE)).astype(np.uint8),
    )


BATCH = numbers()
DATA = tf.data.Dataset.from_tensors(BATCH).repeat(4)


def make(compiled=None, **settings) -> DQN:
    agent = DQN(SHAPE, 2, **settings)
    agent.compile(optimizers.RMSPropGraves(1e-3), **(compiled or {}))
    return agent


@pytest.fixture(scope="module")
def agent() -> DQN:
    """One that was never called by anyone; tests do not change its weights."""
    return make()


def refused(kind, words, function, *arguments, **keywords):
    with pytest.raises(kind, match=words) as error:
        function(*arguments, **keywords)
    assert "\n" not in str(error.value)


# Saving.


def test_a_keras_file_is_strict_json_and_loads(agent, tmp_path):
    agent.save(tmp_path / "agent.keras")
    with zipfile.ZipFile(tmp_path / "agent.keras") as archive:
        config = json.loads(archive.read("config.json"), parse_constant=pytest.fail)["config"]
    assert config["max_gradient_norm"] is None
    loaded = tf.keras.models.load_model(tmp_path / "agent.keras")
    assert loaded.get_config() == agent.get_config()
    np.testing.assert_array_equal(loaded(BATCH.observation), agent(BATCH.observation))


@pytest.mark.parametrize("norm", [None, np.inf, "inf"])
def test_no_clipping_is_read_in_every_way_it_was_written(norm):
    config = DQN(SHAPE, 2, max_gradient_norm=norm).get_config()
    assert config["max_gradient_norm"] is None
    assert DQN.from_config(config).get_config() == config
    assert DQN(SHAPE, 2, max_gradient_norm=2).get_config()["max_gradient_norm"] == 2.0


@pytest.mark.parametrize("game", sorted(path.name for path in models.PRETRAINED.iterdir()))
def test_packaged_agents_are_strict_json(game):
    with zipfile.ZipFile(models.PRETRAINED / game / models.BEST_MODEL) as archive:
        agent, metadata = (
            json.loads(archive.read(part), parse_constant=pytest.fail) for part in ("config.json", "metadata.json")
        )
    assert agent["registered_name"] == "tfdqn>DQN" and metadata["keras_version"].startswith("2.")


def test_a_saved_model_loads_with_and_without_keras_and_learns_on(agent, tmp_path):
    agent.save(tmp_path / "keras", save_format="tf")
    loaded = tf.keras.models.load_model(tmp_path / "keras")
    assert isinstance(loaded, DQN) and isinstance(loaded.optimizer, optimizers.RMSPropGraves)
    np.testing.assert_array_equal(loaded(BATCH.observation), agent(BATCH.observation))
    loaded.fit(DATA, verbose=0)
    tf.saved_model.save(agent, str(tmp_path / "plain"))
    agent.export(str(tmp_path / "export"))
    expected = agent(BATCH.observation)
    for folder in ("keras", "plain"):
        plain = tf.saved_model.load(str(tmp_path / folder))
        (output,) = plain.signatures["serving_default"](tf.constant(BATCH.observation)).values()
        np.testing.assert_array_equal(output, expected)
    exported = tf.saved_model.load(str(tmp_path / "export"))
    np.testing.assert_array_equal(exported.serve(tf.constant(BATCH.observation[:3])), expected[:3])


def test_a_runs_loaded_model_is_exported_before_it_was_called(tmp_path):
    loaded = tf.keras.models.load_model(models.PRETRAINED / "catch8_single" / models.BEST_MODEL)
    loaded.export(str(tmp_path / "export"))
    frames = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1)).astype(np.uint8)
    exported = tf.saved_model.load(str(tmp_path / "export"))
    np.testing.assert_array_equal(exported.serve(tf.constant(frames)), loaded(frames))


def test_hdf5_takes_the_weights_and_its_refusal_of_more_says_so(agent, tmp_path):
    with pytest.raises(NotImplementedError, match="save_weights"), pytest.warns(UserWarning, match="legacy"):
        agent.save(tmp_path / "agent.h5")
    agent.save_weights(tmp_path / "agent.weights.h5")
    other = make(seed=1)
    other.load_weights(tmp_path / "agent.weights.h5")
    np.testing.assert_array_equal(other(BATCH.observation), agent(BATCH.observation))


def test_clone_and_summary(agent, capsys):
    clone = tf.keras.models.clone_model(agent)
    assert clone.get_config() == agent.get_config()
    agent.summary()
    assert "(None, 2)" in capsys.readouterr().out


# Learning and judging.


def test_evaluate_is_the_loss_of_the_weights_there_are_and_changes_none(agent):
    before = agent.online.get_weights() + agent.target.get_weights()
    result = agent.evaluate(DATA, verbose=0, return_dict=True)
    assert set(result) == {"loss", "td_error", "mean_q"}
    learnt = make().learn(BATCH, np.ones(16))
    np.testing.assert_allclose(result["loss"], learnt.loss, rtol=1e-5)
    np.testing.assert_allclose(result["td_error"], np.abs(learnt.td_error).mean(), rtol=1e-5)
    np.testing.assert_allclose(result["mean_q"], learnt.mean_q, rtol=1e-5)
    for ours, old in zip(agent.online.get_weights() + agent.target.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, old)


def pairs():
    weights = np.zeros(16)
    yield "a pair", lambda agent: agent.evaluate(tf.data.Dataset.from_tensors((BATCH, weights)), verbose=0)
    yield "arrays", lambda agent: agent.evaluate(BATCH, sample_weight=weights, batch_size=8, verbose=0)
    yield "a batch", lambda agent: agent.test_on_batch(BATCH, sample_weight=weights)
    yield "a batch's pair", lambda agent: agent.test_on_batch((BATCH, weights))
    yield "an update", lambda agent: make().train_on_batch(BATCH, sample_weight=weights)
    yield "fit", lambda agent: make().fit(BATCH, sample_weight=weights, verbose=0).history["loss"]


@pytest.mark.parametrize("form, of", pairs(), ids=lambda value: value if isinstance(value, str) else "")
def test_weights_count_however_they_are_given(agent, form, of):
    assert of(agent)[0] == 0


def test_every_source_of_batches_gives_the_same_update():
    def trained(x, **keywords):
        agent = make()
        agent.fit(x, verbose=0, **keywords)
        return agent.online.get_weights()

    expected = trained(tf.data.Dataset.from_tensors(BATCH))
    one = make()
    one.train_on_batch(BATCH)
    others = {
        "arrays": trained(BATCH, batch_size=16, shuffle=False),
        "a generator": trained(iter([BATCH])),
        "a generator of tuples": trained(iter([(BATCH,)])),
        "a generator with weights": trained(iter([(BATCH, np.ones(16))])),
        "train_on_batch": one.online.get_weights(),
    }
    for source, weights in others.items():
        for ours, theirs in zip(weights, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6, err_msg=source)


def test_fit_takes_validation_data_and_callbacks(tmp_path):
    agent = make()
    path = str(tmp_path) + "/"
    callbacks = [
        tf.keras.callbacks.ModelCheckpoint(path + "best.keras", monitor="val_loss", save_best_only=True),
        tf.keras.callbacks.ModelCheckpoint(path + "folder"),
        tf.keras.callbacks.EarlyStopping("val_loss", patience=1, restore_best_weights=True),
        tf.keras.callbacks.BackupAndRestore(path + "backup", delete_checkpoint=False),
    ]
    history = agent.fit(DATA, validation_data=DATA, epochs=2, callbacks=callbacks, verbose=0).history
    assert history["val_loss"][1] < history["val_loss"][0]
    best = tf.keras.models.load_model(tmp_path / "best.keras")
    assert best.optimizer.iterations == 8
    np.testing.assert_array_equal(best(BATCH.observation), agent(BATCH.observation))
    folder = tf.keras.models.load_model(tmp_path / "folder")
    np.testing.assert_array_equal(folder(BATCH.observation), agent(BATCH.observation))
    restored = make(seed=1)  # as if killed: goes on from what was backed up
    restored.fit(DATA, epochs=2, callbacks=callbacks[-1:], verbose=0)
    np.testing.assert_array_equal(restored(BATCH.observation), agent(BATCH.observation))
    plain = make().fit(BATCH, validation_data=BATCH, verbose=0).history  # arrays, as they are
    assert set(plain) == {name + key for name in ("", "val_") for key in ("loss", "td_error", "mean_q")}


@pytest.mark.parametrize("setting", [{"jit_compile": True}, {"steps_per_execution": 2}, {"run_eagerly": True}])
def test_ways_to_run_agree(setting):
    plain, other = make(), make(setting)
    expected = plain.fit(DATA, validation_data=DATA, verbose=0).history
    history = other.fit(DATA, validation_data=DATA, verbose=0).history
    for name, values in expected.items():
        np.testing.assert_allclose(history[name], values, rtol=1e-4, atol=1e-6)


REPLICAS = """
import sys, tfdqn, numpy as np, tensorflow as tf
sys.path.insert(0, sys.argv[1])
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
from tests.test_keras_contract import BATCH, make
settings = {"max_gradient_norm": 0.5, "target": "soft", "target_tau": 0.5}
alone = make(**settings)
before = alone.online.get_weights() + alone.target.get_weights()
with tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"]).scope():
    mirrored = make(**settings)
for agent in (alone, mirrored):
    data = tf.data.Dataset.from_tensor_slices(BATCH).batch(16).repeat(3)
    agent.fit(data, validation_data=data, verbose=0)
weights = [agent.online.get_weights() + agent.target.get_weights() for agent in (mirrored, alone)]
for ours, theirs, old in zip(*weights, before, strict=True):
    assert not np.array_equal(theirs, old)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
np.testing.assert_allclose(mirrored.predict(BATCH.observation, verbose=0), alone(BATCH.observation), atol=1e-5)
"""


def python(code, *arguments, **environment):
    """The output of a process of its own: what is tried here cannot be undone in this one."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env={**os.environ, **environment}, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_two_replicas_learn_what_one_learns_from_both_their_batches():
    python(REPLICAS, str(ROOT))


# Keras' own settings.


def bits_by_network() -> dict[str, str]:
    """What some updates make of each network, with each optimizer, to the bit; and the packaged agent's score."""
    folder = models.PRETRAINED / "catch8"
    settings = run_config.read_config(folder)
    env = envs.make_for(settings)
    agent = building.build_agent(settings, env)
    models.load_weights(agent, folder / models.BEST_MODEL)
    found = {"score": evaluation.Evaluator(settings, env, agent).evaluate(16).summary()["score_mean"]}
    rng, shape = np.random.default_rng(0), (16, 16, 2)
    frames, others = rng.integers(0, 256, (2, 4, *shape))
    batch = Transition(frames, rng.integers(0, 3, 4), rng.normal(size=4), np.full(4, 0.9), others)
    heads = [{}, {"head": "categorical", "atoms": 3, "dueling": True, "members": 2}]
    bodies = [name for name in names.NETWORKS if not name.endswith("_wide")]  # large, and made of the same layers
    kinds = [(name, "rmsprop_graves", heads[name == "columns_deep"]) for name in bodies]
    kinds += [("mlp", optimizer, {}) for optimizer in ("adam", "rmsprop")]
    kinds += [("columns", "adam", {"precision": "bfloat16"})]  # native convolutions sum in the order of their threads
    for name, optimizer, more in kinds:
        agent = DQN(shape, 3, network=name, **more)
        agent.compile(optimizing.build_optimizer(config.resolve({"optimizer": optimizer})))
        for _ in range(2):
            agent.learn(batch, np.ones(4))
        numbers = [*agent.variables, *agent.optimizer.variables, agent.optimizer.learning_rate]
        types = sorted({variable.dtype.name for variable in numbers})
        bits = hashlib.sha256(b"".join(variable.numpy().tobytes() for variable in numbers)).hexdigest()
        found[f"{name} {optimizer} {more}"] = f"{types} {bits}"
    return found


ODD = """
import json, sys
sys.path.insert(0, sys.argv[1])
from tests.test_keras_contract import bits_by_network, tf
tf.keras.mixed_precision.set_global_policy("mixed_float16")
assert tf.keras.backend.floatx() == "float64" and tf.keras.backend.image_data_format() == "channels_first"
print(json.dumps(bits_by_network()))
"""


@pytest.mark.slow
def test_no_setting_of_keras_changes_a_bit(tmp_path):
    """Neither `keras.json` in the user's home nor a policy that the process has set, here both at once."""
    expected = bits_by_network()
    assert expected["score"] == 99.0 and all("float32" in kind for kind in list(expected.values())[1:])
    odd = {"floatx": "float64", "epsilon": 0.1, "image_data_format": "channels_first", "backend": "tensorflow"}
    (tmp_path / "keras.json").write_text(json.dumps(odd))
    assert json.loads(python(ODD, str(ROOT), KERAS_HOME=str(tmp_path))) == expected


# What enters is converted or refused.


def test_whole_numbers_are_bytes_wherever_they_enter(agent):
    expected = agent(BATCH.observation).numpy()
    wide = BATCH.observation.astype(np.int64)
    greedy = expected.argmax(1)
    for given in (wide, wide.tolist(), tf.constant(wide, tf.int32)):
        np.testing.assert_array_equal(agent(given), expected)
        np.testing.assert_array_equal(agent.act(given, (), 0, [1, 2])[0], greedy)
        np.testing.assert_allclose(agent.predict(given, verbose=0), expected, rtol=1e-6)
        np.testing.assert_allclose(agent.predict_on_batch(given), expected, rtol=1e-6)
    np.testing.assert_allclose(
        agent.predict(tf.data.Dataset.from_tensors(BATCH.observation), verbose=0), expected, rtol=1e-6
    )


@pytest.mark.parametrize("of", ["call", "act", "predict", "predict data", "graph", "xla"])
def test_observations_that_are_no_bytes_are_refused_in_one_line(agent, of):
    function = {
        "call": agent,
        "act": lambda frames: agent.act(frames, (), 0.0, [1, 2]),
        "predict": lambda frames: agent.predict(frames, verbose=0),
        "predict data": lambda frames: agent.predict(tf.data.Dataset.from_tensors(frames), verbose=0),
        "graph": lambda frames: tf.function(agent)(frames),
        "xla": lambda frames: tf.function(agent, jit_compile=True)(frames),
    }[of]
    frames = BATCH.observation
    refused(TypeError, r"observations: float(32|64) \[.*, 4, 4, 1\]; expected uint8 .* by 255", function, frames / 255)
    if of == "predict data":  # of such, Keras tells shapes when they come
        return
    refused(
        ValueError, r"observations: uint8 \[16, 16\]; expected uint8 \[\?, 4, 4, 1\]", function, frames.reshape(16, -1)
    )
    refused(ValueError, r"observations: uint8 \[4, 4, 1\]; expected", function, frames[0])
    if of in ("call", "act", "predict"):
        refused(ValueError, "from 100 to .*; must lie between 0 and 255", function, frames.astype(int) + 100)
        refused(ValueError, "from -1 to", function, frames.astype(int) - 1)
    else:
        refused(TypeError, "int64 inside a tf.function", function, tf.constant(frames, tf.int64))


def test_a_batch_to_learn_from_is_checked(agent):
    wrong = [
        ({"action": BATCH.action + 1}, ValueError, "actions: from 1 to 2; must lie between 0 and 1"),
        ({"action": BATCH.action.astype(float)}, TypeError, r"actions: float64 \[16\]; expected int32"),
        ({"action": BATCH.action[:1]}, ValueError, r"actions: int64 \[1\]; expected int32 \[16\]"),
        ({"reward": BATCH.reward[:, None]}, ValueError, r"rewards: float64 \[16, 1\]; expected float32 \[16\]"),
        ({"discount": BATCH.discount > 0}, TypeError, r"discounts: bool \[16\]; expected float32"),
        ({"next_observation": BATCH.observation / 255}, TypeError, "next observations: float64"),
    ]
    before = agent.online.get_weights()
    for part, kind, words in wrong:
        refused(kind, words, agent.learn, BATCH._replace(**part), np.ones(16))
    refused(ValueError, r"weights: float64 \[1\]; expected float32 \[16\]", agent.learn, BATCH, np.ones(1))
    floats = BATCH._replace(observation=BATCH.observation / 255)
    for function in (agent.fit, agent.evaluate):
        refused(TypeError, "observations: float32", function, floats, verbose=0)
    for function in (agent.train_on_batch, agent.test_on_batch):
        refused(TypeError, "observations: float32", function, floats)
        refused(
            TypeError, "learns from a tfdqn.replay.transitions.Transition", function, BATCH.observation, BATCH.reward
        )
        refused(TypeError, "takes no y", function, BATCH, BATCH.reward, sample_weight=BATCH.reward)
    for ours, old in zip(agent.online.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, old)


def test_what_was_not_compiled_or_not_so_says_what_to_do():
    agent = DQN(SHAPE, 2)
    refused(RuntimeError, r"call compile\(optimizer=", agent.learn, BATCH, np.ones(16))
    refused(RuntimeError, "must compile your model", agent.fit, DATA)
    refused(ValueError, "loss must be left out", agent.compile, "adam", loss="mse")


def test_a_seed_of_numpy_is_kept_as_one_of_python():
    agent = DQN(SHAPE, 2, seed=np.int64(3))
    assert type(agent.get_config()["seed"]) is int
    np.testing.assert_array_equal(agent(BATCH.observation), DQN(SHAPE, 2, seed=3)(BATCH.observation))


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"seed": None}, "DQN: seed None: must be a whole number"),
        ({"seed": -1}, "DQN: seed -1: must be a whole number from 0"),
        ({"seed": 1.5}, "DQN: seed 1.5: must be a whole number"),
        ({"loss": "hubr"}, "DQN: loss hubr: unknown; did you mean 'huber'"),
        ({"head": "scaler"}, "DQN: head scaler: unknown; did you mean 'scalar'"),
        ({"network": "convv"}, "DQN: network convv: unknown; did you mean 'conv'"),
        ({"convolution": "auto"}, "DQN: convolution auto: must be one of patches, native"),
        ({"members": 0}, "DQN: members 0: must be at least 1"),
        ({"target_update_period_updates": 0}, "DQN: target_update_period_updates 0: must be at least 1"),
        ({"max_gradient_norm": 0}, "DQN: max_gradient_norm 0.0: must be greater than 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, words):
    refused(ValueError, words, DQN, SHAPE, 2, **settings)


@pytest.mark.parametrize("shape, actions", [((4, 4, 1, 1), 2), ((4, 0, 1), 2), (SHAPE, 0), (SHAPE, 1.5), (4, 2)])
def test_impossible_sizes_are_refused(shape, actions):
    refused(ValueError, "DQN: observation_shape .* and num_actions .*: must be", DQN, shape, actions)
