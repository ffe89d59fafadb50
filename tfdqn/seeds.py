"""Where every draw of a run comes from: a stream for each purpose, a counter within it, and numbers from both.

The generator is SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators", figure 16,
with the constants of Stafford's 13th mixer): number i of a seed is a fixed mixing of seed and i, a dozen integer
operations with the same result op by op, compiled, and on any device. It takes the place of `tf.random.stateless_*`:
inside a compiled program on a CPU, XLA repeats that generator's ten rounds for each of its four results, which took
35 microseconds for 1,024 numbers (here 2.5), two thirds of a step of catch; and of a seed's 64-bit words only the lower
halves count there.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

# Evaluation's streams are never used in training, nor is "look", of what is only shown. "start" is the first reset of
# every environment; "weights" are those of a network before it learns, "noise" what its layers draw while it does;
# "replica" gives the seeds of a run's replicas, "selection" says who takes over whose agent in a population; "play" is
# of `Agent.act`.
_PLAYED = ("evaluation", "final_evaluation", "record", "play", "export")
STREAMS = ("start", "explore", "env", "replay", "restart", "weights", "noise", "look", "replica", "selection", *_PLAYED)
_LOW_63_BITS = 2**63 - 1
_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 over the golden ratio, odd: steps by it come near no earlier place for long
_MIXERS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))  # (shift, factor)
_LAST_SHIFT = 31


def stream(seed: int, name: str, *more: int) -> int:
    """The word, below 2**32, that names a stream of a run.

    Args:
      seed: the run's seed.
      name: one of `STREAMS`.
      *more: whole numbers that tell streams of one purpose apart.
    """
    if name not in STREAMS:
        raise ValueError(f"unknown stream {name!r}")
    # As Python's numbers: NumPy's have another `repr`.
    words = (operator.index(seed), name, *(operator.index(number) for number in more))
    digest = hashlib.sha256(repr(words).encode()).digest()
    return int.from_bytes(digest[:4], "little")


def at(stream: int | tf.Tensor | Sequence[int], counter: int | tf.Tensor) -> tf.Tensor:
    """The seed [2] int64 of one draw: `stream` as above, `counter` [] int64 from 0 to 2**63 - 1.

    Of streams [P], one for each member of a population, the seeds [P, 2].
    """
    words = [tf.convert_to_tensor(word, tf.int64) for word in (stream, counter)]
    if words[0].shape.rank:
        words[1] = tf.broadcast_to(words[1], words[0].shape)
    return tf.stack(words, axis=-1)


def part(seed: tf.Tensor, word: int | Sequence[int]) -> tf.Tensor:
    """The seed [..., 2] int64 of a part of what is drawn by one from `at`; `word`, below 2**32, tells parts apart.

    Of seeds [P, 2], each may have a word of its own, [P].
    """
    offset = (np.asarray(word, np.int64) - 2**31) * 2**32
    return seed + tf.constant(np.stack([offset, np.zeros_like(offset)], axis=-1))


def skip(seed: tf.Tensor, count: int | tf.Tensor) -> tf.Tensor:
    """The seed [..., 2] int64 whose number i is number `count` + i of `seed`, for `count` [] int64.

    So the draws of environments `count`, `count` + 1, ... are had without those before them.
    """
    first, second = _words(seed)
    mixed = _mix(first)
    start = _mix(mixed + second) + tf.cast(count, tf.uint64) * _word(_GOLDEN)
    return tf.cast(tf.stack([first, _unmix(start) - mixed], axis=-1), tf.int64)


def draw(seed: tf.Tensor, num: int | tf.Tensor) -> tf.Tensor:
    """Uniform integers from 0 to 2**63 - 1, [num] int64; of the P seeds of a population each one's in turn, [P * num].

    Args:
      seed: [2] or [P, 2] int64, all bits of which count; as from `at`, or any other two words.
      num: how many of a seed; number i depends on the seed and i alone.
    """
    first, second = _words(seed)
    start = _mix(_mix(first) + second)
    steps = tf.cast(tf.range(1, tf.cast(num, tf.int64) + 1), tf.uint64)
    steps *= _word(_GOLDEN)
    words = tf.reshape(start[:, tf.newaxis] + steps, [-1]) if start.shape.rank else start + steps
    return tf.cast(_mix(words) & _word(_LOW_63_BITS), tf.int64)


def draw_rows(seed: tf.Tensor, rows: int | tf.Tensor, each: int = 1) -> tf.Tensor:
    """`each` numbers for each of so many rows, [rows * each] int64: of P seeds each has an equal share of the rows."""
    seed = tf.convert_to_tensor(seed, tf.int64)
    members = seed.shape[0] if seed.shape.rank == 2 else 1
    return draw(seed, (rows if members == 1 else rows // members) * each)


def _words(seed: tf.Tensor) -> list[tf.Tensor]:
    """Both words of a seed, [] or [P] uint64 each."""
    seed = tf.convert_to_tensor(seed, tf.int64)
    shape = [None, 2] if seed.shape.rank == 2 else [2]
    if not seed.shape.is_compatible_with(shape):
        raise ValueError(f"a seed of shape {seed.shape}: must be two whole numbers, as from seeds.at")
    # Taken apart first: outside XLA no GPU can do that to words of uint64.
    return [tf.cast(word, tf.uint64) for word in tf.unstack(tf.ensure_shape(seed, shape), axis=-1)]


def _mix(word: tf.Tensor) -> tf.Tensor:
    """A bijection of 64-bit words, uint64, in which each bit of the result hangs on all bits."""
    for shift, factor in _MIXERS:
        word = (word ^ tf.bitwise.right_shift(word, _word(shift))) * _word(factor)
    return word ^ tf.bitwise.right_shift(word, _word(_LAST_SHIFT))


def _unmix(word: tf.Tensor) -> tf.Tensor:
    """The word that `_mix` takes to this one."""

    def unshift(word, shift):
        # Each round makes `shift` more of the upper bits right.
        found = word
        for _ in range(64 // shift):
            found = word ^ tf.bitwise.right_shift(found, _word(shift))
        return found

    word = unshift(word, _LAST_SHIFT)
    for shift, factor in reversed(_MIXERS):
        word = unshift(word * _word(pow(factor, -1, 2**64)), shift)
    return word


def _word(value: int) -> tf.Tensor:
    return tf.constant(value, tf.uint64)
