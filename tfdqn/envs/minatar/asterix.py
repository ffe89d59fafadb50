"""Asterix of MinAtar: the player moves among eight lanes, through which enemies and gold come from either side.

Lane k, of the rows 1 to 8, holds one thing at a time. The periods at which things appear and move are functions of
time, as the difficulty rises at fixed frames.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from tfdqn import seeds
from tfdqn.envs.base import TimeStep
from tfdqn.envs.minatar import common
from tfdqn.envs.minatar.common import SIZE

LANES = 8
FIRST_LANE = 1  # row of lane 0; the player keeps to the rows of lanes
LAST_LANE = FIRST_LANE + LANES - 1
START = 5  # row and column of the player
SPAWN_PERIOD = 10  # frames between two that appear, at first
MOVE_PERIOD = 5  # frames between two moves of all things, at first
LEVEL_FRAMES = 102  # frames between two levels of difficulty; each level takes one frame off SPAWN_PERIOD,
LEVELS_PER_MOVE = 2  # and every second one off MOVE_PERIOD,
LAST_LEVEL = SPAWN_PERIOD - 1  # until both are one frame
EMPTY = -1  # column of a thing that is not there

GOLD_BITS = 20  # of the draw that makes a thing gold
GOLD_DRAWS = 2**GOLD_BITS // 3  # the first third of the draws does
LANE_BITS = 22  # of the draw of a lane

LEFT, UP, RIGHT, DOWN = 1, 2, 3, 4


class Noise(NamedTuple):
    """The draws of one transition. A reset needs none, and uses their N."""

    sticky: tf.Tensor  # [N] int32, 0..STICKY_DRAWS-1
    side: tf.Tensor  # [N] int32, 0: what appears comes from the right, 1: from the left
    gold: tf.Tensor  # [N] int32, 0..2**GOLD_BITS-1; below GOLD_DRAWS what appears is gold
    lane: tf.Tensor  # [N] int32, 0..2**LANE_BITS-1; its share of this range, among the empty lanes from the top


class State(NamedTuple):
    """What a game is made of, after `time` frames."""

    time: tf.Tensor  # [N] int32
    last_action: tf.Tensor  # [N] int32, what was done in the frame before
    player_x: tf.Tensor  # [N] int32, column
    player_y: tf.Tensor  # [N] int32, row
    spawn_wait: tf.Tensor  # [N] int32, frames before the one in which the next thing appears
    move_wait: tf.Tensor  # [N] int32, frames before the one in which all things move
    x: tf.Tensor  # [N, 8] int32, column of each lane's thing; EMPTY where there is none
    is_from_left: tf.Tensor  # [N, 8] bool, where it came from: it moves to the other side
    is_gold: tf.Tensor  # [N, 8] bool, it is gold; otherwise an enemy


class Asterix(common.MinAtar):
    """Asterix on 10 x 10 cells; reward 1 for gold, the end for an enemy."""

    name = "minatar_asterix"
    version = 1
    action_names = ("none", "left", "up", "right", "down")
    planes = ("player", "enemy", "trail", "gold")

    def sample_noise(self, seed: tf.Tensor, num_envs: int) -> Noise:
        sticky, rest = common.take_bits(seeds.draw(seed, num_envs), common.STICKY_BITS)
        side, rest = common.take_bits(rest, 1)
        gold, rest = common.take_bits(rest, GOLD_BITS)
        lane, _ = common.take_bits(rest, LANE_BITS)
        return Noise(sticky, side, gold, lane)

    def reset(self, noise: Noise) -> State:
        noise = self.checked_noise(noise)
        zero = tf.zeros_like(noise.sticky)
        lanes = tf.zeros_like(noise.sticky[:, tf.newaxis] + tf.zeros([LANES], tf.int32))
        return State(
            time=zero,
            last_action=zero + common.NO_OP,
            player_x=zero + START,
            player_y=zero + START,
            spawn_wait=zero + SPAWN_PERIOD,
            move_wait=zero + MOVE_PERIOD,
            x=lanes + EMPTY,
            is_from_left=lanes > 0,
            is_gold=lanes > 0,
        )

    def step(self, state: State, action: tf.Tensor, noise: Noise) -> tuple[State, TimeStep]:
        state, action, noise = self.checked(state, action, noise)
        time = state.time + 1
        action = self.taken(action, state.last_action, noise.sticky)
        level = tf.minimum(state.time // LEVEL_FRAMES, LAST_LEVEL) if self.ramps else 0

        # One appears, unless all lanes are taken; the time until the next runs anyway.
        is_due = state.spawn_wait == 0
        spawn_wait = tf.where(is_due, SPAWN_PERIOD - level, state.spawn_wait) - 1
        is_new = _is_drawn_lane(state.x == EMPTY, noise.lane) & is_due[:, tf.newaxis]
        is_left = noise.side[:, tf.newaxis] == 1
        x = tf.where(is_new, tf.where(is_left, 0, SIZE - 1), state.x)
        is_from_left = tf.where(is_new, is_left, state.is_from_left)
        is_gold = tf.where(is_new, noise.gold[:, tf.newaxis] < GOLD_DRAWS, state.is_gold)

        move_x = tf.cast(action == RIGHT, tf.int32) - tf.cast(action == LEFT, tf.int32)
        move_y = tf.cast(action == DOWN, tf.int32) - tf.cast(action == UP, tf.int32)
        player_x = tf.clip_by_value(state.player_x + move_x, 0, SIZE - 1)
        player_y = tf.clip_by_value(state.player_y + move_y, FIRST_LANE, LAST_LANE)

        # The player meets what is in its cell before and after all things move.
        is_players_lane = tf.range(FIRST_LANE, LAST_LANE + 1) == player_y[:, tf.newaxis]
        met_before = is_players_lane & (x == player_x[:, tf.newaxis])
        x = tf.where(met_before & is_gold, EMPTY, x)
        is_moving = state.move_wait == 0
        move_wait = tf.where(is_moving, MOVE_PERIOD - level // LEVELS_PER_MOVE, state.move_wait) - 1
        moved = x + tf.where(is_from_left, 1, -1)
        moved = tf.where((x == EMPTY) | (moved >= SIZE), EMPTY, moved)  # off the left side it is EMPTY, too
        x = tf.where(is_moving[:, tf.newaxis], moved, x)
        met_after = is_players_lane & (x == player_x[:, tf.newaxis])
        x = tf.where(met_after & is_gold, EMPTY, x)
        met = met_before | met_after
        is_caught = tf.reduce_any(met & ~is_gold, axis=1)

        state = State(
            time=time,
            last_action=action,
            player_x=player_x,
            player_y=player_y,
            spawn_wait=spawn_wait,
            move_wait=move_wait,
            x=x,
            is_from_left=is_from_left,
            is_gold=is_gold,
        )
        timestep = TimeStep(
            observation=self.observe(state),
            reward=tf.cast(tf.reduce_any(met & is_gold, axis=1), tf.float32),
            termination=is_caught,
            truncation=(time > self.time_limit) & ~is_caught,
        )
        return state, timestep

    def observe(self, state: State) -> tf.Tensor:
        is_there = state.x != EMPTY
        back = state.x - tf.where(state.is_from_left, 1, -1)
        has_trail = is_there & (back >= 0) & (back < SIZE)
        return self.screen(
            common.dot(state.player_y * SIZE + state.player_x),
            common.dot_in_lanes(tf.where(is_there & ~state.is_gold, state.x, common.NOWHERE), FIRST_LANE),
            common.dot_in_lanes(tf.where(has_trail, back, common.NOWHERE), FIRST_LANE),
            common.dot_in_lanes(tf.where(is_there & state.is_gold, state.x, common.NOWHERE), FIRST_LANE),
        )


def _is_drawn_lane(is_empty: tf.Tensor, draw: tf.Tensor) -> tf.Tensor:
    """The one of the empty lanes that was drawn, [N, 8] bool: none where there is none.

    Args:
      is_empty: [N, 8] bool.
      draw: [N] int32, 0..2**LANE_BITS-1.
    """
    # Eight digits of four bits hold for each lane how many are empty down to it: one product adds them up.
    digit = tf.constant([4 * lane for lane in range(LANES)], tf.int32)
    ones = tf.reduce_sum(tf.where(is_empty, tf.bitwise.left_shift(1, digit), 0), axis=1, keepdims=True)
    counts = tf.bitwise.bitwise_and(tf.bitwise.right_shift(ones * 0x11111111, digit), 15)
    rank = tf.bitwise.right_shift(draw[:, tf.newaxis] * counts[:, -1:], LANE_BITS)
    return is_empty & (counts == rank + 1)
