"""An actor-critic network: a policy and a state's value on one body."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from tfdqn import optimizers, seeds
from tfdqn.envs.spec import ObservationSpec
from tfdqn.inputs import as_tensor
from tfdqn.learners import base, losses
from tfdqn.networks import catalogue


class PolicyAndValue:
    """A head with a logit an action, then the state's value."""

    def __init__(self, num_actions: int):
        self._num_actions = num_actions

    def connect(self, features: Any, hidden: Callable, dense: Callable) -> Any:
        """The output from the body's features: see `tfdqn.networks.catalogue.Head`."""
        return dense(self._num_actions + 1, 0)(hidden(0)(features))


class LearnResult(NamedTuple):
    """What one update shows, [] float32 each; means over the entries that count."""

    loss: tf.Tensor
    policy_loss: tf.Tensor
    value_loss: tf.Tensor
    entropy: tf.Tensor
    mean_value: tf.Tensor
    gradient_norm: tf.Tensor  # before clipping
    is_finite: tf.Tensor  # [3] bool: the advantages, the loss, the gradient


@tf.keras.saving.register_keras_serializable(package="tfdqn")
class ActorCritic(base.Agent):
    """A policy and a value. `call` maps observations [B, ...] to log-probabilities of the actions, [B, A] float32.

    Args:
      observation_shape: (H, W, C) or (D,), frames stacked.
      num_actions: A.
      network: name of a network in `tfdqn.networks.catalogue`, or "module:function".
      convolution, precision: see `tfdqn.networks.catalogue.build`.
      max_gradient_norm: clip the gradient's global norm; None for no clipping.
      entropy_weight, value_weight: of these parts of the loss; the policy's has 1.
      seed: initial weights follow from it.
      observation_dtype: "uint8", "float32" or "bool".
    """

    def __init__(
        self,
        observation_shape: tuple[int, ...],
        num_actions: int,
        network: str = "mlp",
        convolution: str = "patches",
        precision: str = "float32",
        max_gradient_norm: float | None = None,
        entropy_weight: float = 0.01,
        value_weight: float = 0.5,
        seed: int = 0,
        observation_dtype: str = "uint8",
        **kwargs: Any,
    ):
        super().__init__(dtype="float32", **kwargs)
        spec = ObservationSpec(observation_shape, observation_dtype)
        norm = None if max_gradient_norm in (None, math.inf) else float(max_gradient_norm)  # JSON has no infinity
        self._config = {
            "observation_shape": spec.shape,
            "num_actions": num_actions,
            "network": network,
            "convolution": convolution,
            "precision": precision,
            "max_gradient_norm": norm,
            "entropy_weight": entropy_weight,
            "value_weight": value_weight,
            "seed": seed,
            "observation_dtype": spec.dtype,
        }
        self.num_actions, self._max_gradient_norm, self._observation_dtype = num_actions, norm, tf.as_dtype(spec.dtype)
        self._entropy_weight, self._value_weight = entropy_weight, value_weight
        self.online = catalogue.build(
            network, spec, PolicyAndValue(num_actions), seed, "online", convolution=convolution, precision=precision
        )
        self.build((None, *spec.shape))
        self(tf.zeros([1, *spec.shape], self._observation_dtype))  # so that Keras knows what it takes and can save it

    def build(self, input_shape: Any) -> None:
        """Nothing is left to be made."""
        tf.keras.layers.Layer.build(self, input_shape)

    def get_config(self) -> dict[str, Any]:
        return {**self._config, "name": self.name}

    def compile_from_config(self, config: dict[str, Any]) -> None:
        self.compile(**tf.keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.online.trainable_variables)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.policy_and_value(inputs)[0]

    def policy_and_value(self, inputs: tf.Tensor, legal: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        """Log-probabilities of the actions [B, A] (of illegal ones -inf), and V(s) [B]."""
        shape = [None, *self._config["observation_shape"]]
        output = self.online(as_tensor(inputs, self._observation_dtype, shape, "ActorCritic: observations"))
        logits = losses.among(output[:, :-1], legal)
        return tf.nn.log_softmax(logits), output[:, -1]

    def act(self, observation, agent_state, epsilon, seed, legal=None):
        """In a share `epsilon` an action drawn from the policy, else the most probable one."""
        log_policy, _ = self.policy_and_value(observation, legal)
        # Draws in turn for every environment: one for each action's Gumbel noise, and one that decides which it is.
        numbers = seeds.draw(seed, tf.shape(log_policy)[0] * (self.num_actions + 1))
        uniform = (tf.cast(numbers % 2**24, tf.float32) + 0.5) / 2.0**24
        uniform = tf.reshape(uniform, [-1, self.num_actions + 1])
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

        Args:
          observation: [B, ...].
          action: [B] int32, which was taken.
          advantage: [B] float32, how much better than the state's value it turned out.
          target: [B] float32, what the value is to become.
          weight: [B] float32; with 0, an entry does not count.
          legal: [B, A] bool, what the rules allowed; None: every action.
        """
        total = tf.maximum(tf.reduce_sum(weight), 1.0)

        def mean(values):
            return tf.reduce_sum(weight * values) / total

        variables = self.online.trainable_variables
        with tf.GradientTape() as tape:
            log_policy, value = self.policy_and_value(observation, legal)
            finite = tf.where(tf.math.is_finite(log_policy), log_policy, 0.0)  # 0 log 0 is 0
            policy_loss = -mean(advantage * losses.masked_value(finite, action))
            value_loss = mean(losses.squared(value - target))
            entropy = -mean(tf.reduce_sum(tf.exp(log_policy) * finite, axis=1))
            loss = policy_loss + self._value_weight * value_loss - self._entropy_weight * entropy
        gradients = tape.gradient(loss, variables)
        norm = optimizers.global_norm(gradients)
        is_finite = tf.math.is_finite(tf.stack([tf.nn.l2_loss(advantage * weight), loss, norm]))
        if self._max_gradient_norm is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, self._max_gradient_norm, use_norm=norm)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return LearnResult(loss, policy_loss, value_loss, entropy, mean(value), norm, is_finite)
