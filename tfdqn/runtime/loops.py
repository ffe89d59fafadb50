"""Loops in the form that a device wants."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from tfdqn.runtime.packing import Packing


def is_cpu(device: str) -> bool:
    """Whether that TensorFlow device is a CPU: a loop costs nothing to look at there, and small arrays little."""
    return "CPU" in device


def while_loop(goes_on: Callable[..., tf.Tensor], turn: Callable[..., tuple], state: tuple, device: str) -> tuple:
    """`tf.while_loop`; on a GPU, where every array that a turn hands to the next may be a kernel, small ones as one.

    Args:
      goes_on: [] bool, by the parts of the state.
      turn: the next state, by the parts of the state, of the same shapes and types.
      state: to begin with; first the number of the turn, by which XLA sees how many there are.
      device: TensorFlow device.
    """
    if is_cpu(device):
        return tf.while_loop(goes_on, turn, state)
    number, *state = tf.nest.map_structure(tf.convert_to_tensor, state)
    packing = Packing(state)

    def packed_turn(number, *packed):
        number, *state = turn(number, *packing.unpack(packed))
        return number, *packing.pack(state)

    number, *packed = tf.while_loop(
        lambda number, *packed: goes_on(number, *packing.unpack(packed)), packed_turn, (number, *packing.pack(state))
    )
    return number, *packing.unpack(packed)
