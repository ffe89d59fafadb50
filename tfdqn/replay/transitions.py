"""What a replay hands to a learner; here, so that an agent plays without a replay and what it is made of."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf


class Transition(NamedTuple):
    """A batch of n-step transitions."""

    observation: tf.Tensor  # [B, ...], frames stacked along the last axis, the newest last
    action: tf.Tensor  # [B] int32
    reward: tf.Tensor  # [B] float32, the sum of discounted rewards of the steps taken
    discount: tf.Tensor  # [B] float32, discount ** steps, 0 after a termination
    next_observation: tf.Tensor  # [B, ...]
    # [B, A] bool, what the rules allow at each of them; (): every action. Not None, which is a value to
    # `tf.distribute`, and one that it cannot hand out.
    legal: tf.Tensor | tuple = ()
    next_legal: tf.Tensor | tuple = ()
