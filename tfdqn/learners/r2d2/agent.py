"""A recurrent Q-network: it plays, carries what it remembers, and learns from windows.

Shapes: T rows of a window, B batch, A actions, U units of the cell.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfdqn import optimizers, seeds
from tfdqn.envs.spec import ObservationSpec
from tfdqn.inputs import as_tensor
from tfdqn.learners import base, exploration, losses
from tfdqn.networks import catalogue, layers
from tfdqn.networks.cells import CELLS

CELL, VALUES = 1001, 1002  # numbers that tell these layers' weights apart from the body's


class Features:
    """A head that adds nothing: a body up to its last hidden layer."""

    def connect(self, features: Any, hidden: Callable, dense: Callable) -> Any:
        """The output from the body's features: see `tfdqn.networks.catalogue.Head`."""
        return hidden(0)(features)


class RecurrentNetwork(tf.keras.Model):
    """A body, a cell and a number an action.

    Args:
      spec: of the observations.
      num_actions: A.
      cell, cell_units: a name in `tfdqn.networks.cells.CELLS`, and U.
      seed: initial weights follow from it.
      **body: of `tfdqn.networks.catalogue.build`, its `name` among them.
    """

    def __init__(
        self, spec: ObservationSpec, num_actions: int, cell: str, cell_units: int, seed: int, label: str, **body: Any
    ):
        super().__init__(name=label, dtype="float32")
        self.body = catalogue.build(spec=spec, head=Features(), seed=seed, label=f"{label}_body", **body)
        self.cell = CELLS[cell](cell_units, seeds.stream(seed, "weights", 0, CELL))
        initializer = tf.keras.initializers.GlorotUniform(seeds.stream(seed, "weights", 0, VALUES))
        self.values = layers.Dense(num_actions, False, activation=None, kernel_initializer=initializer)
        self._frame = spec.shape
        self.build((None, *spec.shape))

    def build(self, input_shape: Any) -> None:
        self.cell.build((None, self.body.output_shape[-1]))
        self.values.build((None, self.cell.units))
        tf.keras.layers.Layer.build(self, input_shape)

    def get_config(self) -> dict[str, Any]:
        """Its name: whoever holds it makes it anew, and Keras would warn of what it does not know to write."""
        return {"name": self.name}

    def initial_state(self, batch_size: int | tf.Tensor) -> Any:
        """What it carries at an episode's start, a NamedTuple of [B, U] each."""
        return self.cell.initial_state(batch_size)

    def step(self, observation: tf.Tensor, state: Any) -> tuple[tf.Tensor, Any]:
        """Action values [B, A] of observations [B, ...], and the next state."""
        state = self.cell.step(self.cell(self.body(observation)), state)
        return self.values(state.hidden), state

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Action values [B, A] of observations [B, ...] that begin an episode."""
        return self.step(inputs, self.initial_state(tf.shape(inputs)[0]))[0]

    def unroll(self, observation: tf.Tensor, begins: tf.Tensor, state: Any) -> tuple[tf.Tensor, Any]:
        """Action values [T, B, A] of sequences [T, B, ...], and the state after them; see `Cell.unroll`."""
        sizes = observation.shape[:2]
        # Whatever hangs on no state is computed of all rows at once.
        given = self.cell(self.body(tf.reshape(observation, [-1, *self._frame])))
        outputs, state = self.cell.unroll(tf.reshape(given, [*sizes, given.shape[-1]]), begins, state)
        values = self.values(tf.reshape(outputs, [-1, self.cell.units]))
        return tf.reshape(values, [*sizes, values.shape[-1]]), state


def n_step_targets(
    reward: tf.Tensor,
    discount: tf.Tensor,
    is_boundary: tf.Tensor,
    value: tf.Tensor,
    n_step: int,
    rescale_epsilon: float,
) -> tf.Tensor:
    """What the first T - n rows of windows of T are to be worth, [T - n, B] (Kapturowski et al. 2019, section 2.3).

        h(sum_k gamma^k r_t+k + gamma^n h^-1(Q_target(s_t+n, a*))),   a* the online network's choice

    Where an episode was cut off, its last frame has a row of its own (`is_boundary`), from which a return that reaches
    it bootstraps.

    Args:
      reward: [T, B].
      discount: [T, B], gamma, or 0 where the episode terminated.
      is_boundary: [T, B] bool; the targets of these rows mean nothing.
      value: [T, B], rescaled, of a* at each row.
      n_step: n.
      rescale_epsilon: of h.
    """
    size = reward.shape[0] - n_step
    value = losses.unscale(value, rescale_epsilon)
    found = value[n_step:]
    for number in reversed(range(n_step)):
        rows = slice(number, number + size)
        found = tf.where(is_boundary[rows], value[rows], losses.td_target(reward[rows], discount[rows], found))
    return losses.rescale(found, rescale_epsilon)


class LearnResult(NamedTuple):
    """What one update shows; values are rescaled."""

    loss: tf.Tensor  # [] float32, the weighted mean of half the squared TD error
    td_error: tf.Tensor  # [] float32, the mean of its size
    mean_q: tf.Tensor  # [] float32, mean of max_a Q(s, a)
    max_q: tf.Tensor  # [] float32, the largest of these
    gradient_norm: tf.Tensor  # [] float32, global norm before clipping
    is_finite: tf.Tensor  # [3] bool: the targets, the loss, the gradient
    priority: tf.Tensor  # [B] float32, eta max |td| + (1 - eta) mean |td| of each window


@tf.keras.saving.register_keras_serializable(package="tfdqn")
class R2D2(base.Agent):
    """A recurrent Q-network and its target network (Hausknecht and Stone 2015; Kapturowski et al. 2019).

    `call` maps observations [B, ...] that begin an episode to action values [B, A] float32, which are rescaled returns.

    Args:
      observation_shape: (H, W, C) or (D,), frames stacked.
      num_actions: A.
      network: name of a network in `tfdqn.networks.catalogue`, or "module:function"; its last hidden layer feeds the
        cell.
      convolution, precision: see `tfdqn.networks.catalogue.build`.
      cell: "lstm" or "gru".
      cell_units: U.
      burn_in: rows of a window that only bring its stored state up to date (Kapturowski et al. 2019, section 3).
      n_step: decisions of reward before bootstrapping.
      discount: gamma.
      priority_eta: how much the largest TD error counts in a window's priority.
      rescale_epsilon: see `tfdqn.learners.losses.rescale`.
      target_update_period_updates: the target network is copied from the online one after so many.
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
        cell: str = "lstm",
        cell_units: int = 64,
        burn_in: int = 10,
        n_step: int = 5,
        discount: float = 0.997,
        priority_eta: float = 0.9,
        rescale_epsilon: float = 1e-3,
        target_update_period_updates: int = 400,
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
            "cell": cell,
            "cell_units": cell_units,
            "burn_in": burn_in,
            "n_step": n_step,
            "discount": discount,
            "priority_eta": priority_eta,
            "rescale_epsilon": rescale_epsilon,
            "target_update_period_updates": target_update_period_updates,
            "max_gradient_norm": norm,
            "seed": seed,
            "observation_dtype": spec.dtype,
        }
        self.num_actions, self._max_gradient_norm, self._observation_dtype = num_actions, norm, tf.as_dtype(spec.dtype)
        self._burn_in, self._n_step, self._discount = burn_in, n_step, discount
        self._priority_eta, self._rescale_epsilon = priority_eta, rescale_epsilon
        self._period = target_update_period_updates
        body = {"name": network, "convolution": convolution, "precision": precision}
        self.online, self.target = (
            RecurrentNetwork(spec, num_actions, cell, cell_units, seed, label, **body) for label in ("online", "target")
        )
        self.target.trainable = False
        self.copy_to_target()
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

    # Playing.

    def initial_state(self, num_envs: int) -> Any:
        return self.online.initial_state(num_envs)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.online(self._entering(inputs))

    def action_values(self, observation: tf.Tensor, agent_state: Any) -> tf.Tensor:
        return self.online.step(self._entering(observation), agent_state)[0]

    def act(self, observation, agent_state, epsilon, seed, legal=None):
        q, agent_state = self.online.step(self._entering(observation), agent_state)
        return exploration.choose(q, epsilon, seed, legal), agent_state

    def _entering(self, observation: Any) -> tf.Tensor:
        shape = [None, *self._config["observation_shape"]]
        return as_tensor(observation, self._observation_dtype, shape, "R2D2: observations")

    # Learning.

    def learn(self, windows: Any, weights: tf.Tensor) -> LearnResult:
        """Take one step of the optimizer on a batch, then bring the target network up to date.

        Args:
          windows: `tfdqn.replay.sequences.Windows` of `burn_in` rows, those to learn, and `n_step` rows.
          weights: [B] float32, importance of each window in the mean loss; with 0 it does not count.
        """
        burn_in, eta = self._burn_in, self._priority_eta
        observation, begins, state = windows.observation, windows.is_first, windows.state
        target_q = self.target.unroll(observation, begins, state)[0][burn_in:]
        if burn_in:  # outside the tape: no gradient goes there
            _, state = self.online.unroll(observation[:burn_in], begins[:burn_in], state)
        late = tf.nest.map_structure(lambda rows: rows[burn_in:], windows._replace(state=()))
        size = late.reward.shape[0] - self._n_step
        counts = tf.cast(~late.is_boundary[:size], tf.float32)
        variables = self.online.trainable_variables
        with tf.GradientTape() as tape:
            q, _ = self.online.unroll(late.observation, late.is_first, state)
            with tape.stop_recording():
                legal = None if isinstance(late.legal, tuple) else late.legal
                value = losses.double_value(q, target_q, legal)
                discount = self._discount * late.discount
                target = n_step_targets(
                    late.reward, discount, late.is_boundary, value, self._n_step, self._rescale_epsilon
                )
            q = q[:size]
            td_error = (losses.masked_value(q, late.action[:size]) - target) * counts  # [T - n, B]
            total = tf.maximum(tf.reduce_sum(counts), 1.0)
            loss = tf.reduce_sum(weights * losses.squared(td_error)) / total
        gradients = tape.gradient(loss, variables)
        norm = optimizers.global_norm(gradients)
        is_finite = tf.math.is_finite(tf.stack([tf.nn.l2_loss(target * counts), loss, norm]))
        if self._max_gradient_norm is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, self._max_gradient_norm, use_norm=norm)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        self._sync_target()
        best = losses.max_value(q, None if legal is None else legal[:size])
        size_of_error = tf.abs(td_error)
        each = tf.reduce_sum(size_of_error, axis=0) / tf.maximum(tf.reduce_sum(counts, axis=0), 1.0)
        return LearnResult(
            loss=loss,
            td_error=tf.reduce_sum(size_of_error) / total,
            mean_q=tf.reduce_sum(tf.where(counts > 0, best, 0.0)) / total,
            max_q=tf.reduce_max(tf.where(counts > 0, best, -math.inf)),
            gradient_norm=norm,
            is_finite=is_finite,
            priority=eta * tf.reduce_max(size_of_error, axis=0) + (1.0 - eta) * each,
        )

    # The target network.

    def play_by(self, weights: Sequence[np.ndarray]) -> None:
        super().play_by(weights)
        self.target.set_weights(weights)

    def copy_to_target(self) -> None:
        """Make the target network equal to the online one."""
        for target, online in zip(self.target.variables, self.online.variables, strict=True):
            target.assign(online)

    def _sync_target(self) -> None:
        """After an update, which `optimizer.iterations` has counted."""
        is_due = self.optimizer.iterations % self._period == 0
        for target, online in zip(self.target.variables, self.online.variables, strict=True):
            target.assign(tf.where(is_due, online, target))
