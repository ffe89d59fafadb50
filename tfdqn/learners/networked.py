"""Agents that are one Keras network made from settings, and the learners that train one: what these all repeat."""

from __future__ import annotations

import abc
import math
from typing import Any, ClassVar, NamedTuple

import tensorflow as tf

from tfdqn import optimizers
from tfdqn.config import Config
from tfdqn.envs.base import Environment
from tfdqn.envs.spec import ObservationSpec
from tfdqn.inputs import as_tensor
from tfdqn.learners import base, optimizing
from tfdqn.learners.metrics import Metrics, note_non_finite
from tfdqn.runtime import exchange


class NetworkAgent(base.Agent):
    """An agent that Keras saves and brings back by its settings.

    Args:
      observation_shape: (H, W, C) or (D,), frames stacked.
      num_actions: A.
      observation_dtype: "uint8", "float32" or "bool".
      name: of the Keras model.
      **settings: of `SETTINGS`, whose values hold where one is left out. Those of every agent:
        network: name of a network in `tfdqn.networks.catalogue`, or "module:function".
        convolution, precision: see `tfdqn.networks.catalogue.build`.
        max_gradient_norm: clip the gradient's global norm; None or infinity for no clipping.
        seed: initial weights follow from it.

    Raises:
      TypeError: no such setting.
    """

    SETTINGS: ClassVar[dict[str, Any]] = {
        "network": "mlp",
        "convolution": "patches",
        "precision": "float32",
        "max_gradient_norm": None,
        "seed": 0,
    }

    def __init__(
        self,
        observation_shape: tuple[int, ...],
        num_actions: int,
        observation_dtype: str = "uint8",
        name: str | None = None,
        **settings: Any,
    ):
        if unknown := settings.keys() - self.SETTINGS.keys():
            raise TypeError(f"{type(self).__name__}: no setting {', '.join(sorted(unknown))}")
        super().__init__(dtype="float32", name=name)
        self._spec = spec = ObservationSpec(observation_shape, observation_dtype)
        self._settings = settings = {**self.SETTINGS, **settings}
        if settings["max_gradient_norm"] == math.inf:
            settings["max_gradient_norm"] = None  # JSON has no infinity
        self.num_actions = num_actions
        body = {"name": settings["network"], **{key: settings[key] for key in ("convolution", "precision", "seed")}}
        self.make_networks(spec, body)
        self.build((None, *spec.shape))
        self(tf.zeros([1, *spec.shape], spec.dtype))  # so that Keras knows what it takes and can save it

    @abc.abstractmethod
    def make_networks(self, spec: ObservationSpec, body: dict[str, Any]) -> None:
        """Set `online`, and what else there is.

        Args:
          spec: of the observations.
          body: arguments of `tfdqn.networks.catalogue.build`: `name`, `convolution`, `precision` and `seed`.
        """

    def build(self, input_shape: Any) -> None:
        """Nothing is left to be made."""
        tf.keras.layers.Layer.build(self, input_shape)

    def get_config(self) -> dict[str, Any]:
        spec = {"observation_shape": self._spec.shape, "observation_dtype": self._spec.dtype}
        return {**spec, "num_actions": self.num_actions, **self._settings, "name": self.name}

    def compile_from_config(self, config: dict[str, Any]) -> None:
        self.compile(**tf.keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.online.trainable_variables)

    def entering(self, observation: Any) -> tf.Tensor:
        """Observations [B, ...] as the networks take them, or a refusal in one line."""
        what = f"{type(self).__name__}: observations"
        return as_tensor(observation, tf.as_dtype(self._spec.dtype), [None, *self._spec.shape], what)

    def descend(self, tape: tf.GradientTape, loss: tf.Tensor, sought: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Take one step of the optimizer down a loss [].

        Args:
          tape: has seen the loss.
          loss: to be made smaller.
          sought: what is learnt, such as targets; only looked at.

        Returns:
          The gradient's global norm before clipping, [], and whether `sought`, the loss and the gradient are finite,
          [3] bool; the first by its square, which overflows before it is of any use.
        """
        variables, limit = self.online.trainable_variables, self._settings["max_gradient_norm"]
        gradients = exchange.mean(tape.gradient(loss, variables))
        norm = optimizers.global_norm(gradients)
        is_finite = tf.math.is_finite(tf.stack([tf.nn.l2_loss(sought), loss, norm]))
        if limit is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, limit, use_norm=norm)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return norm, is_finite


class NetworkLearner(base.Learner):
    """A learner of a `NetworkAgent`, each of whose settings is one of the run's, by the same name."""

    AGENT: ClassVar[type[NetworkAgent]]

    def __init__(self, config: Config, env: Environment, device: str):
        super().__init__(config.replace(convolution=_convolution(config)), env, device)
        self.agent = optimizing.compiled(self.build_agent(self.config, env), config)

    @classmethod
    def build_agent(cls, config: Config, env: Environment) -> NetworkAgent:
        spec = env.observation_spec.stacked(config.frame_stack)
        settings = {name: getattr(config, name) for name in cls.AGENT.SETTINGS}
        settings["convolution"] = _convolution(config)
        return cls.AGENT(spec.shape, env.num_actions, spec.dtype, name=config.learner, **settings)

    def noted(self, sums: Metrics, result: NamedTuple) -> Metrics:
        """The sums after an update, of which the agent's optimizer knows already."""
        sums = note_non_finite(sums, ~result.is_finite, self.agent.optimizer.iterations.read_value(), 1)
        return sums.with_update({metric.name: getattr(result, metric.name) for metric in self.METRICS})

    @property
    def variables(self) -> dict[str, tf.Variable]:
        agent = self.agent
        return base.numbered(**{"agent/online": agent.online.variables, "optimizer": agent.optimizer.variables})


def _convolution(config: Config) -> str:
    return "patches" if config.convolution == "auto" else config.convolution
