"""An agent's network of nothing but Keras 3's own layers: a `.keras` file that opens without tfdqn, on any backend.

tfdqn itself is of Keras 2, whose files Keras 3 does not open; TensorFlow brings Keras 3 along.

Shapes: B batch, A actions, K numbers that stand for one action, U units of the output.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfdqn.learners.a2c.agent import ActorCritic
from tfdqn.learners.base import Agent
from tfdqn.learners.dqn import heads
from tfdqn.networks import layers

L = keras.layers
# What `tf.keras.Model` makes of inputs and outputs.
_FUNCTIONAL = type(tf.keras.Model(_inputs := tf.keras.Input([1]), _inputs))
_FIRST = tf.keras.layers.InputLayer


class Unknown(Exception):
    """What Keras alone has no layer for; the message names it."""


def plain(agent: Agent) -> keras.Model:
    """A model from observations [B, ...], of the game's own type, to action values [B, A] float32.

    Raises:
      Unknown: the network has a layer that Keras alone does not know.
    """
    network = agent.online
    if not isinstance(network, tf.keras.Sequential | _FUNCTIONAL):
        raise Unknown("a network that is no chain of layers")
    observation = L.Input(network.input_shape[1:], dtype=network.inputs[0].dtype.name, name="observation")
    output = _through(network, observation)
    if isinstance(agent, ActorCritic):
        values = L.Activation("log_softmax")(_linear(lambda units: units[:, :-1], output))
    else:
        values = _values(getattr(agent, "head", None), agent.num_actions, output)
    return keras.Model(observation, values, name="agent")


def _through(network: tf.keras.Model, observation: Any) -> Any:
    """The network's output, each of its layers rebuilt."""
    made: dict[int, Any] = {id(tensor): observation for tensor in network.inputs}
    for depth in sorted(network._nodes_by_depth, reverse=True):
        for node in network._nodes_by_depth[depth]:
            if isinstance(node.layer, _FIRST):
                continue
            if isinstance(node.outputs, list | tuple):
                raise Unknown(f"the layer {type(node.layer).__name__}")
            inputs = [made[id(tensor)] for tensor in node.keras_inputs]
            made[id(node.outputs)] = _plain_layer(node.layer)(inputs[0] if len(inputs) == 1 else inputs)
    return made[id(network.outputs[0])]


def _plain_layer(layer: Any) -> Callable:
    """A function from tensors of Keras 3 to one, of its own layers with the same weights."""
    if isinstance(layer, tf.keras.Sequential | _FUNCTIONAL):
        return lambda inputs: _through(layer, inputs)
    if isinstance(layer, layers.Greyscale):
        return _levels
    if isinstance(layer, layers.PatchConv2D):
        return lambda inputs: _with_weights(
            L.Conv2D(
                layer.filters, layer.kernel_size, layer.stride, layer.padding, activation=_name_of(layer.activation)
            ),
            [layer.kernel_in_use(False), layer.bias],
        )(_levels(inputs))
    if isinstance(layer, layers.MaxPool):
        return L.MaxPooling2D(layer.SIZE, layer.STRIDE, "same")
    if isinstance(layer, layers.ColumnDense):
        return lambda inputs: _columns(layer, inputs)
    if isinstance(layer, layers.Dense):
        # Of one that rounds its factors the product is float32's, close enough by its own measure.
        kernel, bias = layer.kernel_in_use(False), [layer.bias] if layer.use_bias else []
        return _with_weights(L.Dense(layer.units, _name_of(layer.activation), layer.use_bias), [kernel, *bias])
    kind = type(layer).__name__
    if type(layer) is not getattr(tf.keras.layers, kind, None):
        raise Unknown(f"the layer {kind}")
    try:
        config = {name: value for name, value in layer.get_config().items() if name not in ("name", "dtype")}
        return _with_weights(getattr(L, kind).from_config(config), layer.weights)
    except (AttributeError, TypeError, ValueError):  # another meaning in Keras 3
        raise Unknown(f"the layer {kind}") from None


def _name_of(activation: Callable) -> Any:
    name = tf.keras.activations.serialize(activation)
    if not isinstance(name, str):
        raise Unknown("an activation of its own")
    return name


def _with_weights(layer: Any, weights: Any) -> Callable:
    """A layer that, once it is called and has weights, has these."""

    def call(inputs: Any) -> Any:
        output = layer(inputs)
        layer.set_weights([np.asarray(weight) for weight in weights])
        return output

    return call


def _levels(inputs: Any) -> Any:
    """As floats: uint8 levels over 255, others as they are."""
    if inputs.dtype == "float32":
        return inputs
    return L.Rescaling(1.0 / 255.0 if inputs.dtype == "uint8" else 1.0)(inputs)


def _columns(layer: layers.ColumnDense, inputs: Any) -> Any:
    """Columns by a convolution as high as the screen."""
    _, rows, columns, channels = inputs.shape
    kernel = tf.reshape(layer.kernel_in_use(False), [channels, layer.width, rows, layer.filters])
    convolution = L.Conv2D(
        layer.filters, (rows, layer.width), (rows, layer.width), activation=_name_of(layer.activation)
    )
    output = _with_weights(convolution, [tf.transpose(kernel, [2, 1, 0, 3]), layer.bias])(_levels(inputs))
    return L.Reshape([columns // layer.width, layer.filters])(output)


def _values(head: Any, num_actions: int, output: Any) -> Any:
    """Action values [B, A] from the network's output."""
    if head is None:
        return output
    if isinstance(head, heads.Ensemble):
        parts = [_linear(lambda units, i=i: head._each(units)[i], output) for i in range(head._members)]
        return L.Average()([_values(head._head, num_actions, part) for part in parts])
    if isinstance(head, heads.CategoricalHead):
        logits = L.Reshape([num_actions, head.numbers])(_linear(head._per_action, output))
        returns = _with_weights(L.Dense(1, use_bias=False), [head._returns[:, tf.newaxis]])(L.Softmax()(logits))
        return L.Reshape([num_actions])(returns)
    if isinstance(head, heads.ScalarHead | heads.QuantileHead):
        return _linear(head.values, output)
    raise Unknown(f"the head {type(head).__name__}")


def _linear(function: Callable, output: Any) -> Any:
    """What a linear function makes of the output [B, U], flat, as a layer of fixed weights; none where it keeps it."""
    units = output.shape[-1]
    matrix = tf.reshape(function(tf.eye(units)), [units, -1])
    if matrix.shape[1] == units and np.array_equal(matrix, np.eye(units)):
        return output
    return _with_weights(L.Dense(matrix.shape[1], use_bias=False), [matrix])(output)
