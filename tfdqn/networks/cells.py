"""Recurrent cells, stepped by hand: plain products that compile wherever a dense layer does.

Keras' own layers choose among kernels, of which some do not compile. Here a sequence's inputs are multiplied all at
once, and only the state's product is left for the loop. Weights are laid out as in Keras, whose layers give the same
numbers. Shapes: T steps, B batch, F inputs, U units.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import tensorflow as tf

DTYPE = "float32"


class LSTMState(NamedTuple):
    hidden: tf.Tensor  # [B, U] float32, also the output
    cell: tf.Tensor  # [B, U] float32


class GRUState(NamedTuple):
    hidden: tf.Tensor  # [B, U] float32, also the output


class Cell(tf.keras.layers.Layer):
    """What both have in common.

    Args:
      units: U.
      seed: the weights are drawn from it, Glorot uniform and orthogonal.
    """

    GATES: ClassVar[int]
    STATE: ClassVar[type]

    def __init__(self, units: int, seed: int, **kwargs: Any):
        super().__init__(dtype=DTYPE, **kwargs)
        self.units, self._seed = units, seed

    def build(self, input_shape: Any) -> None:
        wide, initializers = self.GATES * self.units, tf.keras.initializers
        self.kernel = self.add_weight(
            "kernel", (int(input_shape[-1]), wide), initializer=initializers.GlorotUniform(self._seed)
        )
        self.recurrent = self.add_weight(
            "recurrent", (self.units, wide), initializer=initializers.Orthogonal(seed=self._seed)
        )
        super().build(input_shape)

    def initial_state(self, batch_size: int) -> Any:
        """Zeros, [B, U] each."""
        return self.STATE(*(tf.zeros([batch_size, self.units]) for _ in self.STATE._fields))

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """The part of the gates that hangs on the inputs alone: [..., F] to [..., GATES * U]."""
        return tf.matmul(inputs, self.kernel) + self.bias

    def step(self, given: tf.Tensor, state: Any) -> Any:
        """The next state, from `call`'s result for this step [B, GATES * U] and the state before."""
        raise NotImplementedError

    def unroll(self, given: tf.Tensor, begins: tf.Tensor, state: Any) -> tuple[tf.Tensor, Any]:
        """All steps of sequences.

        Args:
          given: [T, B, GATES * U], `call`'s result.
          begins: [T, B] bool, where the state is the initial one before this step.
          state: before the first step.

        Returns:
          The outputs [T, B, U], and the state after the last step.
        """
        steps, batch_size = given.shape[:2]
        outputs = tf.TensorArray(tf.float32, steps, element_shape=[batch_size, self.units])

        def once(number, state, outputs):
            begun = begins[number][:, tf.newaxis]
            state = self.STATE(*(tf.where(begun, 0.0, each) for each in state))
            state = self.step(given[number], state)
            return number + 1, state, outputs.write(number, state.hidden)

        # The number of steps is told beforehand: without it XLA cannot go backwards through the loop.
        _, state, outputs = tf.while_loop(
            lambda number, *_: number < steps, once, (tf.constant(0), state, outputs), maximum_iterations=steps
        )
        return outputs.stack(), state


class LSTM(Cell):
    """Long short-term memory (Hochreiter and Schmidhuber 1997; Gers et al. 2000, with a forget gate).

        i, f, o = sigmoid(x W + h U + b),  g = tanh(...),   c' = f c + i g,   h' = o tanh(c')

    Gates in the order i, f, g, o. The forget gate's bias begins at 1 (Jozefowicz et al. 2015).
    """

    GATES, STATE = 4, LSTMState

    def build(self, input_shape):
        super().build(input_shape)
        units = self.units

        def initial(shape, dtype=None):
            return tf.concat([tf.zeros([units]), tf.ones([units]), tf.zeros([2 * units])], axis=0)

        self.bias = self.add_weight("bias", (4 * units,), initializer=initial)

    def step(self, given, state):
        i, f, g, o = tf.split(given + tf.matmul(state.hidden, self.recurrent), 4, axis=-1)
        cell = tf.sigmoid(f) * state.cell + tf.sigmoid(i) * tf.tanh(g)
        return LSTMState(tf.sigmoid(o) * tf.tanh(cell), cell)


class GRU(Cell):
    """Gated recurrent unit (Cho et al. 2014), the reset after the product.

        z, r = sigmoid(x W + h U + b),   n = tanh(x W_n + r (h U_n + b_n)),   h' = z h + (1 - z) n

    Gates in the order z, r, n; the products have a bias each, as in Keras with `reset_after`.
    """

    GATES, STATE = 3, GRUState

    def build(self, input_shape):
        super().build(input_shape)
        self.bias = self.add_weight("bias", (3 * self.units,), initializer="zeros")
        self.recurrent_bias = self.add_weight("recurrent_bias", (3 * self.units,), initializer="zeros")

    def step(self, given, state):
        held = tf.matmul(state.hidden, self.recurrent) + self.recurrent_bias
        (z, r, n), (z_held, r_held, n_held) = (tf.split(each, 3, axis=-1) for each in (given, held))
        keep = tf.sigmoid(z + z_held)
        return GRUState(keep * state.hidden + (1.0 - keep) * tf.tanh(n + tf.sigmoid(r + r_held) * n_held))


CELLS = {"lstm": LSTM, "gru": GRU}
