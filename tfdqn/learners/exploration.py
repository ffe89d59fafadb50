"""Exploration: how large the share of random actions is, and what an agent does then.

Shapes: N environments, A actions.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

import tensorflow as tf

from tfdqn import seeds
from tfdqn.learners import losses

if TYPE_CHECKING:
    from tfdqn.config import Config


class Explore(NamedTuple):
    """How an agent that trains is to explore, which `Agent.act` takes in the place of a share of random actions."""

    epsilon: tf.Tensor  # [] or [N] float32, the share of uniformly random actions
    temperature: tf.Tensor | tuple = ()  # [] float32, all others are drawn from softmax(Q / it); (): they are the best


@dataclasses.dataclass(frozen=True)
class Linear:
    """A number that changes linearly with the frames played, then stays (Mnih et al. 2015)."""

    start: float
    end: float
    decay_env_frames: int

    def at(self, env_frames: tf.Tensor) -> tf.Tensor:
        """The number [] float32 after so many frames [] int64; clipped as an integer, so it stays exact at any age."""
        progress = tf.minimum(env_frames, self.decay_env_frames)
        share = tf.cast(progress, tf.float32) / float(self.decay_env_frames)
        return self.start + (self.end - self.start) * share


@dataclasses.dataclass(frozen=True)
class EpsilonGreedy:
    """A share of the actions is uniformly random, and the others are the best.

    Attributes:
      epsilon: that share.
      ladder: how far environments differ in it (Horgan et al. 2018, "Distributed prioritized experience replay",
        section 4): environment i of N has epsilon^(1 + ladder i / (N - 1)); 0 for all alike.
      num_envs: N.
    """

    epsilon: Linear
    ladder: float
    num_envs: int

    def of_each(self, env_frames: tf.Tensor) -> tf.Tensor:
        """The share of all environments, [], or that of each, [N] float32, after so many frames [] int64."""
        epsilon = self.epsilon.at(env_frames)
        if not self.ladder:
            return epsilon
        rung = tf.range(self.num_envs, dtype=tf.float32) / float(max(self.num_envs - 1, 1))
        return tf.pow(epsilon, 1.0 + self.ladder * rung)

    def epsilon_at(self, env_frames: tf.Tensor) -> tf.Tensor:
        """The mean share [] float32, as a run reports it."""
        return tf.reduce_mean(self.of_each(env_frames))

    def at(self, env_frames: tf.Tensor) -> Explore:
        """What an agent is told."""
        return Explore(self.of_each(env_frames))


@dataclasses.dataclass(frozen=True)
class Boltzmann(EpsilonGreedy):
    """A share of the actions is uniformly random, and the others are drawn from softmax(Q / temperature).

    Attributes:
      temperature: in the units of the action values.
    """

    temperature: Linear

    def at(self, env_frames: tf.Tensor) -> Explore:
        return Explore(self.of_each(env_frames), self.temperature.at(env_frames))


def _epsilon_greedy(config: Config) -> EpsilonGreedy:
    return EpsilonGreedy(*_shares(config))


def _boltzmann(config: Config) -> Boltzmann:
    temperature = Linear(config.temperature_start, config.temperature_end, config.epsilon_decay_env_frames)
    return Boltzmann(*_shares(config), temperature)


def _shares(config: Config) -> tuple[Linear, float, int]:
    epsilon = Linear(config.epsilon_start, config.epsilon_end, config.epsilon_decay_env_frames)
    return epsilon, config.epsilon_ladder, config.num_envs


# By `exploration`: from a configuration.
KINDS = {"epsilon_greedy": _epsilon_greedy, "boltzmann": _boltzmann}


def exploration(config: Config) -> EpsilonGreedy:
    """The exploration that a configuration describes."""
    return KINDS[config.exploration](config)


def choose(q: tf.Tensor, explore: tf.Tensor | Explore, seed: tf.Tensor, legal: tf.Tensor | None) -> tf.Tensor:
    """Actions [N] int32, by their values q [N, A] and exploration.

    Args:
      q: action values [N, A].
      explore: what `EpsilonGreedy.at` gives, or an epsilon alone, [] or [N] float32.
      seed: [2] int64.
      legal: [N, A] bool, what the rules allow; None: every action.
    """
    epsilon, temperature = explore if isinstance(explore, Explore) else Explore(explore)
    if isinstance(temperature, tuple):
        draws, values = seeds.draw(seed, tf.shape(q)[0]), q
    else:
        # An environment's draws in turn: what decides whether it explores, and one for each action's Gumbel noise, the
        # largest of which with Q / temperature is a draw from the softmax; here all times the temperature, which may be
        # small. Of 23 bits, so that no number rounds to 1, whose noise would be infinite.
        numbers = tf.reshape(seeds.draw(seed, tf.shape(q)[0] * (q.shape[1] + 1)), [-1, q.shape[1] + 1])
        uniform = (tf.cast(numbers[:, 1:] % 2**23, tf.float32) + 0.5) / 2.0**23
        draws, values = numbers[:, 0], q - temperature * tf.math.log(-tf.math.log(uniform))
    # Two independent parts of one draw: 24 bits decide whether to explore, the others which action.
    coin = tf.cast(tf.bitwise.bitwise_and(draws, 2**24 - 1), tf.float32)
    choice = tf.bitwise.bitwise_and(tf.bitwise.right_shift(draws, 24), 2**32 - 1)
    random_action = losses.uniform_action(choice, q.shape[1], legal)
    explores = coin < tf.cast(epsilon, tf.float32) * 2.0**24
    return tf.where(explores, random_action, losses.greedy_action(values, legal))
