"""What is exported plays as the trained agent does, also where tfdqn is not installed."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tfdqn
from tfdqn import export
from tfdqn.errors import UserError

ROOT = Path(__file__).parent.parent
BASIC = ("savedmodel", "keras", "tflite")

# What each format is opened with, and asked, by people who have no tfdqn.
STRANGER = """
import os, sys
sys.modules["tfdqn"] = None  # as where it is not installed
import numpy as np
folder = sys.argv[1]
frames = np.load(folder + "/frames.npy")

import tensorflow as tf
signature = tf.saved_model.load(folder + "/agent").signatures["act"]
told = signature(observation=tf.constant(frames))
assert told["action"].dtype == tf.int32 and told["values"].dtype == tf.float32
one = signature(observation=tf.constant(frames[:1]))  # batches of any size
assert one["action"].shape == [1]

import keras
assert keras.__version__.startswith("3.")
values = keras.models.load_model(folder + "/agent.keras", compile=False).predict(frames, verbose=0)

runner = tf.lite.Interpreter(folder + "/agent.tflite").get_signature_runner()
lite = runner(observation=frames)
np.savez(folder + "/told.npz", savedmodel=told["values"], keras=values, tflite=lite["values"],
         actions=np.stack([told["action"], lite["action"]]))
assert not any(name == "tfdqn" or name.startswith("tfdqn.") for name, module in sys.modules.items() if module)
"""


def save(folder, env="catch8", **settings):
    """An agent that has learnt nothing; its weights are as good as any."""
    tfdqn.Agent(env, seed=1, **settings).save(folder)
    return str(folder)


def test_what_is_exported_plays_where_tfdqn_is_not_installed(tmp_path, capsys):
    agent = save(tmp_path / "run", head="categorical", atoms=11, dueling=True, frame_stack=2)
    for to, name in zip(BASIC, ("agent", "agent.keras", "agent.tflite"), strict=True):
        assert export.main([agent, "--to", to, "--out", str(tmp_path / name)]) == 0
        written, checked = capsys.readouterr().err.splitlines()[-2:]
        assert written == f"{tmp_path / name}: observation [B, 8, 8, 2] uint8; actions: 0 stay, 1 left, 2 right"
        assert checked.startswith("checked on 1,000 frames played: the trained agent's action on 1,000 of them; ")
    frames = np.random.default_rng(0).integers(0, 256, [50, 8, 8, 2]).astype(np.uint8)
    np.save(tmp_path / "frames.npy", frames)
    (tmp_path / "empty").mkdir()
    command = [sys.executable, "-I", "-c", STRANGER, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path / "empty", check=False)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "told.npz") as told:
        ours = tfdqn.load(agent)
        for to in BASIC:
            np.testing.assert_allclose(told[to], ours.q_values(frames), rtol=1e-4, atol=1e-6)
        for actions in told["actions"]:
            np.testing.assert_array_equal(actions, ours.act(frames))
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"run", "agent", "agent.keras", "agent.tflite", "frames.npy", "told.npz", "empty"}


@pytest.mark.parametrize(
    ("env", "settings"),
    [
        ("catch8", {"head": "categorical", "atoms": 5, "members": 2, "dueling": True}),
        ("catch8", {"head": "quantile", "quantiles": 7, "noisy": True}),
        ("catch8", {"network": "conv", "spectral_norm": True, "frame_stack": 2}),
        pytest.param("catch8", {"network": "resnet"}, marks=pytest.mark.slow),
        ("cave", {"network": "columns", "precision": "bfloat16"}),
        ("catch8", {"learner": "pqn"}),
        ("catch8", {"learner": "a2c"}),
        ("minatar_breakout", {"network": "conv3_norm"}),
        ("cartpole", {}),
    ],
)
def test_keras_has_every_network_of_its_own_layers(tmp_path, env, settings):
    agent = save(tmp_path / "run", env, **settings)
    assert export.main([agent, "--to", "keras", "--out", str(tmp_path / "a.keras")]) == 0


@pytest.mark.parametrize(
    ("env", "settings", "to"),
    [
        ("catch8", {"head": "iqn"}, "tflite"),
        ("minatar_breakout", {"network": "conv"}, "savedmodel"),
        ("cartpole", {"learner": "a2c"}, "tflite"),
        # The same functions, each in the other of the two.
        pytest.param("catch8", {"head": "iqn"}, "savedmodel", marks=pytest.mark.slow),
        pytest.param("minatar_breakout", {"network": "conv"}, "tflite", marks=pytest.mark.slow),
        pytest.param("cartpole", {"learner": "a2c"}, "savedmodel", marks=pytest.mark.slow),
    ],
)
def test_other_formats_have_every_agent(tmp_path, env, settings, to):
    agent = save(tmp_path / "run", env, **settings)
    assert export.main([agent, "--to", to, "--out", str(tmp_path / f"a{export.SUFFIXES[to]}")]) == 0


def test_keras_is_taken_as_it_is_meant_whatever_its_settings_say(tmp_path):
    (tmp_path / "keras.json").write_text(
        '{"backend": "no-such", "image_data_format": "channels_first", "floatx": "float16"}'
    )
    out = tmp_path / "a.keras"
    command = [sys.executable, "-m", "tfdqn", "export", "--pretrained", "catch16", "--to", "keras", "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "KERAS_HOME": str(tmp_path)}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and out.exists(), done.stderr


RULED = """
import tensorflow as tf
from tests.own_games import Line

