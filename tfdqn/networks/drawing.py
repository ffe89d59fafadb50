"""What the layers of a network draw while it is called: by whose seed, and how much; nothing unless someone says so.

A layer that draws asks `current`; whoever calls a network says it around the call, `with within(Draws(...))`. Whatever
is drawn follows from the seed, the layer's own word and a row's number alone. Shapes: R rows that draw apart.
"""

from __future__ import annotations

import contextlib
import contextvars
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import tensorflow as tf

from tfdqn import seeds


class Draws(NamedTuple):
    """What the layers of a network draw in one call."""

    seed: tf.Tensor  # [2] int64; of networks side by side, that of each, [P, 2]
    rows: int | tf.Tensor  # R: that many draw apart, each for an equal share of the batch; of networks, a multiple of P
    taus: bool = False  # which quantiles are asked for, where a network takes these (see `tfdqn.networks.implicit`)


_CURRENT: contextvars.ContextVar[Draws | None] = contextvars.ContextVar("draws", default=None)


@contextlib.contextmanager
def within(draws: Draws | None) -> Iterator[None]:
    """Meanwhile layers draw so; None: not at all."""
    token = _CURRENT.set(draws)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def current() -> Draws | None:
    """What a layer is to draw now; None for nothing: it plays by its mean."""
    return _CURRENT.get()


def normal(draws: Draws, word: int | Sequence[int], count: int) -> tf.Tensor:
    """Standard normal numbers [R, count] float32 (Box and Muller 1958) of the layer with that word, below 2**32.

    Of networks side by side, the layers' words [P].
    """
    numbers = seeds.draw_rows(seeds.part(draws.seed, word), draws.rows, count)
    # Two independent parts of one draw, of 23 bits, so that no half rounds to 1, and no logarithm is infinite.
    first, second = (tf.cast(part % 2**23, tf.float32) for part in (numbers, tf.bitwise.right_shift(numbers, 23)))
    radius = tf.sqrt(-2.0 * tf.math.log((first + 0.5) / 2.0**23))
    return tf.reshape(radius * tf.cos(second * (2.0 * math.pi / 2.0**23)), [-1, count])


def for_batch(numbers: tf.Tensor, rows: int | tf.Tensor, inputs: tf.Tensor) -> tf.Tensor:
    """Numbers [R, ...] for each of the inputs [B, ...]: [B, ...], or [1, ...] where all have the same."""
    if isinstance(rows, int) and rows in (1, inputs.shape[0]):
        return numbers
    return tf.repeat(numbers, tf.shape(inputs)[0] // rows, axis=0)
