"""Many small tensors as two vectors: what a program is handed, or a loop carries, costs by the piece.

Starting a program of XLA from TensorFlow takes some microseconds for each argument and each result, and on a GPU each
small array that a loop carries may be a kernel of its own. What was packed comes back with the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

LIMIT = 2**16  # bytes of a tensor; larger ones are left alone: to pack is to copy
# The vectors, and whose numbers lie in them: types as wide, whose bits it takes as they are, and truth values, as 0 or
# 1. A number of 8 bytes could be two of 4, but XLA's fusions stop where numbers change their width.
VECTORS = {
    tf.int32: (tf.int32, tf.float32, tf.uint32, tf.bool),
    tf.int64: (tf.int64, tf.float64, tf.uint64),
}
_VECTOR_OF = {dtype: vector for vector, dtypes in VECTORS.items() for dtype in dtypes}


def takes(spec: Any, limit: int = LIMIT) -> bool:
    """Whether something of that shape and type, of so many bytes at most, goes into a vector."""
    return spec.dtype in _VECTOR_OF and spec.shape.num_elements() * spec.dtype.size <= limit


class Packing:
    """How one structure of tensors is packed: small ones of a width behind one another, in one vector.

    Args:
      structure: a nest of tensors of known shapes; others that are to be packed have its shapes and types.
      stacks: those of its tensors [K, ...] that are packed as K tensors, if in no vector.
    """

    def __init__(self, structure: Any, stacks: Sequence[tf.Tensor] = ()):
        self._structure = tf.nest.map_structure(lambda tensor: tf.TensorSpec(tensor.shape, tensor.dtype), structure)
        self._specs = tf.nest.flatten(self._structure)
        self._members: dict[tf.DType, list[int]] = {}
        self._alone, self._stacks = [], []
        for number, (tensor, spec) in enumerate(zip(tf.nest.flatten(structure), self._specs, strict=True)):
            if takes(spec):
                self._members.setdefault(_VECTOR_OF[spec.dtype], []).append(number)
            elif any(tensor is stack for stack in stacks):
                self._stacks.append(number)
            else:
                self._alone.append(number)

    def pack(self, structure: Any) -> tuple[tf.Tensor, ...]:
        """The vectors that there are, then what is in none, and last the stacks' layers."""
        tensors = tf.nest.flatten(structure)
        vectors = [
            tf.concat([_entering(tensors[number], vector) for number in members], axis=0)
            for vector, members in self._members.items()
        ]
        layers = [layer for number in self._stacks for layer in tf.unstack(tensors[number])]
        return (*vectors, *(tensors[number] for number in self._alone), *layers)

    def unpack(self, packed: tuple[tf.Tensor, ...]) -> Any:
        """What `pack` was given."""
        tensors: list[Any] = [None] * len(self._specs)
        rest = iter(packed)
        for members, vector in zip(self._members.values(), rest, strict=False):
            parts = tf.split(vector, [self._specs[number].shape.num_elements() for number in members])
            for number, part in zip(members, parts, strict=True):
                tensors[number] = _leaving(part, self._specs[number])
        for number in self._alone:
            tensors[number] = next(rest)
        for number in self._stacks:
            tensors[number] = tf.stack([next(rest) for _ in range(self._specs[number].shape[0])])
        return tf.nest.pack_sequence_as(self._structure, tensors)


def _entering(tensor: tf.Tensor, vector: tf.DType) -> tf.Tensor:
    tensor = tf.convert_to_tensor(tensor)
    tensor = tf.cast(tensor, vector) if tensor.dtype == tf.bool else tf.bitcast(tensor, vector)
    return tf.reshape(tensor, [-1])


def _leaving(numbers: tf.Tensor, spec: tf.TensorSpec) -> tf.Tensor:
    numbers = tf.reshape(numbers, spec.shape)
    return numbers != 0 if spec.dtype == tf.bool else tf.bitcast(numbers, spec.dtype)
