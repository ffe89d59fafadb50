"""The Q-network of learners without a target network: it plays, and learns targets that it is given."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import tensorflow as tf

from tfdqn.learners import exploration, losses
from tfdqn.learners.networked import NetworkAgent
from tfdqn.networks import catalogue
from tfdqn.networks.recurrent import RecurrentNetwork
from tfdqn.runtime import held


class Values:
    """A head with a number an action, its expected return."""

    def __init__(self, num_actions: int):
        self._num_actions = num_actions

    def connect(self, features: Any, hidden: Callable, dense: Callable) -> Any:
        """The output from the body's features: see `tfdqn.networks.catalogue.Head`."""
        return dense(self._num_actions, 0)(hidden(0)(features))


class LearnResult(NamedTuple):
    """What one update shows; of a population of P, each has that axis more."""

    loss: tf.Tensor  # [] float32, the weighted mean of half the squared TD error
    td_error: tf.Tensor  # [] float32, the weighted mean of its size
    mean_q: tf.Tensor  # [] float32, mean over the decisions of max_a Q(s, a), of the legal actions
    max_q: tf.Tensor  # [] float32, the largest of these
    gradient_norm: tf.Tensor  # [] float32, global norm before clipping
    is_finite: tf.Tensor  # [3] bool: the targets, the loss, the gradient


@tf.keras.saving.register_keras_serializable(package="tfdqn")
class QNetwork(NetworkAgent):
    """A Q-network. `call` maps observations [B, ...] to action values [B, A] float32; they begin episodes to a cell.

    Args:
      *args, **kwargs: see `NetworkAgent`; its settings are also:
        cell: "lstm" or "gru", behind the network's last hidden layer and layer normalisation; or "none".
        cell_units: U.

    Attributes:
      remembers: whether there is a cell.
    """

    SETTINGS: ClassVar[dict[str, Any]] = {**NetworkAgent.SETTINGS, "cell": "none", "cell_units": 64}

    def make_networks(self, spec, body):
        cell, units = self._settings["cell"], self._settings["cell_units"]
        self.remembers = cell != "none"
        if self.remembers:
            self.online = RecurrentNetwork(spec, self.num_actions, cell, units, label="online", norm=True, **body)
        else:
            self.online = catalogue.build(spec=spec, head=Values(self.num_actions), label="online", **body)

    def initial_state(self, num_envs: int) -> Any:
        return self.online.initial_state(num_envs) if self.remembers else super().initial_state(num_envs)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.online(self.entering(inputs))

    def action_values(self, observation, agent_state):
        return self._step(observation, agent_state)[0]

    def act(self, observation, agent_state, epsilon, seed, legal=None):
        q, agent_state = self._step(observation, agent_state)
        return exploration.choose(q, epsilon, seed, legal), agent_state

    def _step(self, observation: tf.Tensor, agent_state: Any) -> tuple[tf.Tensor, Any]:
        if not self.remembers:
            return self(observation), agent_state
        return self.online.step(self.entering(observation), agent_state)

    def learn(
        self,
        observation: tf.Tensor,
        action: tf.Tensor,
        target: tf.Tensor,
        weight: tf.Tensor,
        is_first: tf.Tensor | None = None,
        state: Any = None,
        legal: tf.Tensor | None = None,
    ) -> LearnResult:
        """Take one step of the optimizer towards targets. Of a population, B is that of all members.

        Args:
          observation: [B, ...]; where it remembers, [T, B, ...], sequences of T decisions.
          action: [B] int32, whose value is to become `target` [B] float32; of sequences [T, B].
          weight: [B] or [T, B] float32, 1 or 0; with 0, an entry does not count.
          is_first: [T, B] bool, of sequences: where an episode begins.
          state: of sequences: what was carried when they began, [B, ...]. No gradient reaches what was before.
          legal: [B, A] or [T, B, A] bool, the actions whose values are shown; None: all.
        """
        members, axis = self._members, int(self.remembers)
        total = tf.maximum(members.sum(weight, axis), 1.0)
        with held.Tape(self.online.trainable_variables) as tape:
            q = self.online.unroll(observation, is_first, state)[0] if self.remembers else self(observation)
            td_error = losses.masked_value(q, action) - target
            loss = members.sum(weight * losses.squared(td_error), axis) / total
        norm, is_finite = self.descend(tape, loss, target * weight, axis)
        best = losses.max_value(q, legal)
        size = members.sum(weight * tf.abs(td_error), axis) / total
        mean_q = members.sum(tf.where(weight > 0, best, 0.0), axis) / total
        max_q = members.max(tf.where(weight > 0, best, -math.inf), axis)
        return LearnResult(loss, size, mean_q, max_q, norm, is_finite)
