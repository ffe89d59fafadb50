"""Planes as the bits of their rows, and a screen made of them: for games in which many things may share a cell.

Bit c of a row is its column c. Rows with an "or" are a tenth of a plane's entries, and all the work but the last step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfdqn.envs.minatar.common import SIZE


def bits(column: tf.Tensor) -> tf.Tensor:
    """The bit of each column, int32; none for a column off the screen."""
    is_there = (0 <= column) & (column < SIZE)
    return tf.where(is_there, tf.bitwise.left_shift(1, tf.where(is_there, column, 0)), 0)


def rows(row: tf.Tensor, row_bits: tf.Tensor) -> tf.Tensor:
    """Each row's bits of a few things, [N, 10] int32, where thing k sets `row_bits` [N, K] in `row` [N, K]."""
    found = tf.constant(0)
    for k in range(row.shape[1]):
        # Not [:, k, tf.newaxis]: TensorFlow 2.21's optimizer of plain graphs loses the new axis of what was stacked.
        found |= tf.where(row[:, k : k + 1] == np.arange(SIZE), row_bits[:, k : k + 1], 0)
    return found


def crowded_rows(row: tf.Tensor, column: tf.Tensor) -> tf.Tensor:
    """Each row's bits, [N, 10] int32, of many things in `row` and `column` [N, K], at most three of them in a cell."""
    # A sum is one operation for any number of things, and of two bits for each column none overflows. Of a long chain
    # of "or", XLA would make copies of copies.
    pairs = bits(column) * bits(column)
    is_in_row = row[:, tf.newaxis] == np.arange(SIZE)[:, np.newaxis]
    found = tf.reduce_sum(tf.where(is_in_row, pairs[:, tf.newaxis], 0), axis=2)
    # Put the even bits together again.
    for shift, kept in ((1, 0x55555), (1, 0x33333), (2, 0xF0F0F), (4, 0xF00FF), (8, 0xFFFFF)):
        found = (found | tf.bitwise.right_shift(found, shift)) & kept
    return found & (2**SIZE - 1)


def screen(planes: Sequence[tf.Tensor]) -> tf.Tensor:
    """The observation [N, 10, 10, C] bool of C planes, 2 to 12, [N, 10] int32 each."""
    half = -(-len(planes) // 2)
    column, plane = np.divmod(np.arange(SIZE * len(planes)), len(planes))
    words, masks = [], []
    for first in (0, half):
        part = tf.cast(tf.stack(planes[first : first + half]), tf.int64)
        words.append(tf.reduce_sum(part * 2 ** (SIZE * np.arange(part.shape[0]))[:, np.newaxis, np.newaxis], axis=0))
        is_in_word = (first <= plane) & (plane < first + half)
        masks.append(np.where(is_in_word, np.int64(1) << (SIZE * (plane - first) + column) % (SIZE * half), 0))
    # Reduced over an axis before the others, since XLA would otherwise write the last axis of C entries one by one,
    # which takes two to three times as long.
    is_set = tf.stack(words)[..., tf.newaxis] & np.stack(masks)[:, np.newaxis, np.newaxis] != 0
    return tf.reshape(tf.reduce_any(is_set, axis=0), [-1, SIZE, SIZE, len(planes)])


def computed_once(values: Any) -> Any:
    """Nested tensors, unchanged, with a hint to XLA to compute integers but once; three times as much fits their type.

    XLA copies arithmetic that it thinks cheap into every loop that reads its result. It never copies a division.
    """
    return tf.nest.map_structure(lambda each: tf.truncatediv(3 * each, 3) if each.dtype.is_integer else each, values)
