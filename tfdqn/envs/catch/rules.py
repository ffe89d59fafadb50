"""Catch: balls fall down a small square screen, and a paddle in the bottom row must be under each of them.

The rules are those of `CatchBall` in yukiB/keras-dqn-test (sizes 8 and 16) and of the one-ball game in
algolab-inc/tf-dqn-simple. Row 0 is the top. Everything but the draws and the paddle is a function of time: balls are
posted at a fixed period and fall one row a frame, so the state holds no rows, only the columns of the newest balls.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from tfdqn import seeds
from tfdqn.envs.base import Environment, TimeStep

PADDLE_WIDTH = 3  # cells; `paddle` is the leftmost
BALL_PERIOD = 5  # frames between two balls: one appears in frames 5, 10, 15, ...
MIN_JUMP = 3  # columns between two successive balls, at least
MAX_JUMP = {8: 7, 16: 6}  # and at most, by the size of the screen; 7 is no limit on 8 columns
TIME_LIMIT = 500  # frames; the episode is truncated in the frame that passes it
NEVER = TIME_LIMIT + 2  # frames, more than an episode has: the period of a game that posts no further ball

PADDLE_LEVEL = 255  # 1.0
BALL_LEVEL = 128  # 0.5, drawn over the paddle

LEFT = 1
RIGHT = 2


class Noise(NamedTuple):
    """The draws of one reset (the first two) or one transition (the last)."""

    start_paddle: tf.Tensor  # [N] int32, 0..size-4: size-3, the rightmost place, is never a start (as in the original)
    start_column: tf.Tensor  # [N] int32, 0..size-1
    ball_rank: tf.Tensor  # [N] int32 >= 0; modulo the number of allowed columns, it picks one of them from the left


class State(NamedTuple):
    """What a game is made of. The k-th newest ball is in row `time % period + k * period`."""

    time: tf.Tensor  # [N] int32, frames since reset
    paddle: tf.Tensor  # [N] int32, leftmost column of the paddle
    columns: tf.Tensor  # [N, K] int32, columns of the newest K balls, newest first; K fit on the screen


class Catch(Environment):
    """Catch on a `size` x `size` screen; reward +1 for a caught ball, -1 and the end for a dropped one."""

    version = 1
    action_names = ("stay", "left", "right")
    frames_per_second = 5.0
    time_limit = TIME_LIMIT
    palette = {0: (0, 0, 0), BALL_LEVEL: (128, 128, 128), PADDLE_LEVEL: (255, 255, 255)}  # noqa: RUF012

    def __init__(self, size: int = 8, single_ball: bool = False, downsample: int = 1):
        """Make the game.

        Args:
          size: rows and columns of the screen, 8 or 16.
          single_ball: post no ball after the first, and end when it is caught, too.
          downsample: 1; a ball is one cell, and would be lost between the rows and columns kept.

        Raises:
          ValueError: another size or downsample.
        """
        if size not in MAX_JUMP:
            raise ValueError(f"catch has no size {size!r}: choose one of {', '.join(map(str, MAX_JUMP))}")
        if downsample != 1:
            raise ValueError(f"catch cannot be downsampled (got {downsample!r}): a ball is one cell; use 1")
        self.name = f"catch{size}_single" if single_ball else f"catch{size}"
        self._size = size
        self._max_jump = MAX_JUMP[size]
        self._ball_period = NEVER if single_ball else BALL_PERIOD
        self._catch_ends_episode = single_ball
        self._num_balls = (size - 1) // self._ball_period + 1  # K
        # Each ball is caught or dropped; the first lands in frame size-1, and the last frame is TIME_LIMIT + 1.
        self.best_score = float((TIME_LIMIT + 1 - (size - 1)) // self._ball_period + 1)

    @property
    def observation_shape(self) -> tuple[int, int]:
        return self._size, self._size

    def sample_noise(self, seed: tf.Tensor, num_envs: int) -> Noise:
        # One wide draw, split by division: cheaper than three draws, and the modulo bias is below 1e-8.
        rest = seeds.draw(seed, num_envs)
        start_paddle, rest = rest % (self._size - PADDLE_WIDTH), rest // (self._size - PADDLE_WIDTH)
        start_column, rest = rest % self._size, rest // self._size
        ball_rank = tf.bitwise.bitwise_and(rest, tf.constant(tf.int32.max, tf.int64))
        return Noise(*(tf.cast(field, tf.int32) for field in (start_paddle, start_column, ball_rank)))

    def reset(self, noise: Noise) -> State:
        noise = self.checked_noise(noise)
        return State(
            time=tf.zeros_like(noise.start_paddle),
            paddle=noise.start_paddle,
            columns=tf.repeat(noise.start_column[:, tf.newaxis], self._num_balls, axis=1),
        )

    def step(self, state: State, action: tf.Tensor, noise: Noise) -> tuple[State, TimeStep]:
        state, action, noise = self.checked(state, action, noise)
        time = state.time + 1
        move = tf.cast(action == RIGHT, tf.int32) - tf.cast(action == LEFT, tf.int32)
        paddle = tf.clip_by_value(state.paddle + move, 0, self._size - PADDLE_WIDTH)

        is_posted = time % self._ball_period == 0
        posted_column = self._allowed_column(noise.ball_rank, last=state.columns[:, 0])
        posted = tf.concat([posted_column[:, tf.newaxis], state.columns[:, :-1]], axis=1)
        columns = tf.where(is_posted[:, tf.newaxis], posted, state.columns)

        # Only the oldest ball on screen can be in the bottom row.
        bottom = self._size - 1
        is_landing = (time % self._ball_period == bottom % self._ball_period) & (time >= bottom)
        column = columns[:, -1]
        is_caught = is_landing & (paddle <= column) & (column < paddle + PADDLE_WIDTH)
        is_dropped = is_landing & ~is_caught

        state = State(time, paddle, columns)
        termination = is_dropped | (is_caught & self._catch_ends_episode)
        timestep = TimeStep(
            observation=self.observe(state),
            reward=tf.cast(is_caught, tf.float32) - tf.cast(is_dropped, tf.float32),
            termination=termination,
            truncation=(time > TIME_LIMIT) & ~termination,
        )
        return state, timestep

    def observe(self, state: State) -> tf.Tensor:
        # A screen is one row of size^2 cells, [N, H * W]: long enough for XLA to compare many cells an instruction, in
        # the narrowest type that also has a number for no cell at all.
        kind = tf.uint8 if self._size**2 < 256 else tf.uint16
        cell = tf.range(self._size**2, dtype=tf.int32)
        cell, nowhere = tf.cast(cell, kind)[tf.newaxis], kind.max

        def per_env(cells):
            return tf.cast(cells, kind)[:, tf.newaxis]

        first = per_env((self._size - 1) * self._size + state.paddle)
        # The paddle's cells are one comparison: those before it wrap around to large numbers.
        is_paddle = cell - first < PADDLE_WIDTH
        screen = tf.where(is_paddle, tf.constant(PADDLE_LEVEL, tf.uint8), tf.constant(0, tf.uint8))
        for k in range(self._num_balls):
            row = state.time % self._ball_period + k * self._ball_period
            # A ball cannot have fallen for longer than the game lasts, and below the screen there is none.
            is_on_screen = (row <= state.time) & (row < self._size)
            ball = per_env(tf.where(is_on_screen, row * self._size + state.columns[:, k], nowhere))
            screen = tf.where(cell == ball, tf.constant(BALL_LEVEL, tf.uint8), screen)
        return tf.reshape(screen, [-1, self._size, self._size])

    def _allowed_column(self, rank: tf.Tensor, last: tf.Tensor) -> tf.Tensor:
        """The column [N] of the next ball: MIN_JUMP to max_jump away from column `last`, picked by `rank`.

        The original draws until a column is allowed. Picking one of the allowed by rank is the same distribution in
        a fixed number of operations.
        """
        left_first = tf.maximum(last - self._max_jump, 0)
        left_count = tf.maximum(last - MIN_JUMP - left_first + 1, 0)
        right_first = last + MIN_JUMP
        right_count = tf.maximum(tf.minimum(last + self._max_jump, self._size - 1) - right_first + 1, 0)
        rank = rank % (left_count + right_count)  # never 0 columns: a screen is wider than 2 * MIN_JUMP
        return tf.where(rank < left_count, left_first + rank, right_first + rank - left_count)
