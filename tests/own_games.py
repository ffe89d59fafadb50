"""Two small games of one's own, of numbers and of planes, as a user would write them."""

from typing import NamedTuple

import tensorflow as tf

from tfdqn import seeds
from tfdqn.envs import Environment, ObservationSpec, TimeStep


class Noise(NamedTuple):
    start: tf.Tensor  # [N] int32


class State(NamedTuple):
    time: tf.Tensor  # [N] int32
    place: tf.Tensor  # [N] int32
    goal: tf.Tensor  # [N] int32


class Line(Environment):
    """Walk along a line of cells to the goal; shows three numbers and has no picture."""

    action_names = ("left", "right")
    time_limit = 12
    best_score = 1.0

    def __init__(self, cells: int = 7):
        self.cells = cells
        self.observation_spec = ObservationSpec((3,), "float32")

    def sample_noise(self, seed, num_envs):
        return Noise(tf.cast(seeds.draw(seed, num_envs) % self.cells**2, tf.int32))

    def reset(self, noise):
        return State(tf.zeros_like(noise.start), noise.start % self.cells, noise.start // self.cells)

    def step(self, state, action, noise):
        place = tf.clip_by_value(state.place + 2 * action - 1, 0, self.cells - 1)
        state = State(state.time + 1, place, state.goal)
        is_there = state.place == state.goal
        is_late = (state.time > self.time_limit) & ~is_there
        return state, TimeStep(self.observe(state), tf.cast(is_there, tf.float32), is_there, is_late)

    def observe(self, state):
        numbers = tf.stack([state.place, state.goal, state.time], axis=-1)
        return tf.cast(numbers, tf.float32) / float(self.cells)


class Planes(Line):
    """The same line, shown as two planes of bits: the player and the goal."""

    def __init__(self, cells: int = 7):
        self.cells = cells
        self.observation_spec = ObservationSpec((2, cells, 2), "bool")

    def observe(self, state):
        cell = tf.range(self.cells)[tf.newaxis]
        row = tf.stack([cell == state.place[:, tf.newaxis], cell == state.goal[:, tf.newaxis]], axis=-1)
        return tf.repeat(row[:, tf.newaxis], 2, axis=1)  # [N, 2, cells, 2]
