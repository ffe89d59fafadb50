"""catch8 and the cave in JAX, from the games' rules, one environment at a time (to be mapped over many by `vmap`).

Nothing of tfdqn is imported: this runs where TensorFlow is not installed. `peers.traces` plays recorded games of the
originals through both. Randomness enters a transition as integers, heights and walls are integers: see
`tfdqn/envs/cave.py` for the units.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

CATCH_SIZE = 8  # rows and columns
CAVE_SIZE = 48


class Step(NamedTuple):
    """What a transition shows, besides the next state."""

    reward: Array  # [] float32
    is_terminal: Array  # [] bool, ended by the rules
    is_over: Array  # [] bool, ended by the rules or by the time limit


class CatchState(NamedTuple):
    time: Array  # [] int32
    paddle: Array  # [] int32, leftmost column
    columns: Array  # [2] int32, of the newest ball and of the one before


class Catch8:
    """Balls fall, a paddle three cells wide must be under each; one ball every five frames."""

    num_actions, shape = 3, (CATCH_SIZE, CATCH_SIZE)
    draws = 2  # 32-bit words for one transition and one reset
    time_limit = 500

    def reset(self, draws):
        """Of `draws` [2] uint32, the first decides the start."""
        paddle = (draws[0] % (CATCH_SIZE - 3)).astype(jnp.int32)
        column = (draws[0] // (CATCH_SIZE - 3) % CATCH_SIZE).astype(jnp.int32)
        return self.start(paddle, column)

    def start(self, paddle, column):
        return CatchState(jnp.zeros_like(paddle), paddle, jnp.stack([column, column]))

    def step(self, state, action, draws):
        """Of `draws`, the second picks the next ball's column, by its rank among the allowed ones."""
        time = state.time + 1
        paddle = jnp.clip(state.paddle + (action == 2) - (action == 1), 0, CATCH_SIZE - 3)
        # A new ball is at least three columns away from the last: left of it are last - 2, right of it 5 - last.
        last = state.columns[0]
        left, right = jnp.maximum(last - 2, 0), jnp.maximum(5 - last, 0)
        rank = (draws[1] & 0x7FFFFFFF).astype(jnp.int32) % (left + right)
        posted = jnp.where(rank < left, rank, last + 3 + rank - left)
        columns = jnp.where(time % 5 == 0, jnp.stack([posted, last]), state.columns)
        # The first ball lands in frame 7 and the others every fifth frame from there: always the older of the two.
        lands = (time % 5 == 2) & (time >= 7)
        caught = lands & (paddle <= columns[1]) & (columns[1] < paddle + 3)
        dropped = lands & ~caught
        reward = caught.astype(jnp.float32) - dropped.astype(jnp.float32)
        return CatchState(time, paddle, columns), Step(reward, dropped, dropped | (time > self.time_limit))

    def observe(self, state):
        """[8, 8] uint8."""
        row = jnp.arange(CATCH_SIZE, dtype=jnp.int32)[:, None]
        column = jnp.arange(CATCH_SIZE, dtype=jnp.int32)[None, :]
        is_paddle = (row == CATCH_SIZE - 1) & (state.paddle <= column) & (column < state.paddle + 3)
        newest = state.time % 5  # its row; the one before is five rows further down
        is_ball = (row == newest) & (column == state.columns[0])
        is_ball |= (row == newest + 5) & (column == state.columns[1]) & (state.time >= 5)
        return jnp.where(is_ball, jnp.uint8(128), jnp.where(is_paddle, jnp.uint8(255), jnp.uint8(0)))


class CaveState(NamedTuple):
    time: Array  # [] int32
    speed: Array  # [] int32, in 0.08 rows a frame
    slope: Array  # [] int32, 1, 0 or -1
    tail: Array  # [15] int32, heights, the newest last, in 0.08 rows from 24
    centres: Array  # [48] int32, of the wall columns, in 1e-8 of the screen's height, modulo 2**32
    tops: Array  # [3] int32, of the newest blocks, newest first, in rows of the world


ROW = 6_250_000  # walls are compared in units of 1.6e-7 rows


