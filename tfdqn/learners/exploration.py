"""Exploration: how large the share of random actions is, and what an agent does then."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import tensorflow as tf

from tfdqn import seeds
from tfdqn.learners import losses

if TYPE_CHECKING:
    from tfdqn.config import Config


@dataclasses.dataclass(frozen=True)
class LinearEpsilon:
    """A share of random actions that changes linearly with the frames played, then stays (Mnih et al. 2015)."""

    start: float
    end: float
    decay_env_frames: int

    def epsilon_at(self, env_frames: tf.Tensor) -> tf.Tensor:
        """The share [] float32 after so many frames [] int64; clipped as an integer, so it stays exact at any age."""
        progress = tf.minimum(env_frames, self.decay_env_frames)
        share = tf.cast(progress, tf.float32) / float(self.decay_env_frames)
        return self.start + (self.end - self.start) * share


def exploration(config: Config) -> LinearEpsilon:
    """The exploration that a configuration describes: there is one kind."""
    return LinearEpsilon(config.epsilon_start, config.epsilon_end, config.epsilon_decay_env_frames)


def epsilon_greedy(q: tf.Tensor, epsilon: tf.Tensor, seed: tf.Tensor, legal: tf.Tensor | None) -> tf.Tensor:
    """Actions [N] int32: the best by q [N, A], or, in a share `epsilon`, uniformly random ones.

    Args:
      q: action values [N, A].
      epsilon: [] float32.
      seed: [2] int64.
      legal: [N, A] bool, what the rules allow; None: every action.
    """
    draws = seeds.draw(seed, tf.shape(q)[0])
    # Two independent parts of one draw: 24 bits decide whether to explore, the others which action.
    coin = tf.cast(tf.bitwise.bitwise_and(draws, 2**24 - 1), tf.float32)
    choice = tf.bitwise.bitwise_and(tf.bitwise.right_shift(draws, 24), 2**32 - 1)
    random_action = losses.uniform_action(choice, q.shape[1], legal)
    explores = coin < tf.cast(epsilon, tf.float32) * 2.0**24
    return tf.where(explores, random_action, losses.greedy_action(q, legal))
