"""Space Invaders of MinAtar: a cannon in the bottom row shoots at aliens that march sideways, and down at the sides.

The aliens keep their formation, 4 rows of 6: a wave is the place of its upper left corner and a bit for each alien
that is left. A wave that meets a side in the bottom row ends the episode; what is below that row in the last frame is
drawn at the top, as rows count modulo 10.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfdqn import seeds
from tfdqn.envs.base import TimeStep
from tfdqn.envs.minatar import common, row_bits
from tfdqn.envs.minatar.common import SIZE

WAVE_ROWS, WAVE_COLUMNS = 4, 6
WAVE = 2 ** (WAVE_ROWS * WAVE_COLUMNS) - 1  # all aliens are left: bit 6 * row + column of the formation is one of them
WAVE_ROW = 2**WAVE_COLUMNS - 1  # the bits of the formation's first row
WAVE_COLUMN = sum(2 ** (WAVE_COLUMNS * row) for row in range(WAVE_ROWS))  # the bits of its first column
NO_BIT = WAVE_ROWS * WAVE_COLUMNS  # a bit that no wave has
START_TOP, START_LEFT = 0, 2  # where a wave's corner appears
START_CANNON = 5
BOTTOM = SIZE - 1  # row of the cannon

SHOT_PERIOD = 5  # frames between two shots of the cannon, at least
# A shot flies a row a frame, is in row 8 at the end of the frame that fires it, and has left the screen nine frames
# later: while a shot flies, one more may have followed it.
NUM_SHOTS = 2
# Frames between two bombs. One falls a row a frame, so it is below the screen when the next is dropped.
BOMB_PERIOD = 10

# Frames between two steps of the aliens: so many, or as many as there are aliens left, if these are fewer. A wave that
# was cleared takes a frame off, down to the least.
MARCH_PERIOD = 12
LEAST_MARCH_PERIOD = 6

LEFT = 1
RIGHT = 2
FIRE = 3


class Noise(NamedTuple):
    """The draws of one transition. A reset needs none, and uses their N."""

    sticky: tf.Tensor  # [N] int32, 0..STICKY_DRAWS-1


class State(NamedTuple):
    """What a game is made of, after `time` frames. A cell is row * 10 + column."""

    time: tf.Tensor  # [N] int32
    last_action: tf.Tensor  # [N] int32, what was done in the frame before
    cannon: tf.Tensor  # [N] int32, its column
    reload: tf.Tensor  # [N] int32, frames until the cannon can fire
    shots: tf.Tensor  # [N, 2] int32, cells of the newest two shots, newest first; below 0: gone
    bomb: tf.Tensor  # [N] int32, its cell; 100: there is none
    aliens: tf.Tensor  # [N] int32, those that are left, as bits
    top: tf.Tensor  # [N] int32, row of the formation's corner
    left: tf.Tensor  # [N] int32, its column; below 0 where aliens at the left are gone
    heading: tf.Tensor  # [N] int32, the aliens march to the left (-1) or to the right (1)
    march_wait: tf.Tensor  # [N] int32, frames until they step
    march_period: tf.Tensor  # [N] int32, of a whole wave


class SpaceInvaders(common.MinAtar):
    """Space Invaders on 10 x 10 cells; reward 1 for an alien, the end for a bomb or an alien on the cannon."""

    name = "minatar_space_invaders"
    version = 1
    action_names = ("none", "left", "right", "fire")
    planes = ("cannon", "alien", "alien_left", "alien_right", "shot", "bomb")

    def sample_noise(self, seed: tf.Tensor, num_envs: int) -> Noise:
        sticky, _ = common.take_bits(seeds.draw(seed, num_envs), common.STICKY_BITS)
        return Noise(sticky)

    def reset(self, noise: Noise) -> State:
        noise = self.checked_noise(noise)
        zero = tf.zeros_like(noise.sticky)
        return State(
            time=zero,
            last_action=zero + common.NO_OP,
            cannon=zero + START_CANNON,
            reload=zero,
            shots=tf.repeat(zero[:, tf.newaxis] - SIZE, NUM_SHOTS, axis=1),
            bomb=zero + SIZE * SIZE,
            aliens=zero + WAVE,
            top=zero + START_TOP,
            left=zero + START_LEFT,
            heading=zero - 1,
            march_wait=zero + MARCH_PERIOD,
            march_period=zero + MARCH_PERIOD,
        )

    def step(self, state: State, action: tf.Tensor, noise: Noise) -> tuple[State, TimeStep]:
        state, action, noise = self.checked(state, action, noise)
        time = state.time + 1
        action = self.taken(action, state.last_action, noise.sticky)
        move = tf.cast(action == RIGHT, tf.int32) - tf.cast(action == LEFT, tf.int32)
        cannon = tf.clip_by_value(state.cannon + move, 0, SIZE - 1)
        cannon_cell = BOTTOM * SIZE + cannon

        fires = (action == FIRE) & (state.reload == 0)
        fired = tf.concat([cannon_cell[:, tf.newaxis], state.shots[:, :-1]], axis=1)
        shots = tf.maximum(tf.where(fires[:, tf.newaxis], fired, state.shots) - SIZE, -SIZE)
        bomb = tf.minimum(state.bomb + SIZE, SIZE * SIZE)
        is_over = (bomb == cannon_cell) | (_alien_at(state, cannon_cell) != 0)

        # The aliens step to the side, or, where one of them is there already, turn and come down.
        steps = state.march_wait == 0
        side = tf.where(state.heading < 0, 0, SIZE - 1)
        turns = steps & (_aliens_in_column(state, side) != 0)
        is_over |= turns & (_aliens_in_row(state, BOTTOM) != 0)
        march_wait = tf.where(steps, tf.minimum(_count(state.aliens), state.march_period), state.march_wait)
        heading = tf.where(turns, -state.heading, state.heading)
        state = state._replace(
            top=tf.where(turns, (state.top + 1) % SIZE, state.top),
            left=tf.where(steps & ~turns, state.left + heading, state.left),
        )
        is_over |= _alien_at(state, cannon_cell) != 0
        drops_bomb = (time % BOMB_PERIOD == 1) & (time > 1)
        bomb = tf.where(drops_bomb, _nearest_alien(state, cannon), bomb)

        # Both shots hit, since they are never in one cell.
        hit = tf.where(shots >= 0, _alien_at(_per_slot(state), shots), 0)
        aliens = state.aliens - tf.reduce_sum(hit, axis=1)
        kills = tf.reduce_sum(tf.cast(hit != 0, tf.float32), axis=1)

        is_cleared = aliens == 0
        is_faster = is_cleared & (state.march_period > LEAST_MARCH_PERIOD) & self.ramps
        state = State(
            time=time,
            last_action=action,
            cannon=cannon,
            reload=tf.maximum(tf.where(fires, SHOT_PERIOD, state.reload) - 1, 0),
            shots=tf.where(hit != 0, -SIZE, shots),
            bomb=bomb,
            aliens=tf.where(is_cleared, WAVE, aliens),
            top=tf.where(is_cleared, START_TOP, state.top),
            left=tf.where(is_cleared, START_LEFT, state.left),
            heading=heading,
            march_wait=march_wait - 1,
            march_period=tf.where(is_faster, state.march_period - 1, state.march_period),
        )
        timestep = TimeStep(
            observation=self.observe(state),
            reward=kills,
            termination=is_over,
            truncation=(time > self.time_limit) & ~is_over,
        )
        return state, timestep

    def observe(self, state: State) -> tf.Tensor:
        state = tf.nest.map_structure(tf.convert_to_tensor, state)
        margin = WAVE_COLUMNS - 1  # a formation that is partly off to the left has no aliens there
        first = _aliens_in_row(_per_slot(state), np.arange(SIZE))
        aliens = tf.bitwise.right_shift(tf.bitwise.left_shift(first, margin + state.left[:, tf.newaxis]), margin)
        is_to_left = state.heading[:, tf.newaxis] < 0
        return row_bits.screen(
            [
                _drawn(BOTTOM * SIZE + state.cannon[:, tf.newaxis]),
                aliens,
                tf.where(is_to_left, aliens, 0),
                tf.where(is_to_left, 0, aliens),
                _drawn(state.shots),
                _drawn(state.bomb[:, tf.newaxis]),
            ]
        )


def _drawn(cells: tf.Tensor) -> tf.Tensor:
    """A plane in which cells [N, K] are set; those off the screen are above or below it."""
    return row_bits.rows(cells // SIZE, row_bits.bits(cells % SIZE))


def _per_slot(state: State) -> State:
    """The aliens of a state with an axis for slots or rows, [N, 1] in place of [N]."""
    return state._replace(
        aliens=state.aliens[:, tf.newaxis], top=state.top[:, tf.newaxis], left=state.left[:, tf.newaxis]
    )


def _alien_at(state: State, cell: tf.Tensor) -> tf.Tensor:
    """The bit of the alien in a cell, int32; 0 without one."""
    row, column = (cell // SIZE - state.top) % SIZE, cell % SIZE - state.left
    is_inside = (row < WAVE_ROWS) & (0 <= column) & (column < WAVE_COLUMNS)
    bit = tf.where(is_inside, row * WAVE_COLUMNS + column, NO_BIT)
    return state.aliens & tf.bitwise.left_shift(1, bit)


def _aliens_in_column(state: State, column: tf.Tensor) -> tf.Tensor:
    """The bits of the aliens in a column of the screen, int32."""
    column = column - state.left
    is_inside = (0 <= column) & (column < WAVE_COLUMNS)
    return tf.where(is_inside, state.aliens & tf.bitwise.left_shift(WAVE_COLUMN, tf.where(is_inside, column, 0)), 0)


def _aliens_in_row(state: State, row: int | np.ndarray) -> tf.Tensor:
    """The bits of the aliens in a row of the screen, int32, moved to those of the formation's first row."""
    row = (row - state.top) % SIZE
    is_inside = row < WAVE_ROWS
    first = tf.bitwise.right_shift(state.aliens, tf.where(is_inside, row * WAVE_COLUMNS, NO_BIT))
    return first & WAVE_ROW


