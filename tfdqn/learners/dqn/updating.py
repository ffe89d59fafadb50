"""One update of DQN, of an agent alone or of all members of a population at once.

Shapes: B batch, A actions. Of a population of P, a batch has the rows [P * B, ...], and what is [] of an agent is [P].
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfdqn import seeds
from tfdqn.learners import losses
from tfdqn.learners.dqn.heads import Ensemble, Head
from tfdqn.learners.dqn.metrics import LearnResult
from tfdqn.learners.dqn.rules import TargetPolicy
from tfdqn.learners.dqn.targets import TargetRule
from tfdqn.members import Members
from tfdqn.networks import drawing
from tfdqn.replay.transitions import Transition
from tfdqn.runtime import exchange, held


@dataclasses.dataclass(frozen=True)
class Update:
    """How an agent learns from a batch.

    Attributes:
      head: what the networks' output means.
      target_rule, target_policy: what is learnt, and from which network.
      max_gradient_norm: of all tensors together; infinity for no clipping.
      networks: networks side by side in one agent, whose losses are added.
      draws: whether layers draw in an update.
      stream: from a number, what names a call's draws in an update.
      members: whose batch it is.
    """

    head: Head | Ensemble
    target_rule: TargetRule
    target_policy: TargetPolicy
    max_gradient_norm: Any
    networks: int
    draws: bool
    stream: Callable[[int], Any]
    members: Members

    def judge(
        self,
        online: tf.keras.Model,
        target: tf.keras.Model,
        updates: tf.Tensor,
        transitions: Transition,
        weights: tf.Tensor,
        tape: tf.GradientTape | None = None,
        training: bool | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, Any]:
        """The mean loss [], TD errors [B], the network's output, and the target, which no gradient goes through.

        Args:
          online, target: the networks.
          updates: [] int64, made so far.
          transitions: a batch of B.
          weights: [B] float32.
          tape: where something is to be learnt, records it.
          training: what the network is told; with None whether there is a tape.
        """
        online, target = self._drawing(online, target, updates)
        output = online(transitions.observation, training=tape is not None if training is None else training)
        with tape.stop_recording() if tape else contextlib.nullcontext():
            bootstrap = self.target_policy.bootstrap(online, target)
            sought = self.target_rule.target(self.head, online, bootstrap, transitions, self.head.values(output))
        each_loss, td_error = self.head.loss(output, transitions.action, sought)
        return self.members.mean(weights * each_loss), td_error, output, sought

    def step(
        self,
        online: tf.keras.Model,
        target: tf.keras.Model,
        optimizer: tf.keras.optimizers.Optimizer,
        transitions: Transition,
        weights: tf.Tensor,
    ) -> LearnResult:
        """Take one step of the optimizer on a batch, then bring the target network up to date."""
        members = self.members
        updates = optimizer.iterations.read_value() if self.draws else optimizer.iterations
        variables = online.trainable_variables
        with held.Tape(variables) as tape:
            loss, td_error, output, sought = self.judge(online, target, updates, transitions, weights, tape)
        gradients, over_all = tape.gradient(loss, variables), {}
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            gradients = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, gradients)
            over_all = {"skip_gradients_aggregation": True}  # it would be their sum, and after the clipping
        gradients = exchange.mean(gradients)
        norm = members.norm(gradients, variables)
        # By its square, too: a target of 1e38 is finite, has a finite Huber loss, and is as wrong as an infinite one.
        half_square = tf.add_n([members.half_square(part) for part in tf.nest.flatten(sought)])
        is_finite = tf.math.is_finite(tf.stack([half_square, loss, norm], axis=-1))
        if not isinstance(self.max_gradient_norm, float) or self.max_gradient_norm != math.inf:
            gradients = members.clipped(gradients, variables, norm, self.max_gradient_norm)
        optimizer.apply_gradients(zip(gradients, variables, strict=True), **over_all)
        self.target_policy.follow(online, target, optimizer.iterations)
        values = losses.among(self.head.values(output), transitions.legal)
        mean_q = members.mean(losses.max_value(values))
        td_mean = members.mean(tf.abs(td_error))
        return LearnResult(loss / self.networks, td_error, td_mean, mean_q, members.max(values), norm, is_finite)

    def _drawing(self, online: Callable, target: Callable, updates: tf.Tensor) -> tuple[Callable, Callable]:
        """Both networks as they are called in an update: what their layers draw is drawn anew for each call."""
        if not self.draws:
            return online, target
        numbers = itertools.count()

        def drawn(network: Callable) -> Callable:
            def call(observation: tf.Tensor, **given: Any) -> tf.Tensor:
                seed = seeds.at(self.stream(next(numbers)), updates)
                with drawing.within(drawing.Draws(seed, self.members.count, taus=True)):
                    return network(observation, **given)

            return call

        return drawn(online), drawn(target)
