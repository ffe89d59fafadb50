"""Networks that remember: a body of the catalogue, a recurrent cell behind it, and action values.

Shapes: T steps, B batch, A actions, U units of the cell.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfdqn import seeds
from tfdqn.envs.spec import ObservationSpec
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
      label: name of the Keras model.
      norm: normalise what enters the cell (Ba et al. 2016).
      **body: of `tfdqn.networks.catalogue.build`, its `name` among them.
    """

    def __init__(
        self,
        spec: ObservationSpec,
        num_actions: int,
        cell: str,
        cell_units: int,
        seed: int,
        label: str,
        norm: bool = False,
        **body: Any,
    ):
        super().__init__(name=label, dtype="float32")
        self.body = catalogue.build(spec=spec, head=Features(), seed=seed, label=f"{label}_body", **body)
        self.norm = tf.keras.layers.LayerNormalization(dtype=layers.DTYPE) if norm else None
        self.cell = CELLS[cell](cell_units, seeds.stream(seed, "weights", 0, CELL))
        initializer = tf.keras.initializers.GlorotUniform(seeds.stream(seed, "weights", 0, VALUES))
        self.values = layers.Dense(num_actions, False, activation=None, kernel_initializer=initializer)
        self._frame = spec.shape
        self.build((None, *spec.shape))

    def build(self, input_shape: Any) -> None:
        features = (None, self.body.output_shape[-1])
        if self.norm is not None:
            self.norm.build(features)
        self.cell.build(features)
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
        state = self.cell.step(self._given(observation), state)
        return self.values(state.hidden), state

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Action values [B, A] of observations [B, ...] that begin an episode."""
        return self.step(inputs, self.initial_state(tf.shape(inputs)[0]))[0]

    def unroll(self, observation: tf.Tensor, begins: tf.Tensor, state: Any) -> tuple[tf.Tensor, Any]:
        """Action values [T, B, A] of sequences [T, B, ...], and the state after them; see `Cell.unroll`."""
        sizes = observation.shape[:2]
        # Whatever hangs on no state is computed of all rows at once.
        given = self._given(tf.reshape(observation, [-1, *self._frame]))
        outputs, state = self.cell.unroll(tf.reshape(given, [*sizes, given.shape[-1]]), begins, state)
        values = self.values(tf.reshape(outputs, [-1, self.cell.units]))
        return tf.reshape(values, [*sizes, values.shape[-1]]), state

    def _given(self, observation: tf.Tensor) -> tf.Tensor:
        """What the cell is given of observations [B, ...]: see `Cell.call`."""
        features = self.body(observation)
        return self.cell(features if self.norm is None else self.norm(features))
