"""Where every draw of a run comes from: a stream for each purpose, and a counter within it.

`tf.random.stateless_*` takes two 64-bit words as its seed, but under XLA only the lower 32 bits of each count (measured
with TensorFlow 2.21: [1, 5] and [1, 2**32 + 5] draw the same numbers, so do [1, -1] and [1, 2**32 - 1]), while op by op
all 64 do. A seed made here keeps both words below 2**32, so that it means the same everywhere, and mixes the counter's
upper half into the first word, so that no stream ever repeats.
"""

from __future__ import annotations

import hashlib

import tensorflow as tf

# Evaluation's streams are never used in training. "start" is the first reset of every environment.
STREAMS = ("start", "explore", "env", "replay", "restart", "evaluation", "final_evaluation", "record")
_LOW_32_BITS = 2**32 - 1
_GOLDEN = 0x9E3779B1  # odd, so that every upper half of a counter leads to another first word


def stream(seed: int, name: str, *more: int) -> int:
    """The word, below 2**32, that names a stream of a run.

    Args:
      seed: the run's seed.
      name: one of `STREAMS`.
      *more: whole numbers that tell streams of one purpose apart.
    """
    if name not in STREAMS:
        raise ValueError(f"unknown stream {name!r}")
    digest = hashlib.sha256(repr((seed, name, *more)).encode()).digest()
    return int.from_bytes(digest[:4], "little")


def at(stream: int | tf.Tensor, counter: int | tf.Tensor) -> tf.Tensor:
    """The seed [2] int64 of one draw: `stream` as above, `counter` [] int64 from 0 to 2**63 - 1."""
    stream, counter = (tf.convert_to_tensor(word, tf.int64) for word in (stream, counter))
    upper = tf.bitwise.right_shift(counter, 32)
    first = tf.bitwise.bitwise_and(stream + upper * _GOLDEN, _LOW_32_BITS)
    return tf.stack([first, tf.bitwise.bitwise_and(counter, _LOW_32_BITS)])