class Ruled(Line):
    def legal_actions(self, state):
        n = tf.nest.flatten(state)[0].shape[0]
        return tf.one_hot(tf.range(n) % self.num_actions, self.num_actions) > 0
"""


def test_rules_that_forbid_actions_are_an_input(tmp_path):
    (tmp_path / "ruled.py").write_text(RULED)
    env = f"{tmp_path / 'ruled.py'}:Ruled"
    agent = save(tmp_path / "run", env)
    assert export.main([agent, "--env", env, "--to", "savedmodel", "--out", str(tmp_path / "a")]) == 0
    import tensorflow as tf

    act = tf.saved_model.load(str(tmp_path / "a")).signatures["act"]
    numbers = tf.random.stateless_normal([40, 3], [0, 1])
    for only in range(2):
        legal = tf.one_hot(tf.fill([40], only), 2) > 0
        assert set(act(observation=numbers, legal_actions=legal)["action"].numpy()) == {only}


def test_a_game_that_steps_on_the_host(tmp_path):
    pytest.importorskip("gymnasium")
    agent = save(tmp_path / "run", "gym:CartPole-v1")
    out = str(tmp_path / "a.tflite")
    assert export.main([agent, "--env", "gym:CartPole-v1", "--to", "tflite", "--out", out]) == 0


def test_onnx(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    agent = save(tmp_path / "run", head="categorical", atoms=11, dueling=True)
    assert export.main([agent, "--to", "onnx", "--out", str(tmp_path / "a.onnx")]) == 0
    session = onnxruntime.InferenceSession(str(tmp_path / "a.onnx"), providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_inputs()] == ["observation"]
    frames = np.random.default_rng(0).integers(0, 256, [50, 8, 8, 1]).astype(np.uint8)
    action, values = session.run(["action", "values"], {"observation": frames})
    ours = tfdqn.load(agent)
    np.testing.assert_allclose(values, ours.q_values(frames), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(action, ours.act(frames))


# --- Nothing is left behind. ---


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda action, values: (action, values + 0.5), r"differ from the trained network's by 5.0e-01, more than"),
        (lambda action, values: (action, values * np.nan), "differ from the trained network's by nan"),
        (lambda action, values: ((action + 1) % 3, values), "does not take the trained agent's actions"),
    ],
)
def test_what_plays_otherwise_is_not_left_behind(tmp_path, monkeypatch, change, message):
    from tfdqn.exports import formats

    agent = save(tmp_path / "run")
    kept = formats.FORMATS["tflite"]
    broken = kept._replace(opened=lambda path: lambda *given: change(*kept.opened(path)(*given)))
    monkeypatch.setitem(formats.FORMATS, "tflite", broken)
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match=f"--to tflite: .*{message}.*; nothing was written") as error:
        export.main([agent, "--to", "tflite", "--out", str(tmp_path / "there" / "a.tflite")])
    assert error.value.exit_code == 4 and not list((tmp_path / "there").iterdir())


def test_what_keras_does_not_know_is_named(tmp_path):
    agent = save(tmp_path / "run", head="iqn")
    with pytest.raises(
        UserError, match="--to keras: this agent has the layer Cosines, which Keras alone does not know"
    ):
        export.main([agent, "--to", "keras", "--out", str(tmp_path / "a.keras")])
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_an_agent_that_remembers_is_refused(tmp_path):
    agent = save(tmp_path / "run", learner="r2d2")
    with pytest.raises(UserError, match="run: its agent remembers what it saw, and only agents without memory"):
        export.main([agent, "--to", "tflite", "--out", str(tmp_path / "a.tflite")])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the following arguments are required: --to"),
        (["--to", "savedmodel"], "name either the folder of a run"),
        (["nothing", "--to", "savedmodel"], "nothing: no such run folder"),
        (["--pretrained", "catch9", "--to", "keras"], "did you mean 'catch8'"),
        (["--pretrained", "catch8", "--to", "kreas"], "invalid choice: 'kreas'"),
        (["--pretrained", "catch8", "--to", "keras", "--out", "a.h5"], "--out a.h5: must end in .keras"),
        (["--pretrained", "catch8", "--to", "tflite", "--out", "no/a.tflite"], "there is no folder no"),
        (["--pretrained", "catch8", "--to", "savedmodel", "--out", "."], "exists already; name another"),
        (["--pretrained", "catch8", "--to", "keras"], "--out catch8.keras: exists already; name another, or remove it"),
    ],
)
def test_mistakes_are_one_line(tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "catch8.keras").write_text("")
    with pytest.raises(UserError, match=message) as error:
        export.main(words)
    assert error.value.exit_code == 2


@pytest.mark.parametrize("missing", ["tf2onnx", "onnxruntime"])
def test_without_onnx_one_line_says_how_to_have_it(monkeypatch, missing):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == missing else "found")
    with pytest.raises(UserError, match=rf'{missing} is not installed; run python -m pip install "tfdqn\[onnx\]"'):
        export.main(["--pretrained", "catch8", "--to", "onnx", "--out", "a.onnx"])
