"""An actor-critic network: a policy and a state's value on one body."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import tensorflow as tf

from tfdqn import seeds
from tfdqn.inputs import as_float32
from tfdqn.learners import losses
from tfdqn.learners.exploration import Explore
from tfdqn.learners.networked import NetworkAgent
from tfdqn.networks import catalogue
from tfdqn.runtime import held


class PolicyAndValue:
    """A head with a logit an action, then the state's value."""

    def __init__(self, num_actions: int):
        self._num_actions = num_actions

    def connect(self, features: Any, hidden: Callable, dense: Callable) -> Any:
        """The output from the body's features: see `tfdqn.networks.catalogue.Head`."""
        return dense(self._num_actions + 1, 0)(hidden(0)(features))


class LearnResult(NamedTuple):
    """What one update shows, [] float32 each; means over the entries that count. Of a population of P, [P] each."""

    loss: tf.Tensor
    policy_loss: tf.Tensor
    value_loss: tf.Tensor
    entropy: tf.Tensor
    mean_value: tf.Tensor
    gradient_norm: tf.Tensor  # before clipping
    is_finite: tf.Tensor  # [3] bool: the advantages, the loss, the gradient; [P, 3]


@tf.keras.saving.register_keras_serializable(package="tfdqn")
class ActorCritic(NetworkAgent):
    """A policy and a value. `call` maps observations [B, ...] to log-probabilities of the actions, [B, A] float32.

    Args:
      *args, **kwargs: see `NetworkAgent`; its settings are also:
        entropy_weight, value_weight: of these parts of the loss; the policy's has 1.
    """

    SETTINGS: ClassVar[dict[str, Any]] = {**NetworkAgent.SETTINGS, "entropy_weight": 0.01, "value_weight": 0.5}

    def make_networks(self, spec, body):
        self.online = catalogue.build(spec=spec, head=PolicyAndValue(self.num_actions), label="online", **body)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.policy_and_value(inputs)[0]

    def policy_and_value(self, inputs: tf.Tensor, legal: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        """Log-probabilities of the actions [B, A] (of illegal ones -inf), and V(s) [B]."""
        output = self.online(self.entering(inputs))
        if legal is not None:
            # Where nothing is legal the episode is over, and no action counts; but all have to be numbers.
            legal = tf.logical_or(legal, ~tf.reduce_any(legal, axis=1, keepdims=True))
        logits = losses.among(output[:, :-1], legal)
        return tf.nn.log_softmax(logits), output[:, -1]

    def act(self, observation, agent_state, epsilon, seed, legal=None):
        """In a share `epsilon` an action drawn from the policy, else the most probable one."""
        epsilon, _, rests = epsilon if isinstance(epsilon, Explore) else Explore(epsilon)
        log_policy, _ = self.policy_and_value(observation, legal)
        if not isinstance(rests, tuple):
            log_policy = tf.where(rests[:, tf.newaxis], 0.0, log_policy)
        # Draws in turn for every environment: one for each action's Gumbel noise, and one that decides which it is.
        numbers = seeds.draw_rows(seed, tf.shape(log_policy)[0], self.num_actions + 1)
        uniform = (tf.cast(numbers % 2**24, tf.float32) + 0.5) / 2.0**24
        # The largest number rounds to 1, whose noise would be infinite: that action would always be taken.
        uniform = tf.reshape(tf.minimum(uniform, 1.0 - 2.0**-24), [-1, self.num_actions + 1])
        drawn = losses.greedy_action(log_policy - tf.math.log(-tf.math.log(uniform[:, 1:])), legal)
        return tf.where(uniform[:, 0] < epsilon, drawn, losses.greedy_action(log_policy, legal)), agent_state

    def learn(
        self,
        observation: tf.Tensor,
        action: tf.Tensor,
        advantage: tf.Tensor,
        target: tf.Tensor,
        weight: tf.Tensor,
        legal: tf.Tensor | None = None,
    ) -> LearnResult:
        """Take one step of the optimizer (Mnih et al. 2016, "Asynchronous methods", section 4).

        Of a population, B is that of all members.

        Args:
          observation: [B, ...].
          action: [B] int32, which was taken.
          advantage: [B] float32, how much better than the state's value it turned out.
          target: [B] float32, what the value is to become.
          weight: [B] float32; with 0, an entry does not count.
          legal: [B, A] bool, what the rules allowed; None: every action.
        """
        members = self._members
        total = tf.maximum(members.sum(weight), 1.0)
        value_weight, entropy_weight = (as_float32(self.setting(name)) for name in ("value_weight", "entropy_weight"))

        def mean(values):
            return members.sum(weight * values) / total

        with held.Tape(self.online.trainable_variables) as tape:
            log_policy, value = self.policy_and_value(observation, legal)
            finite = tf.where(tf.math.is_finite(log_policy), log_policy, 0.0)  # 0 log 0 is 0
            policy_loss = -mean(advantage * losses.masked_value(finite, action))
            value_loss = mean(losses.squared(value - target))
            entropy = -mean(tf.reduce_sum(tf.exp(log_policy) * finite, axis=1))
            loss = policy_loss + value_weight * value_loss - entropy_weight * entropy
        norm, is_finite = self.descend(tape, loss, advantage * weight)
        return LearnResult(loss, policy_loss, value_loss, entropy, mean(value), norm, is_finite)
