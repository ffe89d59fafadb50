"""What MinAtar's games share: 10 x 10 cells of named planes, sticky actions, and a difficulty that rises or not.

The games are those of Young and Tian 2019 ("MinAtar: An Atari-inspired testbed for thorough and reproducible
reinforcement learning experiments"), as the package of that name plays them. Row 0 is the top, column 0 the left.
"""

from __future__ import annotations

import math
from typing import ClassVar

import tensorflow as tf

from tfdqn.envs.base import Environment
from tfdqn.envs.spec import ObservationSpec

SIZE = 10  # rows and columns
STICKY_BITS = 20  # of a draw that decides whether an action sticks
STICKY_DRAWS = 2**STICKY_BITS
NO_OP = 0  # the first action of every game, and what came before an episode's first
NOWHERE = SIZE * SIZE  # a cell, or a column, that is on no screen


class MinAtar(Environment):
    """A game on 10 x 10 cells. Its class sets `planes` and `action_names`, those that have an effect, "none" first."""

    time_limit = 10_000
    planes: ClassVar[tuple[str, ...]]  # what each plane of an observation shows

    def __init__(self, sticky_actions: float = 0.1, difficulty_ramping: bool = True):
        """Make the game.

        Args:
          sticky_actions: the probability of repeating the action before in place of the one chosen, 0 to 1.
          difficulty_ramping: whether it becomes harder with time, where a game does.

        Raises:
          ValueError: no probability.
        """
        if not 0 <= sticky_actions <= 1:
            raise ValueError(f"sticky_actions {sticky_actions!r}: must be a probability, 0 to 1")
        self.observation_spec = ObservationSpec((SIZE, SIZE, len(self.planes)), "bool")
        self.ramps = difficulty_ramping
        # As many draws as there are middles of STICKY_DRAWS equal parts of [0, 1) below the probability.
        self._sticking_draws = math.ceil(sticky_actions * STICKY_DRAWS - 0.5)

    def taken(self, action: tf.Tensor, last: tf.Tensor, sticky: tf.Tensor) -> tf.Tensor:
        """What is done, [N] int32, where `action` is chosen after `last`, by the draws `sticky`."""
        return tf.where(sticky < self._sticking_draws, last, action) if self._sticking_draws else action

    def screen(self, *planes: tf.Tensor) -> tf.Tensor:
        """Planes, each [N, 100] bool, as an observation [N, 10, 10, C]."""
        # XLA computes few entries an instruction where its loop's shape is not that of the long rows of cells: planes
        # first, and then transposed, took half of what entries took that were computed where they lie at last.
        entries = tf.transpose(tf.stack(planes, axis=1), [0, 2, 1])
        return tf.reshape(entries, [-1, SIZE, SIZE, len(self.planes)])


def dot(cell: tf.Tensor) -> tf.Tensor:
    """A plane, [N, 100] bool, with one cell [N] int32, row * 10 + column, set; `NOWHERE` for none."""
    cells = tf.cast(tf.range(SIZE * SIZE), tf.uint8)  # in bytes: many to an instruction
    return cells == tf.cast(_computed_once(cell), tf.uint8)[:, tf.newaxis]


def dot_in_lanes(column: tf.Tensor, first_lane: int) -> tf.Tensor:
    """A plane, [N, 100] bool, with at most one cell set in each of some rows, the lanes.

    Args:
      column: [N, lanes] int32; `NOWHERE` for none.
      first_lane: the row of the first lane; they lie side by side.
    """
    missing = SIZE - first_lane - column.shape[1]
    column = tf.pad(tf.cast(_computed_once(column), tf.uint8), [[0, 0], [first_lane, missing]], constant_values=NOWHERE)
    return tf.reshape(tf.cast(tf.range(SIZE), tf.uint8) == column[..., tf.newaxis], [-1, SIZE * SIZE])


def take_bits(rest: tf.Tensor, count: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Take a draw of `count` bits, at most 31, off wide draws [N] int64: it as int32, and what is left."""
    taken = tf.bitwise.bitwise_and(rest, tf.constant(2**count - 1, tf.int64))
    return tf.cast(taken, tf.int32), tf.bitwise.right_shift(rest, tf.constant(count, tf.int64))


def _computed_once(values: tf.Tensor) -> tf.Tensor:
    """Small numbers, int32, unchanged; a hint to XLA to compute each but once.

    XLA copies what it thinks cheap, a whole step of a game, into the loops over the cells of a screen that read its
    result. It never copies a division.
    """
    return tf.truncatediv(3 * values, 3)
