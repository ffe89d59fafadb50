"""Cart-pole: a pole is hinged to a cart on a track, and each frame the cart is pushed left or right to keep it upright.

The task is of Barto, Sutton and Anderson 1983, "Neuronlike adaptive elements that can solve difficult learning control
problems"; constants, Euler steps, ends and rewards are those of Gymnasium's CartPole-v1. An upright pole is unstable:
whatever two computers round differently grows by 8% a frame, so a recorded game is the same frame by frame, from each
recorded state to the next, and not over hundreds of frames from one start.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import tensorflow as tf

from tfdqn import seeds
from tfdqn.envs.base import Environment, TimeStep
from tfdqn.envs.spec import ObservationSpec

GRAVITY = 9.8  # m/s^2
CART_MASS = 1.0  # kg
POLE_MASS = 0.1  # kg
HALF_POLE = 0.5  # m, from the hinge to the middle of the pole
FORCE = 10.0  # N, of a push
FRAME_SECONDS = 0.02
MAX_POSITION = 2.4  # m from the middle of the track
MAX_ANGLE = 12 * math.pi / 180  # from upright
START = 0.05  # each of the four numbers of a start lies within this of 0
TIME_LIMIT = 499  # frames; truncated in the 500th

MASS = CART_MASS + POLE_MASS
POLE_MOMENT = POLE_MASS * HALF_POLE

START_BITS = 15  # of each number of a start: 2**15 places, 3e-6 apart; four of them are of one draw of 63 bits
START_PLACES = 2**START_BITS

RIGHT = 1

# The picture: metres of the track that are seen, and sizes in pixels.
PICTURE = (60, 120)
METRES_PER_PIXEL = 2 * MAX_POSITION / PICTURE[1]
TRACK_ROW = 50
HALF_CART = (3, 7)  # rows and columns
POLE_PIXELS = 2 * HALF_POLE / METRES_PER_PIXEL
COLOURS = {"air": (255, 255, 255), "track": (160, 160, 160), "cart": (0, 0, 0), "pole": (200, 120, 40)}


class Noise(NamedTuple):
    """The draws of one reset; a transition needs none. Each is a place in the range of starts, 0..START_PLACES-1."""

    position: tf.Tensor  # [N] int32
    speed: tf.Tensor  # [N] int32
    angle: tf.Tensor  # [N] int32
    turn: tf.Tensor  # [N] int32


class State(NamedTuple):
    time: tf.Tensor  # [N] int32, frames since reset
    position: tf.Tensor  # [N] float32, m, of the cart, to the right of the middle
    speed: tf.Tensor  # [N] float32, m/s
    angle: tf.Tensor  # [N] float32, of the pole, clockwise from upright
    turn: tf.Tensor  # [N] float32, 1/s, by which the angle changes


class CartPole(Environment):
    """Reward 1 for each frame, that of the end included; ends when the pole leans too far or the cart leaves."""

    name = "cartpole"
    version = 1
    action_names = ("left", "right")
    frames_per_second = 1 / FRAME_SECONDS
    time_limit = TIME_LIMIT
    best_score = float(TIME_LIMIT + 1)
    observation_spec = ObservationSpec((4,), "float32")  # position, speed, angle, turn

    def sample_noise(self, seed: tf.Tensor, num_envs: int) -> Noise:
        draw = seeds.draw(seed, num_envs)
        places = [draw // START_PLACES**i % START_PLACES for i in range(len(Noise._fields))]
        return Noise(*(tf.cast(place, tf.int32) for place in places))

    def reset(self, noise: Noise) -> State:
        noise = self.checked_noise(noise)
        # From one end of the range to the other, both included.
        starts = [tf.cast(2 * place - (START_PLACES - 1), tf.float32) for place in noise]
        return State(tf.zeros_like(noise.position), *(start * (START / (START_PLACES - 1)) for start in starts))

    def step(self, state: State, action: tf.Tensor, noise: Noise) -> tuple[State, TimeStep]:
        state, action, noise = self.checked(state, action, noise)
        force = tf.where(action == RIGHT, FORCE, -FORCE)
        speed_change, turn_change = _accelerations(force, state.angle, state.turn)
        # Euler's step: places move by the speeds of before.
        state = State(
            time=state.time + 1,
            position=state.position + FRAME_SECONDS * state.speed,
            speed=state.speed + FRAME_SECONDS * speed_change,
            angle=state.angle + FRAME_SECONDS * state.turn,
            turn=state.turn + FRAME_SECONDS * turn_change,
        )
        is_over = (tf.abs(state.position) > MAX_POSITION) | (tf.abs(state.angle) > MAX_ANGLE)
        timestep = TimeStep(
            observation=self.observe(state),
            reward=tf.ones_like(state.position),
            termination=is_over,
            truncation=(state.time > TIME_LIMIT) & ~is_over,
        )
        return state, timestep

    def observe(self, state: State) -> tf.Tensor:
        return tf.stack([state.position, state.speed, state.angle, state.turn], axis=-1)

    def picture(self, observation: tf.Tensor) -> tf.Tensor:
        """The cart, its pole and the track, [N, 60, 120, 3] uint8."""
        height, width = PICTURE
        hinge = observation[:, 0] / METRES_PER_PIXEL + (width - 1) / 2  # a column
        hinge, angle = (numbers[:, tf.newaxis, tf.newaxis] for numbers in (hinge, observation[:, 2]))
        right = tf.range(width, dtype=tf.float32) - hinge  # [N, 1, W], pixels from the hinge
        up = TRACK_ROW - tf.range(height, dtype=tf.float32)[tf.newaxis, :, tf.newaxis]  # [1, H, 1]
        along = right * tf.sin(angle) + up * tf.cos(angle)
        across = right * tf.cos(angle) - up * tf.sin(angle)

        half_rows, half_columns = HALF_CART
        masks = {
            "track": tf.abs(up) < 0.5,
            "cart": (tf.abs(up) <= half_rows) & (tf.abs(right) <= half_columns),
            "pole": (0 <= along) & (along <= POLE_PIXELS) & (tf.abs(across) <= 1),
        }
        colours = {name: tf.constant(colour, tf.uint8) for name, colour in COLOURS.items()}
        frame = tf.broadcast_to(colours["air"], [tf.shape(observation)[0], height, width, 3])
        for name, mask in masks.items():
            frame = tf.where(mask[..., tf.newaxis], colours[name], frame)
        return frame


def _accelerations(force: tf.Tensor, angle: tf.Tensor, turn: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The cart's and the pole's accelerations, [N] float32 each, in m/s^2 and 1/s^2.

    Source: R. V. Florian 2007, "Correct equations for the dynamics of the cart-pole system", equations 23 and 24
    without friction, as Gymnasium has them.
    """
    sine, cosine = tf.sin(angle), tf.cos(angle)
    pushed = (force + POLE_MOMENT * tf.square(turn) * sine) / MASS
    turn_change = (GRAVITY * sine - cosine * pushed) / (HALF_POLE * (4.0 / 3.0 - POLE_MASS * tf.square(cosine) / MASS))
    return pushed - POLE_MOMENT * turn_change * cosine / MASS, turn_change
