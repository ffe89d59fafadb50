"""Cave: fly through a tunnel that scrolls, bends and narrows, between its walls and around blocks.

The rules are those of `DQNCave` in yukiB/keras-dqn-cave. The world moves one column to the left a frame, the camera
follows the player's height, row 0 is the top and a smaller height is higher up. The original computes in floats; here
every quantity is an integer, so that all devices agree in every bit and nothing drifts:

  speed       0.08 * k rows a frame                   k integer
  height      24 + 0.08 * m rows                      m integer
  wall centre 48 * 1e-8 * c rows, opening 0.48 * o rows   c, o integers
  hence an edge of the opening, relative to the screen, is
              (3 c -+ 1,500,000 o - 500,000 m) / 6,250,000 rows

The walls drift: they rise by 0.16 rows a frame on average, and after 6,000 to 7,000 frames a centre passes what int32
holds. It wraps, and so does every product of it, but its distance from the player, who is never far from the walls on
the screen, comes out right: whatever hangs on a centre is computed from that distance.

The player's screen row is always exactly 24. What does not hang on a draw or the player is a function of time (the
openings, when blocks appear and where they are) and is not part of the state.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from tfdqn import seeds
from tfdqn.envs.base import Environment, TimeStep
from tfdqn.envs.cave import super_resolution
from tfdqn.envs.cave.super_resolution import PARTS, Edges

SIZE = 48  # rows and columns of the screen
PLAYER_COLUMN = 15  # where the player meets walls and blocks; it is drawn in the column before
PLAYER_ROW = 24  # the player's height relative to the screen, always
TAIL_LENGTH = 15  # newest heights; all but the oldest are drawn, one a column, up to the player
TIME_LIMIT = 10_000  # frames; the episode is truncated in the frame that passes it

# Walls.
ROW = 6_250_000  # units of an edge in one row (one unit is 1.6e-7 rows)
EDGE_PER_CENTRE = 3  # units of an edge in one of a wall centre
EDGE_PER_OPENING = 1_500_000  # half of one hundredth of the 48 rows, in units of an edge
EDGE_PER_HEIGHT = 500_000  # 0.08 rows, in units of an edge
START_CENTRE = 50_000_000  # 0.5 of the screen's height, in 1e-8
START_OPENING = 55  # hundredths of the screen's height
MIN_OPENING = 30
WALL_SHRINK_PERIOD = 51  # frames between narrowings by one hundredth
WALL_DRAWS = 10_000_000  # a wall draw u in [0, 1) is an integer, in 1e-7
# u > UP moves the centre by (u - 0.6) / 10; otherwise u < DOWN by -(0.4 - u) / 10; otherwise the wall runs level. The
# bounds widen after a move the same way, so either can move against its own name: the original's habit, kept.
UP, UP_AGAIN, UP_ZERO = 6_000_000, 2_000_000, 6_000_000
DOWN, DOWN_AGAIN, DOWN_ZERO = 4_000_000, 8_000_000, 4_000_000

# Blocks.
FIRST_BLOCK_TIME = 51  # frame in which the first appears, at column 48, just off the screen
BLOCK_PERIOD = 21  # frames between two
BLOCK_HEIGHT = 6  # rows
BLOCK_WIDTH = 2  # columns drawn; the hit box has one more, as both of its ends count
NUM_BLOCKS = SIZE // BLOCK_PERIOD + 1  # so many are on screen at most

# Starts of training episodes.
NARROWEST_TIME = WALL_SHRINK_PERIOD * (START_OPENING - MIN_OPENING)  # frames; from here on the tunnel stays as it is
CURRICULUM_DRAWS = 1000  # a share of episodes is counted in thousandths
NOWHERE = -(10**6)  # rows; the top of a block that is never drawn nor hit

HOLD = 1

WALL_LEVEL = 102  # 0.4
BLOCK_LEVEL = 128  # 0.5
TAIL_LEVEL = 204  # 0.8
PLAYER_LEVEL = 255  # 1.0


class Noise(NamedTuple):
    """The draws of one transition. A reset needs none, and uses their N."""

    wall: tf.Tensor  # [N] int32, 0..WALL_DRAWS-1: u in 1e-7
    block_rank: tf.Tensor  # [N] int32 >= 0; modulo the number of allowed rows, it picks one of them from the top


class Memory(NamedTuple):
    """What earlier screens told of the walls on this one."""

    top: Edges  # of the opening: the lowest part of the upper wall
    bottom: Edges


class Nothing(NamedTuple):
    """The memory of a player who sees but the screen that is there."""


class State(NamedTuple):
    """What a game is made of; int32 is enough for the longest episode, as centres may wrap (see above)."""

    time: tf.Tensor  # [N] int32, frames since reset
    speed: tf.Tensor  # [N] int32, downwards, 0.08 rows a frame
    slope: tf.Tensor  # [N] int32, how the newest wall column moved: 1, 0 or -1
    tail: tf.Tensor  # [N, 15] int32, newest heights, oldest first, 0.08 rows from 24; the last is the player's
    centres: tf.Tensor  # [N, 48] int32, wall centres, left to right, 1e-8 of the screen's height, modulo 2**32
    block_tops: tf.Tensor  # [N, 3] int32, top rows of the newest blocks, newest first, in rows of the world
    memory: Memory | Nothing = Nothing()


class Cave(Environment):
    """Cave on a 48 x 48 screen, or on every `downsample`-th row and column of it; reward -1 for a crash, else 0.

    With `super_resolution` the screen shows what a player knows who remembers: the row that an edge cuts is drawn as
    bright as the part of it that is covered, as far as all screens of the episode and the player's own moves told it
    (see `tfdqn.envs.super_resolution`). A block's top is a whole row of the world, so one sight tells it.
    """

    name = "cave"
    version = 2  # 1 lost its blocks far from the start, where a wall's centre passes what int32 holds
    action_names = ("release", "hold")
    frames_per_second = 30.0
    time_limit = TIME_LIMIT
    best_score = float(TIME_LIMIT)
    palette = {  # noqa: RUF012
        0: (0, 0, 0),
        WALL_LEVEL: (0, 204, 255),
        BLOCK_LEVEL: (0, 102, 255),
        TAIL_LEVEL: (255, 0, 0),
        PLAYER_LEVEL: (255, 0, 0),
    }

    def __init__(self, downsample: int = 1, super_resolution: bool = False):
        """Make the game.

        Args:
          downsample: draw every `downsample`-th row and column only; a divisor of 48.
          super_resolution: draw edges as finely as earlier screens told them.

        Raises:
          ValueError: not a divisor, or both at once.
        """
        if type(downsample) is not int or downsample < 1 or SIZE % downsample:
            raise ValueError(f"cave cannot be downsampled by {downsample!r}: choose a divisor of {SIZE}")
        if super_resolution and downsample > 1:
            raise ValueError(f"super-resolution of a screen that is downsampled by {downsample}: use one or the other")
        self._downsample, self._remembers = downsample, super_resolution
        if super_resolution:
            self.palette = {level: _shade(level) for level in range(BLOCK_LEVEL + 1)} | Cave.palette

    @property
    def observation_shape(self) -> tuple[int, int]:
        return SIZE // self._downsample, SIZE // self._downsample

    def sample_noise(self, seed: tf.Tensor, num_envs: int) -> Noise:
        # One wide draw, split by division: cheaper than two draws, and the modulo bias is below 1e-7.
        draw = seeds.draw(seed, num_envs)
        block_rank = tf.bitwise.bitwise_and(draw // WALL_DRAWS, tf.constant(tf.int32.max, tf.int64))
        return Noise(wall=tf.cast(draw % WALL_DRAWS, tf.int32), block_rank=tf.cast(block_rank, tf.int32))

    def reset(self, noise: Noise) -> State:
        noise = self.checked_noise(noise)
        zeros = tf.zeros_like(noise.wall)
        state = State(
            time=zeros,
            speed=zeros,
            slope=zeros,
            tail=_columns(zeros, TAIL_LENGTH),
            centres=_columns(zeros + START_CENTRE, SIZE),
            block_tops=_columns(zeros, NUM_BLOCKS),
        )
        return self.first_seen(state)

    def first_seen(self, state: State) -> State:
        """The same to a player who has seen no screen before this one."""
        nothing = super_resolution.unseen(tf.shape(state.time)[0], SIZE)
        return self._seen(state, Memory(nothing, nothing))

    def _seen(self, state: State, memory: Memory | Nothing) -> State:
        """The state to a player who remembers so much, and sees its screen."""
        if not self._remembers:
            return state
        start, height = self._opening_rows(state)
        # A column that is all wall does not tell whether its opening is above or below.
        top, bottom = (
            super_resolution.seen(edges, row, height > 0, _screen_top(state), SIZE)
            for edges, row in zip(memory, (start, start + height), strict=True)
        )
        return state._replace(memory=Memory(top, bottom))

    def difficulties(self, noise: Noise, share: float) -> tf.Tensor:
        """1 more than the frame that an episode begins in: one in which the tunnel narrows, or one of as many after."""
        noise = self.checked_noise(noise)
        # The rank is wide enough to give a share and leave a time; the wall's draw would tie the start to a wall.
        is_moved = noise.block_rank % CURRICULUM_DRAWS < round(share * CURRICULUM_DRAWS)
        time = noise.block_rank // CURRICULUM_DRAWS % (2 * NARROWEST_TIME)
        return tf.where(is_moved, 1 + time, 0)

    def reset_at(self, noise: Noise, difficulty: tf.Tensor) -> State:
        """An episode that begins later does so in a straight piece of tunnel, without blocks on the screen.

        It is a standard one at a later time: the time alone decides the openings, and blocks are posted as ever.
        """
        state, is_moved = self.reset(noise), difficulty > 0
        moved = state._replace(
            time=tf.where(is_moved, difficulty - 1, state.time),
            # Where blocks of this time would be on the screen, they are out of everyone's reach.
            block_tops=tf.where(is_moved[:, tf.newaxis], NOWHERE, state.block_tops),
        )
        return self.first_seen(moved)

    def score(self, state: State, timestep: TimeStep) -> tf.Tensor:
        """The frames survived; one that passes the time limit is none."""
        return tf.where(timestep.truncation, 0.0, 1.0)

    def step(self, state: State, action: tf.Tensor, noise: Noise) -> tuple[State, TimeStep]:
        state, action, noise = self.checked(state, action, noise)
        time = state.time + 1

        speed = state.speed + tf.where(action == HOLD, -1, 1)
        height = state.tail[:, -1] + speed
        tail = _append(state.tail, height)

        goes_up = noise.wall > tf.where(state.slope == 1, UP_AGAIN, UP)
        goes_down = ~goes_up & (noise.wall < tf.where(state.slope == -1, DOWN_AGAIN, DOWN))
        move = tf.where(goes_up, noise.wall - UP_ZERO, tf.where(goes_down, noise.wall - DOWN_ZERO, 0))
        slope = tf.cast(goes_up, tf.int32) - tf.cast(goes_down, tf.int32)
        centres = _append(state.centres, state.centres[:, -1] + move)

        is_posted = _block_age(time, 0) == 0
        posted_top = _allowed_top(noise.block_rank, _from_player(centres[:, -1], height), height, opening(time))
        posted = tf.concat([posted_top[:, tf.newaxis], state.block_tops[:, :-1]], axis=1)
        block_tops = tf.where(is_posted[:, tf.newaxis], posted, state.block_tops)

        scrolled = type(state.memory)(*(super_resolution.scrolled(edges) for edges in state.memory))
        state = self._seen(State(time, speed, slope, tail, centres, block_tops), scrolled)
        is_crash = tf.cast(hits_wall(state) | _hits_block(state), tf.int32)
        is_crash = _computed_once(is_crash) > 0
        timestep = TimeStep(
            observation=self.observe(state),
            reward=-tf.cast(is_crash, tf.float32),
            termination=is_crash,
            truncation=(time > TIME_LIMIT) & ~is_crash,
        )
        return state, timestep

    def observe(self, state: State) -> tf.Tensor:
        # Everything is reduced to rows per column first; the [N, H, W] work is then compare and select in uint8 only,
        # many pixels an instruction. A range is one comparison: the rows before it wrap around to large numbers.
        opening_start, opening_height = (_per_column(rows) for rows in self._opening_rows(state))
        block_start, block_height = (_per_column(rows) for rows in self._block_rows(state))
        trail_row = _per_column(self._trail_row(state))

        columns = range(0, SIZE, self._downsample)
        row = tf.constant(list(columns), tf.uint8)[tf.newaxis, :, tf.newaxis]
        trail_level = [PLAYER_LEVEL if column == PLAYER_COLUMN - 1 else TAIL_LEVEL for column in columns]

        # Later over earlier.
        screen = tf.where(row == trail_row, tf.constant(trail_level, tf.uint8), tf.constant(0, tf.uint8))
        screen = tf.where(row - block_start < block_height, tf.constant(BLOCK_LEVEL, tf.uint8), screen)
        screen = tf.where(row - opening_start < opening_height, screen, tf.constant(WALL_LEVEL, tf.uint8))
        return self._sharpened(screen, state) if self._remembers else screen

    def _sharpened(self, screen: tf.Tensor, state: State) -> tf.Tensor:
        """The screen [N, H, W] with rows that an edge cuts as bright as the part of them that is covered."""
        row = tf.constant(list(range(SIZE)), tf.uint8)[tf.newaxis, :, tf.newaxis]

        def drawn(screen, where, at, level):
            """Levels [N, W] in a row of each column, `at` [N, W], but only `where` the screen is so."""
            level, at = (tf.cast(_computed_once(values), tf.uint8)[:, tf.newaxis, :] for values in (level, at))
            return tf.where(where & (row == at), level, screen)

        block_start, block_height = self._block_rows(state)
        block_cut = self._block_cut(state)
        covered = BLOCK_LEVEL * (PARTS - block_cut) // PARTS
        screen = drawn(screen, screen == BLOCK_LEVEL, tf.where(block_cut > 0, block_start, SIZE), covered)
        covered, block_end = BLOCK_LEVEL * block_cut // PARTS, block_start + block_height
        screen = drawn(screen, screen != WALL_LEVEL, tf.where(block_cut > 0, block_end, SIZE), covered)

        # The opening's first row is cut by the upper wall, the first one after it by the lower wall.
        start, height = self._opening_rows(state)
        top_cut = super_resolution.cut(state.memory.top, start, _screen_top(state))
        bottom_cut = super_resolution.cut(state.memory.bottom, start + height, _screen_top(state))
        screen = drawn(screen, screen == 0, start, WALL_LEVEL * top_cut // PARTS)
        return drawn(screen, True, start + height, WALL_LEVEL * (PARTS - bottom_cut) // PARTS)

    def _block_cut(self, state: State) -> tf.Tensor:
        """How much of the first row of the block in each column lies above it, [N, W] int32 in PARTS; 0 without one."""
        columns = tf.range(SIZE)[tf.newaxis, :]
        cut = tf.zeros_like(columns)
        for k in range(NUM_BLOCKS):
            top = PARTS * state.block_tops[:, k] - _screen_top(state)[:, 0]
            offset = columns - (SIZE - _block_age(state.time, k))[:, tf.newaxis]
            is_here = (top >= 0)[:, tf.newaxis] & (0 <= offset) & (offset < BLOCK_WIDTH)
            cut = tf.where(is_here, (top % PARTS)[:, tf.newaxis], cut)
        return cut

    def _opening_rows(self, state: State) -> tuple[tf.Tensor, tf.Tensor]:
        """First row of the opening and how many it has, [N, W] int32 in 0..48."""
        top, bottom = _edges(state, range(0, SIZE, self._downsample))
        first = _clipped_row(top, ROW)
        return first, _clipped_row(bottom, ROW) - first

    def _trail_row(self, state: State) -> tf.Tensor:
        """The row of the tail or the player in each column, [N, W] int32 in 0..48; 48 where there is none.

        Column i shows entry i + 1 of the tail, in row int(height - 0.5), and the column after the newest entry shows
        the player, at the same height.
        """
        trail = tf.concat([state.tail[:, 1:], state.tail[:, -1:]], axis=1)[:, :: self._downsample]
        hundredths = 100 * PLAYER_ROW - 50 + 8 * (trail - state.tail[:, -1:])
        rows = tf.where(hundredths < 0, SIZE, _clipped_row(hundredths, 100))
        width = SIZE // self._downsample
        return tf.pad(rows, [[0, 0], [0, width - rows.shape[1]]], constant_values=SIZE)

    def _block_rows(self, state: State) -> tuple[tf.Tensor, tf.Tensor]:
        """First row of the block in each column and how many it has, [N, W] int32; 0 and 0 without one."""
        columns = tf.range(0, SIZE, self._downsample, dtype=tf.int32)[tf.newaxis, :]
        start = stop = tf.zeros_like(columns)
        for k in range(NUM_BLOCKS):
            age = _block_age(state.time, k)
            # 25ths of a row; int(x) truncates, so a block of which less than a row is off the top is still drawn.
            first = tf.truncatediv(25 * state.block_tops[:, k] - 2 * state.tail[:, -1], 25)
            last = tf.truncatediv(25 * (state.block_tops[:, k] + BLOCK_HEIGHT) - 2 * state.tail[:, -1], 25)
            is_drawn = (age >= 0) & (first >= 0)  # a block that crosses the top edge is not drawn
            offset = columns - (SIZE - age)[:, tf.newaxis]
            is_here = is_drawn[:, tf.newaxis] & (0 <= offset) & (offset < BLOCK_WIDTH)
            start = tf.where(is_here, tf.minimum(first, SIZE)[:, tf.newaxis], start)
            stop = tf.where(is_here, tf.minimum(last, SIZE)[:, tf.newaxis], stop)
        return start, stop - start


def opening(time: tf.Tensor) -> tf.Tensor:
    """The opening of the wall column that was made in frame `time`, in hundredths of the screen's height."""
    return tf.maximum(START_OPENING - tf.truncatediv(tf.maximum(time, 0), WALL_SHRINK_PERIOD), MIN_OPENING)


