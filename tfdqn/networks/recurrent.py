"""Networks that remember: a body of the catalogue, a recurrent cell behind it, and action values.

Shapes: T steps, B batch, A actions, U units of the cell.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from tfdqn import seeds
from tfdqn.envs.spec import ObservationSpec
from tfdqn.networks import catalogue, layers, stacked
from tfdqn.networks.cells import CELLS

CELL, VALUES = 1001, 1002  # numbers that tell these layers' weights apart from the body's


class Features:
    """A head that adds nothing: a body up to its last hidden layer."""

    def connect(self, features: Any, hidden: Callable, dense: Callable) -> Any:
        """The output from the body's features: see `tfdqn.networks.catalogue.Head`."""
        return hidden(0)(features)


@functools.cache
def with_past(state: type) -> type:
    """A cell's state with the action before, `action` [B] int32 (-1: none), and what it paid, `reward` [B] float32."""
    fields = [(name, tf.Tensor) for name in (*state._fields, "action", "reward")]
    return NamedTuple(f"{state.__name__}WithPast", fields)


class RecurrentNetwork(tf.keras.Model):
    """A body, a cell and a number an action.

    Args:
      spec: of the observations.
      num_actions: A.
      cell, cell_units: a name in `tfdqn.networks.cells.CELLS`, and U.
      seed: initial weights follow from it.
      label: name of the Keras model.
      norm: normalise the body's features (Ba et al. 2016).
      sees_past: the action before, one-hot, and its reward enter the cell, too (Kapturowski et al. 2019, section 2.3),
        as they are and zero where an episode begins; they are carried, and `unroll` has to be told of them.
      head: makes the last layer, from outputs of the cell [B, U] to action values [B, A], given A, U and a seed; None
        for a linear one.
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
        sees_past: bool = False,
        head: Callable[[int, int, int], tf.keras.layers.Layer] | None = None,
        **body: Any,
    ):
        super().__init__(name=label, dtype="float32")
        self.body = catalogue.build(spec=spec, head=Features(), seed=seed, label=f"{label}_body", **body)
        self.norm = tf.keras.layers.LayerNormalization(dtype=layers.DTYPE) if norm else None
        self.cell = CELLS[cell](cell_units, seeds.stream(seed, "weights", 0, CELL))
        head = _linear if head is None else head
        self.values = head(num_actions, cell_units, seeds.stream(seed, "weights", 0, VALUES))
        self._frame, self._num_actions, self._sees_past = spec.shape, num_actions, sees_past
        self.build((None, *spec.shape))

    def build(self, input_shape: Any) -> None:
        features = self.body.output_shape[-1]
        if self.norm is not None:
            self.norm.build((None, features))
        self.cell.build((None, features + (self._num_actions + 1 if self._sees_past else 0)))
        self.values.build((None, self.cell.units))
        tf.keras.layers.Layer.build(self, input_shape)

    def side_by_side(self, networks: Sequence[RecurrentNetwork]) -> RecurrentNetworks:
        """One network of several like this one, whose weights are still to be set."""
        return RecurrentNetworks(networks)

    def get_config(self) -> dict[str, Any]:
        """Its name: whoever holds it makes it anew, and Keras would warn of what it does not know to write."""
        return {"name": self.name}

    def initial_state(self, batch_size: int | tf.Tensor) -> Any:
        """What it carries at an episode's start, a NamedTuple of tensors [B, ...]."""
        state = self.cell.initial_state(batch_size)
        if not self._sees_past:
            return state
        return with_past(self.cell.STATE)(*state, tf.fill([batch_size], -1), tf.zeros([batch_size]))

    def step(self, observation: tf.Tensor, state: Any) -> tuple[tf.Tensor, Any]:
        """Action values [B, A] of observations [B, ...], and the next state: of the past it holds what it was given."""
        past = (state.action, state.reward) if self._sees_past else ()
        memory = self.cell.step(self._given(observation, *past), self._memory(state))
        return self.values(memory.hidden), state._replace(**memory._asdict())

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Action values [B, A] of observations [B, ...] that begin an episode."""
        return self.step(inputs, self.initial_state(tf.shape(inputs)[0]))[0]

    def unroll(
        self,
        observation: tf.Tensor,
        begins: tf.Tensor,
        state: Any,
        action: tf.Tensor | None = None,
        reward: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, Any]:
        """Action values [T, B, A] of sequences, and the state after them.

        Args:
          observation: [T, B, ...].
          begins: [T, B] bool, where an episode begins.
          state: before the first step.
          action, reward: [T, B] int32 and float32, what was done at each step and what that paid; only where it sees
            the past.
        """
        sizes, past = observation.shape[:2], ()
        if self._sees_past:
            before = tf.concat([state.action[tf.newaxis], action[:-1]], axis=0)
            paid = tf.concat([state.reward[tf.newaxis], reward[:-1]], axis=0)
            past = (tf.where(begins, -1, before), tf.where(begins, 0.0, paid))
            past = [self._rows_of(each) for each in past]
            state = state._replace(action=action[-1], reward=reward[-1])
        # Whatever hangs on no state is computed of all rows at once.
        given = self._sequences_of(self._given(self._rows_of(observation), *past), sizes)
        outputs, memory = self.cell.unroll(given, begins, self._memory(state))
        values = self.values(self._rows_of(outputs))
        return self._sequences_of(values, sizes), state._replace(**memory._asdict())

    def _rows_of(self, sequences: tf.Tensor) -> tf.Tensor:
        """Sequences [T, B, ...] as rows [T * B, ...]."""
        return tf.reshape(sequences, [-1, *sequences.shape[2:]])

    def _sequences_of(self, rows: tf.Tensor, sizes: Sequence[int]) -> tf.Tensor:
        """The other way, of `sizes` T and B."""
        return tf.reshape(rows, [*sizes, *rows.shape[1:]])

    def _given(self, observation: tf.Tensor, *past: tf.Tensor) -> tf.Tensor:
        """What the cell is given (see `Cell.call`) of observations [B, ...], actions and rewards before [B]."""
        features = self.body(observation)
        if self.norm is not None:
            features = self.norm(features)
        if past:
            action, reward = past
            features = tf.concat([features, tf.one_hot(action, self._num_actions), reward[:, tf.newaxis]], axis=-1)
        return self.cell(features)

    def _memory(self, state: Any) -> Any:
        """The part of a state that is the cell's."""
        return self.cell.STATE(*(getattr(state, name) for name in self.cell.STATE._fields))