def _nearest_alien(state: State, column: tf.Tensor) -> tf.Tensor:
    """The cell [N] of the lowest alien in the column nearest to one; of two, the left."""
    place = np.arange(WAVE_COLUMNS)
    away = state.left[:, tf.newaxis] + place - column[:, tf.newaxis]
    is_empty = tf.bitwise.right_shift(state.aliens[:, tf.newaxis], place) & WAVE_COLUMN == 0
    # Twice the distance, and 1 more to the right: a different number for each column.
    rank = tf.reduce_min(tf.where(is_empty, 4 * SIZE, 2 * tf.abs(away) + tf.cast(away > 0, tf.int32)), axis=1)
    column += tf.where(rank % 2 == 1, rank // 2, -(rank // 2))
    bits = _aliens_in_column(state, column)[:, tf.newaxis]
    place = np.arange(WAVE_ROWS)
    is_there = bits & np.array([WAVE_ROW << (WAVE_COLUMNS * row) for row in place]) != 0
    row = tf.reduce_max(tf.where(is_there, (state.top[:, tf.newaxis] + place) % SIZE, 0), axis=1)
    return row * SIZE + column


def _count(bits: tf.Tensor) -> tf.Tensor:
    """How many bits are set, int32."""
    return tf.cast(tf.raw_ops.PopulationCount(x=bits), tf.int32)