def _edges(state: State, columns: range) -> tuple[tf.Tensor, tf.Tensor]:
    """Upper and lower edge of the opening in some columns, relative to the screen, [N, W] int32 in 1/ROW rows."""
    made = state.time[:, tf.newaxis] - tf.constant([SIZE - 1 - column for column in columns], tf.int32)
    half = EDGE_PER_OPENING * opening(made)
    middle = _from_player(state.centres[:, columns.start : columns.stop : columns.step], state.tail[:, -1:])
    return middle - half, middle + half


def _from_player(centre: tf.Tensor, height: tf.Tensor) -> tf.Tensor:
    """How far a wall's centre lies below row 0 of the screen of a player at `height`, int32 in 1/ROW rows.

    Both terms overflow far out in the world. Integers wrap, so the difference is right as long as it is within 343
    rows, and a living player never gets as far away from a wall on its screen.
    """
    return EDGE_PER_CENTRE * centre - EDGE_PER_HEIGHT * height


def hits_wall(state: State) -> tf.Tensor:
    """Whether the player touches a wall, [N] bool."""
    top, bottom = _edges(state, range(PLAYER_COLUMN, PLAYER_COLUMN + 1))
    return ((PLAYER_ROW * ROW <= top) | (bottom <= PLAYER_ROW * ROW))[:, 0]


