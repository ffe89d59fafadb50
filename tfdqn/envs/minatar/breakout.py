"""Breakout of MinAtar: a ball flies along diagonals, and a paddle in the bottom row keeps it among bricks.

All that moves are cells; the thirty bricks are the bits of one number. Random are the side on which the ball starts and
the actions that stick, nothing else.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfdqn import seeds
from tfdqn.envs.base import TimeStep
from tfdqn.envs.minatar import common
from tfdqn.envs.minatar.common import SIZE

FIRST_ROW = 1  # of the bricks
BRICK_ROWS = 3
NUM_BRICKS = BRICK_ROWS * SIZE
WALL = 2**NUM_BRICKS - 1  # all bricks are there: bit (row - FIRST_ROW) * 10 + column is one of them
NO_BIT = NUM_BRICKS  # a bit that no wall has
# The bit of each cell, [100]; NO_BIT outside the rows of bricks.
BRICK_OF_CELL = np.full(SIZE * SIZE, NO_BIT, np.int32)
BRICK_OF_CELL[FIRST_ROW * SIZE : (FIRST_ROW + BRICK_ROWS) * SIZE] = np.arange(NUM_BRICKS)

START_ROW = 3  # of the ball, at the left side flying right or at the right side flying left, and down
START_PADDLE = 4
BOTTOM = SIZE - 1  # row of the paddle: a ball that enters it beside the paddle is lost

LEFT = 1
RIGHT = 2


class Noise(NamedTuple):
    """The draws of one transition (the first) or one reset (the second)."""

    sticky: tf.Tensor  # [N] int32, 0..STICKY_DRAWS-1
    start: tf.Tensor  # [N] int32 >= 0; even: the ball starts at the left, odd: at the right


class State(NamedTuple):
    """What a game is made of, after `time` frames."""

    time: tf.Tensor  # [N] int32
    last_action: tf.Tensor  # [N] int32, what was done in the frame before
    paddle: tf.Tensor  # [N] int32, its column
    ball_x: tf.Tensor  # [N] int32, column
    ball_y: tf.Tensor  # [N] int32, row
    move_x: tf.Tensor  # [N] int32, columns in the next frame, 1 or -1
    move_y: tf.Tensor  # [N] int32, rows in the next frame, 1 or -1
    trail: tf.Tensor  # [N] int32, the cell where the ball was before: row * 10 + column
    bricks: tf.Tensor  # [N] int32, those that are left, as bits
    is_inside: tf.Tensor  # [N] bool, the ball met a brick in the frame before: it flies through the next


class Breakout(common.MinAtar):
    """Breakout on 10 x 10 cells; reward 1 for a brick, the end for a lost ball. It never becomes harder."""

    name = "minatar_breakout"
    version = 1
    action_names = ("none", "left", "right")
    planes = ("paddle", "ball", "trail", "bricks")

    def sample_noise(self, seed: tf.Tensor, num_envs: int) -> Noise:
        sticky, rest = common.take_bits(seeds.draw(seed, num_envs), common.STICKY_BITS)
        start, _ = common.take_bits(rest, 31)
        return Noise(sticky, start)

    def reset(self, noise: Noise) -> State:
        noise = self.checked_noise(noise)
        is_left = noise.start % 2 == 0
        zero = tf.zeros_like(noise.start)
        ball_x = tf.where(is_left, 0, SIZE - 1)
        return State(
            time=zero,
            last_action=zero + common.NO_OP,
            paddle=zero + START_PADDLE,
            ball_x=ball_x,
            ball_y=zero + START_ROW,
            move_x=tf.where(is_left, 1, -1),
            move_y=zero + 1,
            trail=START_ROW * SIZE + ball_x,
            bricks=zero + WALL,
            is_inside=tf.zeros_like(is_left),
        )

    def step(self, state: State, action: tf.Tensor, noise: Noise) -> tuple[State, TimeStep]:
        state, action, noise = self.checked(state, action, noise)
        time = state.time + 1
        action = self.taken(action, state.last_action, noise.sticky)
        move = tf.cast(action == RIGHT, tf.int32) - tf.cast(action == LEFT, tf.int32)
        paddle = tf.clip_by_value(state.paddle + move, 0, SIZE - 1)

        # A side turns the ball around before anything else does; it flies along the side for this frame.
        x, y = state.ball_x + state.move_x, state.ball_y + state.move_y
        is_aside = (x < 0) | (x >= SIZE)
        x = tf.clip_by_value(x, 0, SIZE - 1)
        is_above = y < 0

        is_among_bricks = (y >= FIRST_ROW) & (y < FIRST_ROW + BRICK_ROWS)
        bit = tf.where(is_among_bricks, (y - FIRST_ROW) * SIZE + x, NO_BIT)
        brick = tf.bitwise.bitwise_and(state.bricks, tf.bitwise.left_shift(1, bit))
        is_inside = brick != 0
        is_broken = is_inside & ~state.is_inside
        bricks = tf.where(is_broken, state.bricks - brick, state.bricks)

        # At the bottom a new wall comes where none is left, and the paddle throws the ball back: one that comes from
        # above its column upwards, one that enters its column from beside it the way it came
        # (never one at a side, which stays in its column).
        is_low = y == BOTTOM
        bricks = tf.where(is_low & (bricks == 0), WALL, bricks)
        is_above_paddle = is_low & (state.ball_x == paddle)
        is_beside_paddle = is_low & ~is_above_paddle & (x == paddle)
        is_lost = is_low & ~is_above_paddle & ~is_beside_paddle
        is_thrown = is_broken | is_above_paddle | is_beside_paddle

        state = State(
            time=time,
            last_action=action,
            paddle=paddle,
            ball_x=x,
            ball_y=tf.where(is_above, 0, tf.where(is_thrown, state.ball_y, y)),
            move_x=tf.where(is_aside | is_beside_paddle, -state.move_x, state.move_x),
            move_y=tf.where(is_above | is_thrown, -state.move_y, state.move_y),
            trail=state.ball_y * SIZE + state.ball_x,
            bricks=bricks,
            is_inside=is_inside,
        )
        timestep = TimeStep(
            observation=self.observe(state),
            reward=tf.cast(is_broken, tf.float32),
            termination=is_lost,
            truncation=(time > self.time_limit) & ~is_lost,
        )
        return state, timestep

    def observe(self, state: State) -> tf.Tensor:
        shown = tf.bitwise.bitwise_and(tf.bitwise.right_shift(state.bricks[:, tf.newaxis], BRICK_OF_CELL), 1)
        return self.screen(
            common.dot(BOTTOM * SIZE + state.paddle),
            common.dot(state.ball_y * SIZE + state.ball_x),
            common.dot(state.trail),
            shown == 1,
        )