class Cave:
    """A tunnel with blocks in it that scrolls past the player."""

    num_actions, shape = 2, (CAVE_SIZE, CAVE_SIZE)
    draws = 2
    time_limit = 10_000

    def reset(self, draws):
        zero = jnp.zeros([], jnp.int32)
        return CaveState(
            zero,
            zero,
            zero,
            jnp.zeros([15], jnp.int32),
            jnp.full([CAVE_SIZE], 50_000_000, jnp.int32),
            jnp.zeros([3], jnp.int32),
        )

    def step(self, state, action, draws):
        """`draws`: the wall's u in 1e-7 (taken modulo 10,000,000), and the rank of a block's row."""
        time = state.time + 1
        speed = state.speed + jnp.where(action == 1, -1, 1)
        height = state.tail[-1] + speed
        tail = jnp.append(state.tail[1:], height)

        u = (draws[0] % 10_000_000).astype(jnp.int32)
        up = u > jnp.where(state.slope == 1, 2_000_000, 6_000_000)
        down = ~up & (u < jnp.where(state.slope == -1, 8_000_000, 4_000_000))
        move = jnp.where(up, u - 6_000_000, jnp.where(down, u - 4_000_000, 0))
        centres = jnp.append(state.centres[1:], state.centres[-1] + move)

        first, end = self._block_rows(centres[-1], height, time)
        top = first + (draws[1] & 0x7FFFFFFF).astype(jnp.int32) % (end - first)
        is_posted = (time >= 51) & ((time - 51) % 21 == 0)
        tops = jnp.where(is_posted, jnp.append(top[None], state.tops[:-1]), state.tops)

        state = CaveState(time, speed, up.astype(jnp.int32) - down.astype(jnp.int32), tail, centres, tops)
        crash = self._hits(state)
        return state, Step(-crash.astype(jnp.float32), crash, crash | (time > self.time_limit))

    def _opening(self, made_at):
        return jnp.maximum(55 - jnp.maximum(made_at, 0) // 51, 30)  # hundredths of the screen's height

    def _block_rows(self, centre, height, time):
        """The rows int(c - h/2) .. int(c + h/2 - 6): they overflow as ROWths, so whole rows are split off first."""
        half = 24 * self._opening(time)  # hundredths of a row
        # Far from the start both terms wrap, and their difference wraps back. It is in ROWths, the height in 25ths of
        # two rows; exact in whole rows and 25,000,000ths.
        distance = 3 * centre - 500_000 * height
        whole = distance // ROW + 2 * height // 25
        rest = 4 * (distance % ROW) + 1_000_000 * (2 * height % 25)

        def truncated(hundredths):  # whole + rest / 25e6 + hundredths / 100, toward zero
            rows, part = hundredths // 100, hundredths % 100
            fraction = rest + part * 250_000
            floor = whole + rows + fraction // 25_000_000
            return jnp.where((floor < 0) & (fraction % 25_000_000 != 0), floor + 1, floor)

        return truncated(-half), truncated(half - 600)

    def _edges(self, state, columns):
        """Both edges of the opening in some columns, relative to the screen, in ROWths."""
        half = 1_500_000 * self._opening(state.time - (CAVE_SIZE - 1 - columns))
        middle = 3 * state.centres[columns] - 500_000 * state.tail[-1]  # may wrap on the way, and wraps back
        return middle - half, middle + half

    def _ages(self, time):
        """Frames since each of the three newest blocks appeared, -1 for none on screen."""
        age = (time - 51) % 21 + jnp.asarray([0, 21, 42])
        return jnp.where((age <= time - 51) & (age <= CAVE_SIZE), age, -1)

    def _hits(self, state):
        upper, lower = self._edges(state, jnp.asarray([15]))
        wall = ((24 * ROW <= upper) | (lower <= 24 * ROW))[0]
        age = self._ages(state.time)
        column = CAVE_SIZE - age
        depth = 600 + 2 * state.tail[-1] - 25 * state.tops  # of the player below a block's top, in 25ths of a row
        block = (age >= 0) & (column <= 15) & (15 <= column + 2) & (0 <= depth) & (depth <= 150)
        return wall | block.any()

    def observe(self, state):
        """[48, 48] uint8."""
        row = jnp.arange(CAVE_SIZE, dtype=jnp.int32)[:, None]
        columns = jnp.arange(CAVE_SIZE, dtype=jnp.int32)
        # Entry i of the tail is drawn in column i - 1, the player in column 14, all in row int(height - 0.5).
        trail = jnp.append(state.tail[1:], state.tail[-1])
        hundredths = 2350 + 8 * (trail - state.tail[-1])
        trail_row = jnp.where(hundredths < 0, -1, hundredths // 100)
        trail_row = jnp.concatenate([trail_row, jnp.full([CAVE_SIZE - 15], -1, jnp.int32)])
        level = jnp.where(columns == 14, jnp.uint8(255), jnp.uint8(204))
        screen = jnp.where(row == trail_row, level, jnp.uint8(0))

        age = self._ages(state.time)
        first = lax.div(25 * state.tops - 2 * state.tail[-1], 25)  # rounds toward zero, as the original does
        end = lax.div(25 * (state.tops + 6) - 2 * state.tail[-1], 25)
        left = CAVE_SIZE - age
        for k in range(3):
            inside = (row >= first[k]) & (row < end[k]) & (columns >= left[k]) & (columns < left[k] + 2)
            screen = jnp.where(inside & (age[k] >= 0) & (first[k] >= 0), jnp.uint8(128), screen)

        upper, lower = self._edges(state, columns)
        is_wall = (row < lax.div(upper, ROW)) | (row >= lax.div(lower, ROW))
        return jnp.where(is_wall, jnp.uint8(102), screen)


GAMES = {"catch8": Catch8, "cave": Cave}
