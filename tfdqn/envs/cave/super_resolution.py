"""Multi-frame super-resolution: where an edge lies within its row of the screen, told by all frames that showed it.

A screen shows an edge of the tunnel in whole rows. The next shows it in whole rows again, but from another height, and
a player who knows its own height, as the sum of its own moves, learns a little more: each sight bounds the edge's
place in the world, and the bounds of all sights hold at once. (Images of one scene, displaced by fractions of a pixel,
tell it more finely than any of them: Tsai and Huang 1984, "Multiframe image restoration and registration".)

Nothing here looks behind the screen: what goes in are rows that were drawn and the player's height.

Shapes: N environments, W columns of the screen. Lengths are in `PARTS` of a row.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

PARTS = 25  # of a row: 0.04 rows, of which a height of the cave's player is a multiple
UNKNOWN = 10**8  # further away than any edge


class Edges(NamedTuple):
    """Bounds of one edge in each column, [N, W] int32 in PARTS of a row of the world; it is nowhere else."""

    low: tf.Tensor  # -UNKNOWN without one
    high: tf.Tensor  # UNKNOWN without one


def unseen(num_envs: int | tf.Tensor, columns: int) -> Edges:
    """Edges of which nothing is known."""
    high = tf.fill([num_envs, columns], UNKNOWN)
    return Edges(-high, high)


def scrolled(edges: Edges) -> Edges:
    """The same after the world has moved one column to the left; of the rightmost nothing is known."""
    new = unseen(tf.shape(edges.low)[0], 1)
    return Edges(*(tf.concat([known[:, 1:], fresh], axis=1) for known, fresh in zip(edges, new, strict=True)))


def seen(edges: Edges, row: tf.Tensor, is_shown: tf.Tensor, screen_top: tf.Tensor, rows: int) -> Edges:
    """What is known after one more screen.

    Args:
      row: [N, W] int32, the row that the edge cuts; 0 also for an edge above the screen, `rows` for one below it.
      is_shown: [N, W] bool, whether the column tells it.
      screen_top: [N, 1] int32, the place of the screen's row 0 in the world.
      rows: of the screen.
    """
    low = screen_top + PARTS * row
    return Edges(
        low=tf.where(is_shown & (row > 0), tf.maximum(edges.low, low), edges.low),
        high=tf.where(is_shown & (row < rows), tf.minimum(edges.high, low + PARTS), edges.high),
    )


def cut(edges: Edges, row: tf.Tensor, screen_top: tf.Tensor) -> tf.Tensor:
    """How much of the row that an edge cuts lies above it, as far as is known: [N, W] int32, 0..PARTS - 1.

    The middle of the bounds is taken for the edge; without both of them, 0.
    """
    is_known = (edges.low > -UNKNOWN) & (edges.high < UNKNOWN)
    above = (edges.low + edges.high) // 2 - screen_top - PARTS * row
    return tf.where(is_known, tf.clip_by_value(above, 0, PARTS - 1), 0)
