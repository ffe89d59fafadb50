"""What an agent can be written as, and how such a file answers. Shapes: B batch, A actions.

Whatever the format, its function is called `act`, takes `observation` [B, ...] in the game's own type (and
`legal_actions` [B, A] bool of games whose rules do not always allow every action), and gives `action` [B] int32 and
`values` [B, A] float32.
"""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfdqn.errors import UserError
from tfdqn.learners import losses
from tfdqn.learners.base import Agent

OPSET = 17  # of ONNX: the first with layer normalisation, and what runtimes since 2022 know
Answer = tuple[np.ndarray, np.ndarray]  # actions [B] and values [B, A]


class Player(tf.Module):
    """An agent as one function.

    Args:
      agent: one that carries no state.
      masks: whether the game's rules do not always allow every action.
    """

    def __init__(self, agent: Agent, masks: bool):
        super().__init__()
        shape, dtype = agent.online.input_shape, agent.online.inputs[0].dtype
        self.inputs = [tf.TensorSpec(shape, dtype, "observation")]
        if masks:
            self.inputs.append(tf.TensorSpec([None, agent.num_actions], tf.bool, "legal_actions"))
        self._held = list(agent.online.variables)  # not the agent: what is saved would have all that it can do
        state = agent.initial_state(1)

        def act(observation, legal_actions=None):
            values = agent.action_values(observation, state)
            return {"action": losses.greedy_action(values, legal_actions), "values": values}

        self.act = tf.function(act, input_signature=self.inputs, autograph=False)


class Format(NamedTuple):
    """A format: how its files are written and asked."""

    write: Callable[[Agent, Player, Path], None]
    # Opens what was written: a function from observations, and what is legal or None, to its answer.
    opened: Callable[[Path], Callable[[np.ndarray, np.ndarray | None], Answer]]


def _write_savedmodel(agent: Agent, player: Player, path: Path) -> None:
    tf.saved_model.save(player, str(path), signatures={"act": player.act, "serving_default": player.act})


def _open_savedmodel(path: Path):
    loaded = tf.saved_model.load(str(path))
    return lambda observation, legal: _named(loaded.signatures["act"](**_given(observation, legal)))


def _write_keras(agent: Agent, player: Player, path: Path) -> None:
    # Whatever the user's `keras.json` says of it: layers here are those of TensorFlow's arrangement, in float32.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras

    from tfdqn.exports import plain_keras

    keras.config.set_image_data_format("channels_last")
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
    try:
        plain_keras.plain(agent).save(path)
    except plain_keras.Unknown as error:
        raise UserError(
            f"--to keras: this agent has {error}, which Keras alone does not know; use --to savedmodel"
        ) from None


def _open_keras(path: Path):
    import keras

    model = keras.models.load_model(path, compile=False)

    def answer(observation, legal):
        values = tf.convert_to_tensor(model(observation))
        return losses.greedy_action(values, legal).numpy(), values.numpy()

    return answer


def _write_tflite(agent: Agent, player: Player, path: Path) -> None:
    converter = tf.lite.TFLiteConverter.from_concrete_functions([player.act.get_concrete_function()], player)
    try:
        path.write_bytes(converter.convert())
    except Exception as error:  # of MLIR's, which have no common class
        raise UserError(f"--to tflite: {_first_line(error)}; use --to savedmodel") from None


def _open_tflite(path: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the package that is to hold it one day
        interpreter = tf.lite.Interpreter(str(path))
    runner = interpreter.get_signature_runner("serving_default")
    return lambda observation, legal: _named(runner(**_given(observation, legal)))


def _write_onnx(agent: Agent, player: Player, path: Path) -> None:
    import tf2onnx
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    concrete = player.act.get_concrete_function()
    # tf2onnx's own way takes tensors that a function has captured for inputs.
    frozen = convert_variables_to_constants_v2(concrete, lower_control_flow=False)
    taken = {tensor.name: spec.name for tensor, spec in zip(frozen.inputs, player.inputs, strict=True)}
    given = dict(zip((tensor.name for tensor in frozen.outputs), sorted(concrete.structured_outputs), strict=True))
    try:
        tf2onnx.convert.from_graph_def(
            frozen.graph.as_graph_def(),
            input_names=list(taken),
            output_names=list(given),
            opset=OPSET,
            tensors_to_rename={**taken, **given},
            output_path=str(path),
        )
    except Exception as error:
        raise UserError(f"--to onnx: {_first_line(error)}; use --to savedmodel") from None


def _open_onnx(path: Path):
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # an operation that the converter has let through
        raise UserError(f"--to onnx: {_first_line(error)}; use --to savedmodel") from None
    names = [output.name for output in session.get_outputs()]

    def answer(observation, legal):
        return _named(dict(zip(names, session.run(names, _given(observation, legal)), strict=True)))

    return answer


FORMATS = {
    "savedmodel": Format(_write_savedmodel, _open_savedmodel),
    "keras": Format(_write_keras, _open_keras),
    "tflite": Format(_write_tflite, _open_tflite),
    "onnx": Format(_write_onnx, _open_onnx),
}


def _given(observation: np.ndarray, legal: np.ndarray | None) -> dict[str, np.ndarray]:
    return {"observation": observation, **({} if legal is None else {"legal_actions": legal})}


def _named(answer: dict[str, Any]) -> Answer:
    return np.asarray(answer["action"]), np.asarray(answer["values"])


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the converters' chatter, of libraries in C++ too, off the screen meanwhile."""
    levels = {name: logging.getLogger(name).level for name in ("tensorflow", "tf2onnx", "absl")}
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    saved = os.dup(2)
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nothing)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
