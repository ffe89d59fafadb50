"""What replicas of a learner, each on a device of its own, make of their gradients: their mean, in every update.

A program that is traced `within` an exchange holds one collective operation an update. Each replica's program is
another, and runs in a thread or a process of its own: whoever comes to the operation waits there for the others.
Under XLA, TensorFlow has collectives for the GPUs of one host alone (2.21: on a CPU it refuses to compile them).
"""

from __future__ import annotations

import contextlib
import contextvars
import itertools
from collections.abc import Iterator, Sequence

import tensorflow as tf

# TensorFlow's own strategies count their groups from 1.
GROUP_KEY = 7001
_MOST_OPERATIONS = 2**20  # of a run; op by op, each update has one
_runs = itertools.count(1)  # in a process; one of several makes as many as the others


def ends(count: int, num_here: int) -> list[Exchange]:
    """A new run's exchanges, one for each of its replicas in this process.

    Args:
      count: R, replicas, of all processes.
      num_here: those of this process.
    """
    first = next(_runs) * _MOST_OPERATIONS
    return [Exchange(count, first) for _ in range(num_here)]


class Exchange:
    """One replica's end of what all of them exchange.

    Args:
      count: R, replicas.
      first: number of its first operation. All replicas make theirs in the same order, and no run has another's.
    """

    def __init__(self, count: int, first: int):
        self._count, self._numbers = count, itertools.count(first)

    def mean(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """The mean of each tensor over the replicas; float32, and all of them in one operation."""
        flat = tf.concat([tf.reshape(each, [-1]) for each in tensors], axis=0)
        parts = tf.split(self.sum(flat) / float(self._count), [each.shape.num_elements() for each in tensors])
        return [tf.reshape(part, each.shape) for part, each in zip(parts, tensors, strict=True)]

    def sum(self, tensor: tf.Tensor) -> tf.Tensor:
        """The sum of a tensor over the replicas."""
        return tf.raw_ops.CollectiveReduceV2(
            input=tensor,
            group_size=self._count,
            group_key=GROUP_KEY + self._count,  # a group has a size
            instance_key=next(self._numbers),
            ordering_token=[],
            merge_op="Add",
            final_op="Id",
        )


_current: contextvars.ContextVar[Exchange | None] = contextvars.ContextVar("exchange", default=None)


@contextlib.contextmanager
def within(exchange: Exchange | None) -> Iterator[None]:
    """Meanwhile what is traced here exchanges gradients by it; with None nothing is exchanged."""
    token = _current.set(exchange)
    try:
        yield
    finally:
        _current.reset(token)


def mean(gradients: Sequence[tf.Tensor]) -> Sequence[tf.Tensor]:
    """Gradients as the update is to have them: their mean over the replicas; of a learner alone as they are."""
    exchange = _current.get()
    return gradients if exchange is None else exchange.mean(gradients)
