"""The Q-network of learners without a target network: it plays, and learns targets that it is given."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from tfdqn import optimizers
from tfdqn.envs.spec import ObservationSpec
from tfdqn.inputs import as_tensor
from tfdqn.learners import base, exploration, losses
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
class QNetwork(base.Agent):
    """A Q-network. `call` maps observations [B, ...] to action values [B, A] float32.

    Args:
      observation_shape: (H, W, C) or (D,), frames stacked.
      num_actions: A.
      network: name of a network in `tfdqn.networks.catalogue`, or "module:function".
      convolution, precision: see `tfdqn.networks.catalogue.build`.
      max_gradient_norm: clip the gradient's global norm; None for no clipping.
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
            "seed": seed,
            "observation_dtype": spec.dtype,
        }
        self.num_actions, self._max_gradient_norm, self._observation_dtype = num_actions, norm, tf.as_dtype(spec.dtype)
        self.online = catalogue.build(
            network, spec, Values(num_actions), seed, "online", convolution=convolution, precision=precision
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
        shape = [None, *self._config["observation_shape"]]
        return self.online(as_tensor(inputs, self._observation_dtype, shape, "QNetwork: observations"))

    def act(self, observation, agent_state, epsilon, seed, legal=None):
        return exploration.choose(self(observation), epsilon, seed, legal), agent_state

    def learn(self, observation: tf.Tensor, action: tf.Tensor, target: tf.Tensor, weight: tf.Tensor) -> LearnResult:
        """Take one step of the optimizer towards targets.

        Args:
          observation: [B, ...].
          action: [B] int32, whose value is to become `target` [B] float32.
          weight: [B] float32; with 0, an entry does not count.
        """
        total = tf.maximum(tf.reduce_sum(weight), 1.0)
        variables = self.online.trainable_variables
        with tf.GradientTape() as tape:
            q = self(observation)
            td_error = losses.masked_value(q, action) - target
            loss = tf.reduce_sum(weight * losses.squared(td_error)) / total
        gradients = tape.gradient(loss, variables)
        norm = optimizers.global_norm(gradients)
        is_finite = tf.math.is_finite(tf.stack([tf.nn.l2_loss(target * weight), loss, norm]))
        if self._max_gradient_norm is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, self._max_gradient_norm, use_norm=norm)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        best = losses.max_value(q)
        size = tf.reduce_sum(weight * tf.abs(td_error)) / total
        return LearnResult(loss, size, tf.reduce_mean(best), tf.reduce_max(best), norm, is_finite)
