"""The learner: a Keras model that holds the online and the target network, acts, and takes one step at a time."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfdqn import seeds
from tfdqn.envs.spec import ObservationSpec
from tfdqn.inputs import refusal
from tfdqn.learners import base, exploration, losses
from tfdqn.learners.dqn import entering, heads, rules, updating
from tfdqn.learners.dqn.metrics import LearnResult
from tfdqn.members import Members
from tfdqn.networks import catalogue, drawing
from tfdqn.replay.transitions import Transition


class TwoNetworks(base.Agent):
    """An agent of two networks of one form: the online one plays and learns, the target is bootstrapped from."""

    target: tf.keras.Model

    def copy_to_target(self) -> None:
        """Make the target network equal to the online one."""
        for target, online in zip(self.target.variables, self.online.variables, strict=True):
            target.assign(online)

    @contextlib.contextmanager
    def target_in_front(self):
        """Meanwhile the target network's weights are the online network's, which plays and is saved, and vice versa."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        online, target = self.online.get_weights(), self.target.get_weights()
        self.online.set_weights(target)
        self.target.set_weights(online)


@tf.keras.saving.register_keras_serializable(package="tfdqn")
class DQN(TwoNetworks):
    """Deep Q-network (Mnih et al. 2015) with a target network that shares nothing with the online one.

    `call` maps [B, H, W, stack] uint8 to action values [B, A]. After `compile(optimizer=...)` it learns from batches
    of `Transition`, by `fit` on a `tf.data` set or by `learn` inside a larger compiled loop. `fit`, `evaluate`,
    `train_on_batch` and `test_on_batch` take a `Transition`, or a pair of one and weights [B].

    It is float32 throughout, whatever `tf.keras.mixed_precision`'s policy or `keras.json` say. `save` makes `.keras`
    files and, with `save_format="tf"`, SavedModels, out of which Keras brings back no optimizer's state; HDF5 takes the
    weights alone (`save_weights`).

    Args:
      observation_shape: (H, W, stack), or (D,) or (H, W, C * stack) of other games.
      num_actions: A.
      network: name of a network in `tfdqn.networks.catalogue`.
      members: networks side by side whose values are averaged (see `tfdqn.learners.dqn.heads.Ensemble`).
      convolution: "patches" or "native" (see `tfdqn.networks.catalogue.build`).
      precision: "float32", "tf32" or "bfloat16" (see `tfdqn.networks.catalogue.build`).
      loss: "huber" or "mse".
      target: "hard" copies the online weights every `target_update_period_updates` updates; "soft" moves the target
        by `target_tau` at each update; "none" bootstraps from the online network.
      double: choose the next action by the online network (van Hasselt et al. 2016).
      target_epsilon: learn the returns of a player that takes so large a share of random actions (van Seijen et al.
        2009), not those of a flawless one.
      advantage_alpha: widen the gap between the best action and the others to 1 / (1 - advantage_alpha) times its
        size (Bellemare et al. 2016); the gap is the online network's.
      munchausen_alpha, munchausen_temperature, munchausen_clip: learn the returns of a soft policy, whose
        log-probability is added to the reward (see `tfdqn.learners.dqn.targets.MunchausenTarget`); with alpha 0 not.
      dueling: learn the state's value and the actions' advantages apart (Wang et al. 2016).
      spectral_norm: the layers of the body are divided by their largest singular value.
      noisy: the head's layers have noise in their weights, `noisy_sigma` at first, while the agent explores and learns
        (Fortunato et al. 2018).
      head: "scalar", the expected return; "categorical", probabilities of `atoms` returns from `value_min` to
        `value_max` (Bellemare et al. 2017), which learns by cross-entropy; "quantile", `quantiles` of the return
        (Dabney et al. 2018a); or "iqn", any of them, `iqn_samples` in an update and `iqn_act_samples` in play (Dabney
        et al. 2018b). Quantiles learn by a Huber loss with `huber_kappa`. All but the first have no use for `loss`.
      max_gradient_norm: clip the gradient's global norm, which is that of all members together; None or infinity for
        no clipping.
      seed: initial weights follow from it. None is refused: no draw in tfdqn is hidden.
      observation_dtype: "uint8", "float32" or "bool".

    Raises:
      ValueError: a setting is out of range; the limits are those of `tfdqn.config.Config`.
    """

    def __init__(
        self,
        observation_shape: tuple[int, ...],
        num_actions: int,
        network: str = "mlp",
        members: int = 1,
        convolution: str = "patches",
        precision: str = "float32",
        loss: str = "huber",
        target: str = "hard",
        target_update_period_updates: int = 500,
        target_tau: float = 0.005,
        double: bool = True,
        target_epsilon: float = 0.0,
        advantage_alpha: float = 0.0,
        munchausen_alpha: float = 0.0,
        munchausen_temperature: float = 0.03,
        munchausen_clip: float = -1.0,
        dueling: bool = False,
        spectral_norm: bool = False,
        noisy: bool = False,
        noisy_sigma: float = 0.5,
        head: str = "scalar",
        atoms: int = 51,
        value_min: float = -1.0,
        value_max: float = 1.0,
        quantiles: int = 51,
        iqn_samples: int = 16,
        iqn_act_samples: int = 32,
        huber_kappa: float = 1.0,
        max_gradient_norm: float | None = None,
        seed: int = 0,
        observation_dtype: str = "uint8",
        **kwargs: Any,
    ):
        super().__init__(dtype="float32", **kwargs)
        settings = {
            "network": network,
            "members": members,
            "convolution": convolution,
            "precision": precision,
            "loss": loss,
            "target": target,
            "target_update_period_updates": target_update_period_updates,
            "target_tau": target_tau,
            "double": double,
            "target_epsilon": target_epsilon,
            "advantage_alpha": advantage_alpha,
            "munchausen_alpha": munchausen_alpha,
            "munchausen_temperature": munchausen_temperature,
            "munchausen_clip": munchausen_clip,
            "dueling": dueling,
            "spectral_norm": spectral_norm,
            "noisy": noisy,
            "noisy_sigma": noisy_sigma,
            "head": head,
            "atoms": atoms,
            "value_min": value_min,
            "value_max": value_max,
            "quantiles": quantiles,
            "iqn_samples": iqn_samples,
            "iqn_act_samples": iqn_act_samples,
            "huber_kappa": huber_kappa,
            "max_gradient_norm": math.inf if max_gradient_norm is None else float(max_gradient_norm),
            "seed": seed,
        }
        settings = entering.checked_settings(settings)
        observation_shape, num_actions = entering.checked_sizes(observation_shape, num_actions)
        spec = ObservationSpec(observation_shape, observation_dtype)
        self._config = {"observation_shape": observation_shape, "num_actions": num_actions, **settings}
        if spec.dtype != "uint8":  # what agents of earlier versions do not say
            self._config["observation_dtype"] = spec.dtype
        if settings["max_gradient_norm"] == math.inf:
            self._config["max_gradient_norm"] = None  # JSON has no infinity
        seed = settings["seed"]
        self.num_actions, self.is_noisy = num_actions, noisy
        one = rules.HEADS[head](num_actions, settings)
        self.accepts = entering.Inputs(tf.as_dtype(spec.dtype), observation_shape, num_actions, one.mixes_returns)
        self.online, self.target = (
            catalogue.build(
                *(network, spec, one, seed, label, members, convolution, precision),
                noisy_sigma=noisy_sigma if noisy else 0.0,
                spectral_norm=spectral_norm,
            )
            for label in ("online", "target")
        )
        self.head = heads.Ensemble(one, members) if members > 1 else one
        alone = Members(())
        self.rule = updating.Update(
            head=self.head,
            target_rule=rules.TARGET_RULES[munchausen_alpha > 0](settings),
            target_policy=rules.TARGETS[target](settings, alone),
            max_gradient_norm=settings["max_gradient_norm"],
            networks=members,
            draws=noisy or one.draws,
            stream=functools.partial(seeds.stream, seed, "noise"),
            members=alone,
        )
        self.target.trainable = False
        self.copy_to_target()
        self._reports = {name: tf.keras.metrics.Mean(name, tf.float32) for name in ("loss", "td_error", "mean_q")}
        self.build((None, *observation_shape))
        self(
            tf.zeros([1, *observation_shape], self.accepts.dtype)
        )  # once, so that Keras knows what it takes and can save it

    def build(self, input_shape: Any) -> None:
        """Nothing is left to be made: the networks were, by the constructor."""
        tf.keras.layers.Layer.build(self, (None, *self._config["observation_shape"]))

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Action values [B, A] float32 of observations [B, H, W, stack] uint8.

        Raises:
          TypeError: the observations are no bytes; floats from 0 to 1 are refused, or all would be black.
          ValueError: they have another shape.
        """
        return self.head.values(self.online(self.accepts.observations(inputs)))

    def compile(self, optimizer: Any = "rmsprop", **kwargs: Any) -> None:
        """As of every Keras model, without a loss or metrics: the constructor has said what is learnt."""
        for name in ("loss", "metrics", "loss_weights", "weighted_metrics"):
            if kwargs.get(name) is not None:
                raise ValueError(f"DQN.compile: {name} must be left out; the loss is that of DQN(loss=...)")
        super().compile(optimizer, **kwargs)

    def get_compile_config(self) -> dict[str, Any]:
        return super().get_compile_config()

    def compile_from_config(self, config: dict[str, Any]) -> None:
        # As Keras does where `compile` is its own; with it, `get_compile_config` has to be ours by name.
        self.compile(**tf.keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.online.trainable_variables)

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> np.ndarray:
        """Action values [B, A] float32 of observations [B, H, W, stack], an array or batches as of `tf.data`."""
        return super().predict(self._entering(x), *args, **kwargs)

    def predict_on_batch(self, x: Any) -> np.ndarray:
        """The same of one batch."""
        return super().predict_on_batch(self._entering(x))

    def get_config(self) -> dict[str, Any]:
        return {**self._config, "name": self.name}

    def _entering(self, x: Any) -> Any:
        """Observations on the host as bytes, before Keras puts them into a program; a data set as it is."""
        is_array = isinstance(x, (np.ndarray, list, tuple)) or tf.is_tensor(x)
        return self.accepts.observations(x) if is_array else x

    @property
    def metrics(self):
        return list(self._reports.values())

    # Acting.

    def act(
        self,
        observation: tf.Tensor,
        agent_state: Any,
        epsilon: tf.Tensor | exploration.Explore,
        seed: tf.Tensor,
        legal: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, Any]:
        """Choose actions.

        Args:
          observation: [N, H, W, stack] uint8.
          agent_state: what a recurrent agent carries between decisions; () here, returned as it came.
          epsilon: [] or [N] float32, the share of uniformly random actions; or how to explore in training.
          seed: [2] int64.
          legal: [N, A] bool, what the rules allow, at least one action each; None: every action.

        Returns:
          Actions [N] int32, and the next agent state.
        """
        observation = self.accepts.observations(observation)
        legal = self.accepts.legal(legal, observation.shape[:1], "legal actions")
        # Each environment with noise of its own.
        explores = self.is_noisy and isinstance(epsilon, exploration.Explore)
        with drawing.within(drawing.Draws(seed, _rows(observation)) if explores else None):
            values = self(observation)
        return exploration.choose(values, epsilon, seed, legal), agent_state

    # Learning.

    def learn(self, transitions: Transition, weights: tf.Tensor) -> LearnResult:
        """Take one step of the optimizer on a batch, then bring the target network up to date.

        In a replica of a `tf.distribute` strategy, by the mean of the gradients of all replicas' batches.

        Args:
          transitions: a batch of B.
          weights: [B] float32, importance of each transition in the mean loss.

        Raises:
          TypeError, ValueError: what is given has another type or shape, or an action on the host is none.
        """
        if getattr(self, "optimizer", None) is None:
            raise refusal(RuntimeError, "DQN.learn: call compile(optimizer=...) first")
        transitions, weights = self.accepts.batch(transitions, weights)
        return self.rule.step(self.online, self.target, self.optimizer, transitions, weights)

    def gradient(self, transitions: Transition, weights: tf.Tensor) -> list[tf.Tensor]:
        """What `learn` would step along, for each trainable variable of `online` and before clipping; nothing learns.

        Args:
          transitions, weights: as for `learn`.
        """
        transitions, weights = self.accepts.batch(transitions, weights)
        given, updates = (self.online, self.target), self.optimizer.iterations.read_value()
        with tf.GradientTape() as tape:
            # Layers that take note of being trained, such as those of spectral normalisation, must not.
            loss, *_ = self.rule.judge(*given, updates, transitions, weights, tape, training=False)
        return tape.gradient(loss, self.online.trainable_variables)

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """One update for `fit`: `data` is a `Transition`, or (Transition, weights [B])."""
        result = self.learn(*entering.unpacked(data))
        return self._report(result.loss, result.td_error, result.mean_q)

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """The same numbers for `evaluate` and for validation: nothing is learnt."""
        transitions, weights = self.accepts.batch(*entering.unpacked(data))
        optimizer = getattr(self, "optimizer", None)
        updates = tf.zeros([], tf.int64) if optimizer is None else optimizer.iterations.read_value()
        loss, td_error, output, _ = self.rule.judge(self.online, self.target, updates, transitions, weights)
        mean_q = tf.reduce_mean(losses.max_value(self.head.values(output), transitions.legal))
        return self._report(loss / self.rule.networks, td_error, mean_q)

    # As of every Keras model, but that `x` is a `Transition`, a pair of one and weights [B], or what gives batches of
    # these: a data set or a generator. Keras would drop `sample_weight` where there is no `y`.

    def fit(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> tf.keras.callbacks.History:
        if isinstance(kwargs.get("validation_data"), Transition):
            kwargs["validation_data"] = (kwargs["validation_data"],)  # or its fields would be x, y and so on
        return super().fit(*entering.fed(x, y, kwargs), *args, **kwargs)

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        return super().evaluate(*entering.fed(x, y, kwargs), *args, **kwargs)

    def train_on_batch(self, x: Any, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        return super().train_on_batch(*entering.fed(x, y, kwargs), *args, **kwargs)

    def test_on_batch(self, x: Any, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        return super().test_on_batch(*entering.fed(x, y, kwargs), *args, **kwargs)

    def _report(self, loss: tf.Tensor, td_error: tf.Tensor, mean_q: tf.Tensor) -> dict[str, tf.Tensor]:
        self._reports["loss"].update_state(loss)
        self._reports["td_error"].update_state(tf.abs(td_error))
        self._reports["mean_q"].update_state(mean_q)
        return {metric.name: metric.result() for metric in self.metrics}

    # The target network.

    def play_by(self, weights: Sequence[np.ndarray]) -> None:
        super().play_by(weights)
        self.target.set_weights(weights)


def _rows(batch: tf.Tensor) -> int | tf.Tensor:
    """B of a batch [B, ...], as a number where it is known."""
    return batch.shape[0] or tf.shape(batch)[0]
