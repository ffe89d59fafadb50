"""What the machine could do at best, measured in the same run, by the same compiler with the same threads.

No iteration can be shorter than its arithmetic at the rate of a large matmul, nor than its bytes at the rate of a
large copy. The larger of the two is the floor. It says nothing about small programs, whose time is spent on starting
operations: there the share of the floor is tiny, and only the comparison with another revision means something.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from benchmarks.timing import Bench, Sample
from tfdqn.runtime import compiled

MATMUL_SIDE = 2048
COPY_WORDS = 2**24  # of 8 bytes: 128 MiB, which no cache holds


class Copy(Bench):
    """One array into another. Counts what is read and what is written.

    Words are int64: TensorFlow may keep int32 on the host where the device is a GPU.
    """

    units = {"bytes": "B/s"}  # noqa: RUF012

    def __init__(self, device: str, words: int = COPY_WORDS):
        self._device, self._words = device, words
        with tf.device(device):
            self._source, self._to = tf.range(words, dtype=tf.int64), tf.zeros([words], tf.int64)

        def program(source, to, count):
            def body(i, source, to):
                return i + 1, source, source ^ tf.cast(i, tf.int64)  # depends on i, or one copy would do for all

            return tf.while_loop(lambda i, *_: i < count, body, (tf.constant(0), source, to))[2]

        self._program = compiled.xla(program)

    def run(self, count: int) -> dict[str, float]:
        with tf.device(self._device):
            self._program(self._source, self._to, tf.constant(count))[-1].numpy()
        return {"bytes": 2.0 * 8 * self._words * count}


class Matmul(Bench):
    """A float32 product of two square matrices."""

    units = {"operations": "operations/s"}  # noqa: RUF012

    def __init__(self, device: str, side: int = MATMUL_SIDE):
        self._device, self._side = device, side
        # On a GPU, too, as the networks' products are.
        tf.config.experimental.enable_tensor_float_32_execution(False)
        # Orthogonal, so that the product of any number of them neither grows nor vanishes.
        matrix = np.linalg.qr(np.random.default_rng(0).normal(size=(side, side)))[0].astype(np.float32)
        with tf.device(device):
            self._matrix = tf.constant(matrix)

        def program(matrix, count):
            def body(i, product):
                return i + 1, tf.matmul(product, matrix)

            return tf.while_loop(lambda i, _: i < count, body, (tf.constant(0), matrix))[1]

        self._program = compiled.xla(program)

    def run(self, count: int) -> dict[str, float]:
        with tf.device(self._device):
            self._program(self._matrix, tf.constant(count))[0, 0].numpy()
        return {"operations": 2.0 * self._side**3 * count}


def benches(device: str, *, quick: bool = False) -> dict[str, Bench]:
    """The two limits, to be timed in turn with what they limit. The quick ones are small, and their rates too high."""
    if quick:
        return {"floor/copy": Copy(device, 2**21), "floor/matmul": Matmul(device, 512)}
    return {"floor/copy": Copy(device), "floor/matmul": Matmul(device)}


def seconds_at_best(bench: Bench, copy: Sample, matmul: Sample) -> tuple[float, str]:
    """The floor of one iteration in seconds, and the limit that sets it, by one repeat's rates."""
    copy_rate = copy.work["bytes"] / copy.seconds
    matmul_rate = matmul.work["operations"] / matmul.seconds
    by_bytes, by_operations = bench.bytes / copy_rate, bench.operations / matmul_rate
    return (by_operations, "matmul") if by_operations > by_bytes else (by_bytes, "copy")
