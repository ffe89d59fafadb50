"""Freeway of MinAtar: a chicken crosses eight lanes, each with a car, as often as it can in 2,500 frames.

Random are the cars' speeds and directions, anew after each crossing, and the actions that stick.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from tfdqn import seeds
from tfdqn.envs.base import TimeStep
from tfdqn.envs.minatar import common
from tfdqn.envs.minatar.common import SIZE

LANES = 8
FIRST_LANE = 1  # row of lane 0
LAST_LANE = FIRST_LANE + LANES - 1
COLUMN = 4  # of the chicken
START_ROW = SIZE - 1  # of the chicken, and where it is after a crossing or a collision; the crossing ends in row 0
MOVE_PERIOD = 3  # frames between two moves of the chicken, at least, and before the first
TIME_LIMIT = 2_500  # frames; the episode is truncated in the frame that passes it

SPEEDS = 5  # a car of speed s stands s frames between two moves
KINDS = 2 * SPEEDS  # of cars: to the left at speed 1, 2, ..., then to the right
CAR_BITS = 43  # of the draw of all cars: a fraction of 2**43, whose first decimal digits are the cars' kinds

UP, DOWN = 1, 2


class Noise(NamedTuple):
    """The draws of one transition, or (the second) of one reset."""

    sticky: tf.Tensor  # [N] int32, 0..STICKY_DRAWS-1
    cars: tf.Tensor  # [N] int64, 0..2**CAR_BITS-1


class State(NamedTuple):
    """What a game is made of, after `time` frames."""

    time: tf.Tensor  # [N] int32
    last_action: tf.Tensor  # [N] int32, what was done in the frame before
    row: tf.Tensor  # [N] int32, the chicken's
    move_wait: tf.Tensor  # [N] int32, frames before the one in which the chicken can move
    car_x: tf.Tensor  # [N, 8] int32, column of each lane's car
    car_wait: tf.Tensor  # [N, 8] int32, frames before the one in which it moves
    car_speed: tf.Tensor  # [N, 8] int32, 1..5 to the right, -1..-5 to the left; larger is slower


class Freeway(common.MinAtar):
    """Freeway on 10 x 10 cells; reward 1 for a crossing. It never becomes harder, and ends by its time limit alone."""

    name = "minatar_freeway"
    version = 1
    action_names = ("none", "up", "down")
    planes = ("chicken", "car", *(f"trail of speed {speed + 1}" for speed in range(SPEEDS)))
    time_limit = TIME_LIMIT

    def sample_noise(self, seed: tf.Tensor, num_envs: int) -> Noise:
        draw = seeds.draw(seed, num_envs)
        sticky, cars = common.take_bits(draw, common.STICKY_BITS)
        return Noise(sticky, cars)

    def reset(self, noise: Noise) -> State:
        noise = self.checked_noise(noise)
        zero = tf.zeros_like(noise.sticky)
        speed = _speeds(noise.cars)
        return State(
            time=zero,
            last_action=zero + common.NO_OP,
            row=zero + START_ROW,
            move_wait=zero + MOVE_PERIOD,
            car_x=tf.zeros_like(speed),
            car_wait=tf.abs(speed),
            car_speed=speed,
        )

    def step(self, state: State, action: tf.Tensor, noise: Noise) -> tuple[State, TimeStep]:
        state, action, noise = self.checked(state, action, noise)
        time = state.time + 1
        action = self.taken(action, state.last_action, noise.sticky)
        is_moved = (state.move_wait == 0) & ((action == UP) | (action == DOWN))
        move_wait = tf.maximum(tf.where(is_moved, MOVE_PERIOD, state.move_wait) - 1, 0)
        row = tf.minimum(tf.where(is_moved, state.row + tf.where(action == UP, -1, 1), state.row), SIZE - 1)

        is_across = row == 0
        row = tf.where(is_across, START_ROW, row)
        speed = tf.where(is_across[:, tf.newaxis], _speeds(noise.cars), state.car_speed)
        wait = tf.where(is_across[:, tf.newaxis], tf.abs(speed), state.car_wait)

        # A car hits the chicken in its cell before and after it moves.
        is_driving = wait == 0
        driven = state.car_x + tf.sign(speed)
        driven = tf.where(driven < 0, SIZE - 1, tf.where(driven >= SIZE, 0, driven))
        car_x = tf.where(is_driving, driven, state.car_x)
        is_chickens_lane = tf.range(FIRST_LANE, LAST_LANE + 1) == row[:, tf.newaxis]
        is_hit = tf.reduce_any(is_chickens_lane & ((state.car_x == COLUMN) | (car_x == COLUMN)), axis=1)

        state = State(
            time=time,
            last_action=action,
            row=tf.where(is_hit, START_ROW, row),
            move_wait=move_wait,
            car_x=car_x,
            car_wait=tf.where(is_driving, tf.abs(speed), wait - 1),
            car_speed=speed,
        )
        timestep = TimeStep(
            observation=self.observe(state),
            reward=tf.cast(is_across, tf.float32),
            termination=tf.zeros_like(is_across),
            truncation=time > self.time_limit,
        )
        return state, timestep

    def observe(self, state: State) -> tf.Tensor:
        back = state.car_x - tf.sign(state.car_speed)
        back = tf.where(back < 0, SIZE - 1, tf.where(back >= SIZE, 0, back))
        speed = tf.abs(state.car_speed)
        trails = (tf.where(speed == each + 1, back, common.NOWHERE) for each in range(SPEEDS))
        return self.screen(
            common.dot(state.row * SIZE + COLUMN),
            *(common.dot_in_lanes(column, FIRST_LANE) for column in (state.car_x, *trails)),
        )


def _speeds(draw: tf.Tensor) -> tf.Tensor:
    """The speeds [N, 8] int32 of all cars, by a draw [N] int64."""
    # Digit k is that of draw * 10**k / 2**CAR_BITS before the point; what is left of it, whatever has overflown.
    shifts = tf.constant([KINDS**lane for lane in range(LANES)], tf.int64)
    fraction = tf.bitwise.bitwise_and(draw[:, tf.newaxis] * shifts, tf.constant(2**CAR_BITS - 1, tf.int64))
    kind = tf.cast(tf.bitwise.right_shift(fraction * KINDS, tf.constant(CAR_BITS, tf.int64)), tf.int32)
    return tf.where(kind < SPEEDS, -1 - kind, kind - SPEEDS + 1)
