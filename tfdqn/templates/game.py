"""MyGame: walk to the goal of a small room before the time is up.

A game is a handful of pure functions over N games at once: whatever they need comes in as tensors, and nothing is
kept in between. `tf.where` takes the place of `if`. Check it: `python -m tfdqn.check_env my_game.py:MyGame`.
"""

from typing import NamedTuple

import tensorflow as tf

from tfdqn import seeds
from tfdqn.envs import Environment, ObservationSpec, TimeStep

FLOOR, GOAL, PLAYER = 0, 128, 255  # grey levels of the screen
ROW_MOVES = [-1, 1, 0, 0]  # of each action
COLUMN_MOVES = [0, 0, -1, 1]


class Noise(NamedTuple):
    """What is drawn for a new episode. A step needs no draws here, and is given these too."""

    player: tf.Tensor  # [N] int32, a cell, counted row by row from the top left
    goal: tf.Tensor  # [N] int32, another cell


class State(NamedTuple):
    """All there is to know about a game."""

    time: tf.Tensor  # [N] int32, frames since reset
    player: tf.Tensor  # [N] int32, a cell
    goal: tf.Tensor  # [N] int32, a cell


class MyGame(Environment):
    """A room of size x size cells; reward 1 at the goal, which ends the episode, and 0 before."""

    action_names = ("up", "down", "left", "right")
    time_limit = 50  # frames; the episode is cut off in the frame after
    best_score = 1.0

    def __init__(self, size: int = 5):
        self.size = size
        self.observation_spec = ObservationSpec((size, size), "uint8")

    def sample_noise(self, seed, num_envs):
        cells = self.size**2
        draw = seeds.draw(seed, num_envs)  # [N] int64, uniform and large
        player, distance = draw % cells, 1 + draw // cells % (cells - 1)
        return Noise(tf.cast(player, tf.int32), tf.cast((player + distance) % cells, tf.int32))

    def reset(self, noise):
        return State(tf.zeros_like(noise.player), noise.player, noise.goal)

    def step(self, state, action, noise):
        row = state.player // self.size + tf.gather(ROW_MOVES, action)
        column = state.player % self.size + tf.gather(COLUMN_MOVES, action)
        row, column = (tf.clip_by_value(place, 0, self.size - 1) for place in (row, column))  # the walls
        state = State(state.time + 1, row * self.size + column, state.goal)
        is_there = state.player == state.goal
        timestep = TimeStep(
            observation=self.observe(state),
            reward=tf.cast(is_there, tf.float32),
            termination=is_there,  # ended by the rules
            truncation=(state.time > self.time_limit) & ~is_there,  # cut off; never both
        )
        return state, timestep

    def observe(self, state):
        cell = tf.range(self.size**2)[tf.newaxis]  # [1, cells], against [N, 1]
        screen = tf.where(cell == state.goal[:, tf.newaxis], GOAL, FLOOR)
        screen = tf.where(cell == state.player[:, tf.newaxis], PLAYER, screen)
        return tf.cast(tf.reshape(screen, [-1, self.size, self.size]), tf.uint8)