def _block_age(time: tf.Tensor, k: int) -> tf.Tensor:
    """Frames since the k-th newest block appeared, [N] int32; -1 if there is none or it has left the screen."""
    since_first = time - FIRST_BLOCK_TIME
    age = since_first % BLOCK_PERIOD + k * BLOCK_PERIOD
    return tf.where((age <= since_first) & (age <= SIZE), age, -1)


def _hits_block(state: State) -> tf.Tensor:
    is_hit = tf.zeros_like(state.time, tf.bool)
    for k in range(NUM_BLOCKS):
        age = _block_age(state.time, k)
        column = SIZE - age
        above = 25 * PLAYER_ROW + 2 * state.tail[:, -1] - 25 * state.block_tops[:, k]  # 25ths of a row below its top
        # Both ends are in: the hit box is a column wider than the block, and its lower edge counts.
        is_in_columns = (age >= 0) & (column <= PLAYER_COLUMN) & (PLAYER_COLUMN <= column + BLOCK_WIDTH)
        is_hit |= is_in_columns & (0 <= above) & (above <= 25 * BLOCK_HEIGHT)
    return is_hit


def _allowed_top(rank: tf.Tensor, distance: tf.Tensor, height: tf.Tensor, opening: tf.Tensor) -> tf.Tensor:
    """The top row [N] int32 of a block inside a wall column, picked by `rank` from int(edge) .. int(edge') - 1.

    Args:
      distance: of the column's centre, from `_from_player` at `height`.
    """
    # Rows of the world, not of the screen, since they are cut off toward zero: int64, as these do overflow.
    middle = tf.cast(distance, tf.int64) + EDGE_PER_HEIGHT * tf.cast(height, tf.int64)
    half = EDGE_PER_OPENING * tf.cast(opening, tf.int64)
    lowest = tf.cast(tf.truncatediv(middle - half, ROW), tf.int32)
    end = tf.cast(tf.truncatediv(middle + half - BLOCK_HEIGHT * ROW, ROW), tf.int32)
    return lowest + rank % (end - lowest)


