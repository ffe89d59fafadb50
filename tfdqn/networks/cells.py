"""Recurrent cells, stepped by hand: plain products that compile wherever a dense layer does.

Keras' own layers choose among kernels, of which some do not compile. Here a sequence's inputs are multiplied all at
once, and only the state's product is left for the loop. Weights are laid out as in Keras, whose layers give the same
numbers. Shapes: T steps, B batch, F inputs, U units.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import tensorflow as tf

from tfdqn.runtime import loops

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
        return self.gated(given, _held(state.hidden, *self._recurrent_weights()), state)

    @staticmethod
    def gated(given: tf.Tensor, held: tf.Tensor, state: Any) -> Any:
        """The next state, from the parts of the gates that hang on the inputs and on the output before."""
        raise NotImplementedError

    def _recurrent_weights(self) -> tuple[tf.Tensor, ...]:
        """Of the product with the output before: the matrix, and a bias where it has one."""
        return (tf.convert_to_tensor(self.recurrent),)

    def unroll(self, given: tf.Tensor, begins: tf.Tensor, state: Any) -> tuple[tf.Tensor, Any]:
        """All steps of sequences.

        Args:
          given: [T, B, GATES * U], `call`'s result.
          begins: [T, B] bool, where the state is the initial one before this step.
          state: before the first step.

        Returns:
          The outputs [T, B, U], and the state after the last step.
        """
        outputs, *state = _unrolled(self.gated, self.STATE, begins)(given, *state, *self._recurrent_weights())
        return outputs, self.STATE(*state)


def _held(hidden: tf.Tensor, recurrent: tf.Tensor, *bias: tf.Tensor) -> tf.Tensor:
    return sum(bias, tf.matmul(hidden, recurrent))


def _unrolled(gated: Callable, state_type: type, begins: tf.Tensor) -> Callable:
    """`Cell.unroll` as a function of all that it has gradients for.

    Its gradient is written out: of a loop's, XLA does not know how often it turns, and a GPU waits for the host before
    each turn. So, too, the weights' gradient is one product of all steps.
    """
    parts = len(state_type._fields)

    @tf.custom_gradient
    def unrolled(given, *state_and_weights):
        state, weights = state_type(*state_and_weights[:parts]), state_and_weights[parts:]
        steps = given.shape[0]

        def once(number, state, outputs, before):
            state = _begun(begins[number], state)
            before = [each.write(number, part) for each, part in zip(before, state, strict=True)]
            state = gated(given[number], _held(state.hidden, *weights), state)
            return state, outputs.write(number, state.hidden), before

        outputs, *before = (
            tf.TensorArray(tf.float32, steps, element_shape=state.hidden.shape) for _ in range(parts + 1)
        )
        state, outputs, before = loops.repeat(steps, once, (state, outputs, before))
        before = state_type(*(each.stack() for each in before))  # [T, B, U] each: what a step begins from

        def gradient(d_outputs, *d_state):
            held = _held(before.hidden, *weights)

            def back(number, d_state, d_given, d_held):
                at = steps - 1 - number
                d_state = d_state._replace(hidden=d_state.hidden + d_outputs[at])
                inside = (given[at], held[at], state_type(*(each[at] for each in before)))
                with tf.GradientTape() as tape:
                    tape.watch(inside)
                    after = gated(*inside)
                of_given, of_held, of_state = tape.gradient(after, inside, d_state, unconnected_gradients="zero")
                through = tf.matmul(of_held, weights[0], transpose_b=True)
                of_state = _begun(begins[at], of_state._replace(hidden=of_state.hidden + through))
                return of_state, d_given.write(at, of_given), d_held.write(at, of_held)

            arrays = [tf.TensorArray(tf.float32, steps, element_shape=each.shape[1:]) for each in (given, held)]
            first, d_given, d_held = loops.repeat(steps, back, (state_type(*d_state), *arrays))
            wide, d_held = held.shape[-1], d_held.stack()
            units = before.hidden.shape[-1]
            d_recurrent = tf.matmul(
                tf.reshape(before.hidden, [-1, units]), tf.reshape(d_held, [-1, wide]), transpose_a=True
            )
            d_bias = [tf.reduce_sum(d_held, axis=[0, 1]) for _ in weights[1:]]
            return d_given.stack(), *first, d_recurrent, *d_bias

        return (outputs.stack(), *state), gradient

    return unrolled


def _begun(begins: tf.Tensor, state: Any) -> Any:
    """The state [B, U] each, the initial one where an episode `begins` [B]."""
    return type(state)(*(tf.where(begins[:, tf.newaxis], 0.0, each) for each in state))


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

    @staticmethod
    def gated(given, held, state):
        i, f, g, o = tf.split(given + held, 4, axis=-1)
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

    def _recurrent_weights(self):
        return (*super()._recurrent_weights(), tf.convert_to_tensor(self.recurrent_bias))

    @staticmethod
    def gated(given, held, state):
        (z, r, n), (z_held, r_held, n_held) = (tf.split(each, 3, axis=-1) for each in (given, held))
        keep = tf.sigmoid(z + z_held)
        return GRUState(keep * state.hidden + (1.0 - keep) * tf.tanh(n + tf.sigmoid(r + r_held) * n_held))


CELLS = {"lstm": LSTM, "gru": GRU}
