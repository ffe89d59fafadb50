"""What MinAtar's games share: 10 x 10 cells of named planes, sticky actions, and a difficulty that rises or not.

The games are those of Young and Tian 2019 ("MinAtar: An Atari-inspired testbed for thorough and reproducible
reinforcement learning experiments"), as the package of that name plays them. Row 0 is the top, column 0 the left.
"""

from __future__ import annotations

import functools
import math
from typing import ClassVar

import tensorflow as tf

from tfdqn.envs.base import Environment
from tfdqn.envs.spec import ObservationSpec

SIZE = 10  # rows and columns
STICKY_BITS = 20  # of a draw that decides whether an action sticks
STICKY_DRAWS = 2**STICKY_BITS
NO_OP = 0  # the first action of every game, and what came before an episode's first
NOWHERE = SIZE * SIZE  # a cell that is on no screen
NO_ENTRY = 2**8 - 1  # an entry that no row has


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

    def dots(self, *places: tuple[str, tf.Tensor]) -> tf.Tensor:
        """A screen of single cells, [N, 100 * C] bool, the planes of a cell side by side.

        Args:
          places: planes and the cells [N] int32, row * 10 + column, that are set there; `NOWHERE` for none.
        """
        # One row of all entries is long enough for XLA to compare many an instruction, in a narrow type.
        entry = tf.cast(tf.range(SIZE * SIZE * len(self.planes)), tf.uint16)
        found = []
        for plane, cell in places:
            place = cell * len(self.planes) + self.planes.index(plane)
            found.append(entry == tf.cast(place, tf.uint16)[:, tf.newaxis])
        return functools.reduce(tf.logical_or, found)

    def entry(self, column: tf.Tensor, plane: int | tf.Tensor, is_there: tf.Tensor) -> tf.Tensor:
        """Where a cell of a row lies among the row's entries, for `in_rows`; shapes as `column`'s."""
        return tf.where(is_there, column * len(self.planes) + plane, NO_ENTRY)

    def in_rows(self, *entries: tf.Tensor) -> tf.Tensor:
        """A screen, [N, 100 * C]: each of `entries`, [N, 10] as from `entry`, sets at most one cell in each row."""
        # In bytes: many to an instruction.
        places = tf.cast(tf.range(SIZE * len(self.planes)), tf.uint8)
        rows = functools.reduce(
            tf.logical_or, [places == tf.cast(entry, tf.uint8)[..., tf.newaxis] for entry in entries]
        )
        return tf.reshape(rows, [-1, SIZE * SIZE * len(self.planes)])

    def on_screen(self, entries: tf.Tensor) -> tf.Tensor:
        """Entries [N, 100 * C] as an observation, [N, 10, 10, C]."""
        return tf.reshape(entries, [-1, SIZE, SIZE, len(self.planes)])


def take_bits(rest: tf.Tensor, count: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Take a draw of `count` bits, at most 31, off wide draws [N] int64: it as int32, and what is left."""
    taken = tf.bitwise.bitwise_and(rest, tf.constant(2**count - 1, tf.int64))
    return tf.cast(taken, tf.int32), tf.bitwise.right_shift(rest, tf.constant(count, tf.int64))
