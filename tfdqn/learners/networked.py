"""Agents that are one Keras network made from settings, and the learners that train one: what these all repeat."""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import tensorflow as tf

from tfdqn.config import Config
from tfdqn.envs.base import Environment
from tfdqn.envs.spec import ObservationSpec
from tfdqn.inputs import as_tensor
from tfdqn.learners import base, optimizing
from tfdqn.learners.metrics import Metrics, note_non_finite
from tfdqn.members import Members, members_of
from tfdqn.networks import stacked
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
        self._members = Members(())
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

    def join(self, agents: Sequence[NetworkAgent], members: Members) -> None:
        """Be all of these from now on, side by side: rows are those of all members (see `tfdqn.members`).

        Args:
          agents: P of the same form, this one among them; their weights are copied.
          members: what they are.
        """
        self._members, self.online = members, stacked.model([agent.online for agent in agents])

    @property
    def count(self) -> int:
        """P, of agents side by side; 1 alone."""
        return self._members.count

    def setting(self, name: str) -> Any:
        """A setting's value; of agents side by side that differ in it, that of each, [P]."""
        return self._members.setting(name) if self._members.shape else self._settings[name]

    def play_by(self, weights: Sequence[np.ndarray]) -> None:
        if self._members.shape:
            stacked.set_weights(self.online, weights, self.count)
        else:
            super().play_by(weights)

    def weights_of(self, number: int) -> list[np.ndarray]:
        """The weights of one member's `online`, as those of an agent alone."""
        return stacked.weights_of(self.online, number)

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

    def descend(
        self, tape: tf.GradientTape, loss: tf.Tensor, sought: tf.Tensor, axis: int = 0
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Take one step of the optimizer down a loss []; of agents side by side, [P], and so is what is returned.

        Args:
          tape: has seen the loss.
          loss: to be made smaller.
          sought: what is learnt, such as targets; only looked at.
          axis: of its rows; 1 of sequences.

        Returns:
          The gradient's global norm before clipping, [], and whether `sought`, the loss and the gradient are finite,
          [3] bool; the first by its square, which overflows before it is of any use.
        """
        variables, limit, members = self.online.trainable_variables, self.setting("max_gradient_norm"), self._members
        gradients = exchange.mean(tape.gradient(loss, variables))
        norm = members.norm(gradients, variables)
        is_finite = tf.math.is_finite(tf.stack([members.half_square(sought, axis), loss, norm], axis=-1))
        if limit is not None and not (isinstance(limit, float) and limit == math.inf):
            gradients = members.clipped(gradients, variables, norm, limit)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return norm, is_finite


class NetworkLearner(base.Learner):
    """A learner of a `NetworkAgent`, each of whose settings is one of the run's, by the same name."""

    AGENT: ClassVar[type[NetworkAgent]]

    def __init__(self, config: Config, env: Environment, device: str):
        super().__init__(config.replace(convolution=_convolution(config)), env, device)
        self._members = members = members_of(config)
        agents = [self.build_agent(each, env) for each in members.configs]
        if members.shape:
            agents[0].join(agents, members)
        self.agent = optimizing.compiled(agents[0], config, members)

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
        named = base.numbered(**{"agent/online": agent.online.variables, "optimizer": agent.optimizer.variables})
        return named | {f"settings/{name}": variable for name, variable in self._members.tuned.items()}


def _convolution(config: Config) -> str:
    return "patches" if config.convolution == "auto" else config.convolution
