"""Loops in the form that a device wants."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from tfdqn.runtime import held, packing

# Bytes of a variable that a loop carries in a vector: what goes into a product would first have to be cut out of it.
HELD_LIMIT = 2**12


def is_cpu(device: str) -> bool:
    """Whether that TensorFlow device is a CPU: a loop costs nothing to look at there, and small arrays little."""
    return "CPU" in device


def while_loop(
    goes_on: Callable[..., tf.Tensor],
    turn: Callable[..., tuple],
    state: tuple,
    device: str,
    variables: Sequence[tf.Variable] = (),
) -> tuple:
    """`tf.while_loop`; on a GPU, where every array that a turn hands to the next may be a kernel, small ones as one.

    Args:
      goes_on: [] bool, by the parts of the state.
      turn: the next state, by the parts of the state, of the same shapes and types.
      state: to begin with; first the number of the turn, by which XLA sees how many there are.
      device: TensorFlow device.
      variables: that a turn writes.
    """
    if is_cpu(device):
        return tf.while_loop(goes_on, turn, state)
    # Op by op a variable is read past Python, and a loop has nothing to carry.
    carried = [] if tf.executing_eagerly() else [each for each in variables if packing.takes(each, HELD_LIMIT)]
    number, *state = tf.nest.map_structure(tf.convert_to_tensor, state)
    start = (state, held.values_of(carried))
    packed_as = packing.Packing(start)

    def looks(number, *packed):
        state, values = packed_as.unpack(packed)
        with held.holding(carried, values):
            return goes_on(number, *state)

    def packed_turn(number, *packed):
        state, values = packed_as.unpack(packed)
        with held.holding(carried, values):
            number, *state = turn(number, *state)
            return number, *packed_as.pack((state, held.values_of(carried)))

    number, *packed = tf.while_loop(looks, packed_turn, (number, *packed_as.pack(start)))
    state, values = packed_as.unpack(packed)
    for variable, value in zip(carried, values, strict=True):
        variable.assign(value)
    return number, *state
