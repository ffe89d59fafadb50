"""The processes that make a run together, on one machine or on several, as TF_CONFIG names them.

TensorFlow's own strategy for this, MultiWorkerMirroredStrategy, brings up what they talk by (gRPC, which has neither
passwords nor encryption, and listens on every network of its machine) and watches over who is still there. A process
by itself opens no port. Nothing here imports TensorFlow before a process joins others.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from tfdqn import console
from tfdqn.errors import EXIT_LOST, UserError

if TYPE_CHECKING:
    import tensorflow as tf

# Of the processes, apart from that of their devices (see `tfdqn.runtime.exchange`).
GROUP_KEY = 7101


class Hosts:
    """A process by itself.

    Attributes:
      rank: its number; the one with 0 is the chief, which alone writes what people read.
      count: how many there are.
    """

    rank, count = 0, 1

    def gather(self, numbers: np.ndarray) -> np.ndarray:
        """Everyone's numbers [K], int64, by rank: [count, K]. All must call it, as the others below."""
        return numbers[np.newaxis]

    def gathered(self, numbers: tf.Tensor) -> tf.Tensor:
        """The same of a tensor; in a program, too, as `sum` is."""
        return numbers[None]

    def sum(self, tensor: tf.Tensor) -> tf.Tensor:
        """The sum of everyone's tensors, float32 or int32."""
        return tensor

    def tensor_from_chief(self, tensor: tf.Tensor) -> tf.Tensor:
        """The chief's tensor of float32, to the bit; everyone has one of that shape."""
        return tensor

    def from_chief(self, text: str) -> str:
        """What the chief says."""
        return text

    @property
    def is_chief(self) -> bool:
        return self.rank == 0


class Workers(Hosts):
    """One of several processes, each with the same command line and a TF_CONFIG of its own."""

    def __init__(self, rank: int, count: int):
        import tensorflow as tf

        self.rank, self.count = rank, count
        self._strategy = tf.distribute.MultiWorkerMirroredStrategy()  # which returns once all are there
        self._numbers = itertools.count(1)

    def _group(self) -> dict[str, Any]:
        number = next(self._numbers)
        return {"group_size": self.count, "group_key": GROUP_KEY, "instance_key": number, "ordering_token": []}

    def gather(self, numbers):
        import tensorflow as tf

        return self.gathered(tf.constant(numbers)).numpy()

    def gathered(self, numbers):
        import tensorflow as tf

        with tf.device("/CPU:0"):
            return tf.raw_ops.CollectiveGatherV2(input=numbers[None], **self._group())

    def sum(self, tensor):
        import tensorflow as tf

        with tf.device("/CPU:0"):
            return tf.raw_ops.CollectiveReduceV2(input=tensor, merge_op="Add", final_op="Id", **self._group())

    def tensor_from_chief(self, tensor):
        import tensorflow as tf

        # As whole numbers: a sum of floats makes a zero of -0.0.
        bits = tf.bitcast(tensor, tf.int32)
        return tf.bitcast(self.sum(bits if self.is_chief else tf.zeros_like(bits)), tf.float32)

    def from_chief(self, text):
        data = text.encode() if self.is_chief else b""
        size = int(self.gather(np.array([len(data)], np.int64))[0, 0])
        letters = np.zeros([size + 1], np.int64)
        letters[: len(data)] = np.frombuffer(data, np.uint8)
        return bytes(self.gather(letters)[0, :size].astype(np.uint8)).decode()


_here = Hosts()
_expected = (0, 1)  # this process's rank, and how many there are to be


def here() -> Hosts:
    """This process's place."""
    return _here


def rank() -> int:
    """What this process's rank is to be."""
    return _expected[0]


def count() -> int:
    """How many processes are to make the run."""
    return _expected[1]


def expect(is_trusted: bool) -> None:
    """Have this process be one of those that TF_CONFIG names, where the user has said that their network is their own.

    Raises:
      UserError: that was not said of several, or TF_CONFIG cannot be read.
    """
    global _expected
    rank, count = _task()
    if count > 1 and not is_trusted:
        raise UserError(
            f"TF_CONFIG names {count} workers, whose ports take orders from whoever reaches them: add "
            "--trusted-network where nobody else does, or unset TF_CONFIG"
        )
    if count == 1 and is_trusted:
        raise UserError("--trusted-network: TF_CONFIG names no other worker; leave it out")
    _expected = rank, count


def join() -> None:
    """Meet the others, if some are expected; before anything is computed in this process."""
    global _here
    rank, count = _expected
    if count > 1 and _here.count == 1:
        console.say(f"worker {rank} of {count}: waiting for all of them ...")
        with _ending_at_once():
            _here = _met(rank, count)


def _met(rank: int, count: int) -> Workers:
    import tensorflow as tf

    try:
        return Workers(rank, count)
    except (tf.errors.OpError, ValueError) as error:
        raise UserError(f"TF_CONFIG: worker {rank} cannot meet the others: {str(error).splitlines()[0]}") from None


@contextlib.contextmanager
def _ending_at_once() -> Iterator[None]:
    """Inside, signals end the process: TensorFlow waits for the others without letting Python see to anything."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def watching(hint: Callable[[], str]) -> Iterator[None]:
    """Inside, a run may be made with others.

    Args:
      hint: how to go on.

    Raises:
      UserError: one of them is gone; exit code 6.
    """
    try:
        yield
    except Exception as error:
        if _here.count == 1 or not _is_loss(error):
            raise
        reason = re.sub(r"\{\{.*?\}\}", "", str(error)).strip().splitlines()[0][:200]
        raise UserError(f"another worker has ended, or cannot be reached ({reason}); {hint()}", EXIT_LOST) from error


def _is_loss(error: Exception) -> bool:
    import tensorflow as tf

    errors = tf.errors
    kinds = (errors.UnavailableError, errors.AbortedError, errors.CancelledError, errors.DeadlineExceededError)
    return isinstance(error, (*kinds, errors.InternalError, errors.FailedPreconditionError, errors.UnknownError))


def _task() -> tuple[int, int]:
    """This process's rank, and the number of processes."""
    text = os.environ.get("TF_CONFIG", "").strip()
    if not text:
        return 0, 1
    try:
        held = json.loads(text)
        if held == {} or not held.get("cluster", True):
            return 0, 1
        cluster, task = held["cluster"], held["task"]
        addresses = {kind: len(list(cluster[kind])) for kind in cluster}
        kind, index = task["type"], int(task["index"])
        number = addresses[kind]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"TF_CONFIG: cannot be read ({type(error).__name__}: {error}); it must be as "
            '{"cluster": {"worker": ["host:port", "host:port"]}, "task": {"type": "worker", "index": 0}}'
        ) from None
    if other := sorted(addresses.keys() - {"chief", "worker"}):
        raise UserError(f"TF_CONFIG: names {other[0]!r}, of which a run has none; it has chief and worker alone")
    if not 0 <= index < number:
        raise UserError(f"TF_CONFIG: {kind} {index}: there are {number}; use 0 to {number - 1}")
    before = addresses.get("chief", 0) if kind == "worker" else 0
    return before + index, sum(addresses.values())
