"""The Q-network of learners without a target network: it plays, and learns targets that it is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from tfdqn.learners import exploration, losses
from tfdqn.learners.networked import NetworkAgent
from tfdqn.networks import catalogue


class Values:
    """A head with a number an action, its expected return."""

    def __init__(self, num_actions: int):
        self._num_actions = num_actions

    def connect(self, features: Any, hidden: Callable, dense: Callable) -> Any:
        """The output from the body's features: see `tfdqn.networks.catalogue.Head`."""
        return dense(self._num_actions, 0)(hidden(0)(features))


class LearnResult(NamedTuple):
    """What one update shows."""

    loss: tf.Tensor  # [] float32, the weighted mean of half the squared TD error
    td_error: tf.Tensor  # [] float32, the weighted mean of its size
    mean_q: tf.Tensor  # [] float32, mean over the batch of max_a Q(s, a)
    max_q: tf.Tensor  # [] float32, the largest of these
    gradient_norm: tf.Tensor  # [] float32, global norm before clipping
    is_finite: tf.Tensor  # [3] bool: the targets, the loss, the gradient


@tf.keras.saving.register_keras_serializable(package="tfdqn")
class QNetwork(NetworkAgent):
    """A Q-network. `call` maps observations [B, ...] to action values [B, A] float32."""

    def make_networks(self, spec, body):
        self.online = catalogue.build(spec=spec, head=Values(self.num_actions), label="online", **body)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.online(self.entering(inputs))

    def act(self, observation, agent_state, epsilon, seed, legal=None):
        return exploration.epsilon_greedy(self(observation), epsilon, seed, legal), agent_state

    def learn(self, observation: tf.Tensor, action: tf.Tensor, target: tf.Tensor, weight: tf.Tensor) -> LearnResult:
        """Take one step of the optimizer towards targets.

        Args:
          observation: [B, ...].
          action: [B] int32, whose value is to become `target` [B] float32.
          weight: [B] float32; with 0, an entry does not count.
        """
        total = tf.maximum(tf.reduce_sum(weight), 1.0)
        with tf.GradientTape() as tape:
            q = self(observation)
            td_error = losses.masked_value(q, action) - target
            loss = tf.reduce_sum(weight * losses.squared(td_error)) / total
        norm, is_finite = self.descend(tape, loss, target * weight)
        best = losses.max_value(q)
        size = tf.reduce_sum(weight * tf.abs(td_error)) / total
        return LearnResult(loss, size, tf.reduce_mean(best), tf.reduce_max(best), norm, is_finite)
