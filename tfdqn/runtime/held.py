"""Variables that are tensors while a loop's turn is traced.

XLA has a loop carry each variable that it writes as an array of its own, and on a GPU each such array is a kernel. What
a loop is handed as tensors can lie in one vector. So a turn is traced with variables that are held: to read one gives a
tensor, to assign to one changes which. Nothing is computed otherwise.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf


class _Held:
    """What a variable is meanwhile; it holds no number of its own then."""

    held: list[tf.Tensor]  # the value now, in the innermost loop last

    @property
    def handle(self) -> Any:
        """Refused: what asks for it would read or write past the value that is held."""
        raise AttributeError(f"{self.name} is held as a tensor while a loop is traced: it has no handle then")

    def _read_variable_op(self, no_copy: bool = False) -> tf.Tensor:
        return self.held[-1]

    def assign(self, value: Any, use_locking: Any = None, name: Any = None, read_value: bool = True) -> Any:
        value = tf.convert_to_tensor(value, self.dtype)
        self.held[-1] = tf.ensure_shape(value, self.shape) if value.shape != self.shape else value
        return self

    def assign_add(self, delta: Any, use_locking: Any = None, name: Any = None, read_value: bool = True) -> Any:
        return self.assign(self.held[-1] + tf.convert_to_tensor(delta, self.dtype))

    def assign_sub(self, delta: Any, use_locking: Any = None, name: Any = None, read_value: bool = True) -> Any:
        return self.assign(self.held[-1] - tf.convert_to_tensor(delta, self.dtype))

    def scatter_update(self, sparse_delta: tf.IndexedSlices, use_locking: Any = None, name: Any = None) -> Any:
        return self.scatter_nd_update(sparse_delta.indices[:, tf.newaxis], sparse_delta.values)

    def scatter_nd_update(self, indices: Any, updates: Any, name: Any = None) -> Any:
        return self.assign(tf.tensor_scatter_nd_update(self.held[-1], indices, updates))

    def sparse_read(self, indices: Any, name: Any = None) -> tf.Tensor:
        return tf.gather(self.held[-1], indices)

    def gather_nd(self, indices: Any, name: Any = None) -> tf.Tensor:
        return tf.gather_nd(self.held[-1], indices)


@contextlib.contextmanager
def holding(variables: Sequence[tf.Variable], values: Sequence[tf.Tensor]) -> Iterator[None]:
    """Meanwhile these variables have these values, as tensors, whatever they have themselves.

    While a graph is made: op by op, TensorFlow reads a variable past Python.
    """
    for variable, value in zip(variables, values, strict=True):
        if not isinstance(variable, _Held):
            kind = type(variable)
            variable.held, variable.__class__ = [], type(kind.__name__, (_Held, kind), {"kind": kind})
        variable.held.append(value)
    try:
        yield
    finally:
        for variable in variables:
            variable.held.pop()
            if not variable.held:
                variable.__class__ = variable.kind
                del variable.held


def values_of(variables: Sequence[tf.Variable]) -> list[tf.Tensor]:
    """What variables have now, held or not."""
    return [variable.held[-1] if isinstance(variable, _Held) else variable.read_value() for variable in variables]


class Tape(tf.GradientTape):
    """A gradient tape that takes gradients by variables, whether they are held or not.

    Args:
      variables: that it is asked about.
    """

    def __init__(self, variables: Sequence[tf.Variable]):
        super().__init__()
        self._sources = [(each, each.held[-1]) for each in variables if isinstance(each, _Held)]

    def __enter__(self) -> Tape:
        super().__enter__()
        self.watch([value for _, value in self._sources])
        return self

    def gradient(self, target: tf.Tensor, sources: Sequence[tf.Variable], **keywords: Any) -> list[tf.Tensor]:
        held = {id(variable): value for variable, value in self._sources}
        return super().gradient(target, [held.get(id(variable), variable) for variable in sources], **keywords)