class RecurrentNetworks(RecurrentNetwork):
    """P of them side by side: rows and sequences are [P * B, ...] and [T, P * B, ...] (see `tfdqn.networks.stacked`).

    Args:
      networks: of one form.
    """

    def __init__(self, networks: Sequence[RecurrentNetwork]):
        first = networks[0]
        tf.keras.Model.__init__(self, name=first.name, dtype="float32")
        self._count = len(networks)
        self.body = stacked.model([network.body for network in networks])
        self.norm = None if first.norm is None else stacked.beside_each_other([each.norm for each in networks])
        self.cell = stacked.beside_each_other([each.cell for each in networks])
        self.values = stacked.beside_each_other([each.values for each in networks])
        self._frame, self._num_actions, self._sees_past = first._frame, first._num_actions, first._sees_past
        self.build((None, *self._frame))

    def _rows_of(self, sequences):
        return stacked.rows_of(sequences, self._count)

    def _sequences_of(self, rows, sizes):
        return stacked.sequences_of(rows, self._count, sizes[0])


def _linear(num_actions: int, units: int, seed: int) -> tf.keras.layers.Layer:
    initializer = tf.keras.initializers.GlorotUniform(seed)
    return layers.Dense(num_actions, False, activation=None, kernel_initializer=initializer)