def _screen_top(state: State) -> tf.Tensor:
    """Where row 0 of the screen is in the world, [N, 1] int32 in PARTS of a row: the player is always in row 24."""
    return 2 * state.tail[:, -1:]


def _shade(level: int) -> tuple[int, int, int]:
    """The colour of a row that a wall covers partly, or, if brighter than a wall, a block."""
    full = WALL_LEVEL if level <= WALL_LEVEL else BLOCK_LEVEL
    return tuple(channel * level // full for channel in Cave.palette[full])


def _clipped_row(distance: tf.Tensor, row: int) -> tf.Tensor:
    """int(distance / row) clipped to 0..48; after clipping, int32 division is a multiplication and a shift."""
    return tf.truncatediv(tf.clip_by_value(distance, 0, SIZE * row), row)


def _append(columns: tf.Tensor, newest: tf.Tensor) -> tf.Tensor:
    """Drop the oldest of [N, K] columns on the left and add the newest on the right."""
    return tf.concat([columns[:, 1:], newest[:, tf.newaxis]], axis=1)


def _columns(values: tf.Tensor, count: int) -> tf.Tensor:
    """[N] as [N, count]."""
    return tf.repeat(values[:, tf.newaxis], count, axis=1)


def _per_column(rows: tf.Tensor) -> tf.Tensor:
    """[N, W] int32 in 0..48 as [N, 1, W] uint8."""
    return _computed_once(tf.cast(rows, tf.uint8))[:, tf.newaxis, :]


def _computed_once(values: tf.Tensor) -> tf.Tensor:
    """Integers of which three times as much fits their type, unchanged; a hint to XLA to compute each but once.

    XLA copies arithmetic that it thinks cheap into the loops that read its result: that of a column into the loop
    over its pixels, that of an environment into the loop over its columns. It never copies a division.
    """
    return tf.truncatediv(3 * values, 3)
