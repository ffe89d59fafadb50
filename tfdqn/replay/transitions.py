"""What goes into a replay and what comes out, for whoever has no need of the replay itself and its libraries."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf


class Transition(NamedTuple):
    """A batch of n-step transitions.

    What is learnt is reward + discount * V(next observation). A return that mixes those of K lengths has as many
    discounts and next observations, over which it is the sum (see `tfdqn.replay.returns.Lambda`).
    """

    observation: tf.Tensor  # [B, ...], frames stacked along the last axis, the newest last
    action: tf.Tensor  # [B] int32
    reward: tf.Tensor  # [B] float32, the sum of discounted rewards of the steps taken
    discount: tf.Tensor  # [B] float32, discount ** steps, 0 after a termination; or [B, K]
    next_observation: tf.Tensor  # [B, ...], or [B, K, ...]
    # [B, A] bool, or [B, K, A], what the rules allow at each of them; (): every action. Not None, which is a value to
    # `tf.distribute`, and one that it cannot hand out.
    legal: tf.Tensor | tuple = ()
    next_legal: tf.Tensor | tuple = ()


class Row(NamedTuple):
    """One decision of every environment."""

    frame: tf.Tensor  # [N, ...] as the game shows it
    action: tf.Tensor  # [N] int32
    reward: tf.Tensor  # [N] float32
    discount: tf.Tensor  # [N] float32, 0 where the episode terminated in this decision, else 1
    is_first: tf.Tensor  # [N] bool, the first frame of an episode
    is_boundary: tf.Tensor  # [N] bool, only the frame counts: the last of an episode, or one before its first decision
    legal: tf.Tensor | tuple = ()  # [N, A] bool, what the rules allow at this frame; of games with such rules only
