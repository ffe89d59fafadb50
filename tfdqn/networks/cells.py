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
      count: P, of cells side by side, which begin with zeros. Their weights have that axis more, and their rows are
        [P * B, ...] each (see `tfdqn.networks.stacked`). None: a cell alone.
    """

    GATES: ClassVar[int]
    STATE: ClassVar[type]

    def __init__(self, units: int, seed: int, count: int | None = None, **kwargs: Any):
        super().__init__(dtype=DTYPE, **kwargs)
        self.units, self._seed, self._count = units, seed, count

    def build(self, input_shape: Any) -> None:
        wide, initializers = self.GATES * self.units, tf.keras.initializers
        self.kernel = self._add("kernel", (int(input_shape[-1]), wide), initializers.GlorotUniform(self._seed))
        self.recurrent = self._add("recurrent", (self.units, wide), initializers.Orthogonal(seed=self._seed))
        super().build(input_shape)

    def _add(self, name: str, shape: tuple[int, ...], initializer: Any = "zeros") -> tf.Variable:
        if self._count is not None:
            shape, initializer = (self._count, *shape), "zeros"
        return self.add_weight(name, shape, initializer=initializer)

    def side_by_side(self, count: int) -> Cell:
        """So many of its kind, whose weights are still to be set."""
        return type(self)(self.units, self._seed, count)

    def initial_state(self, batch_size: int) -> Any:
        """Zeros, [B, U] each."""
        return self.STATE(*(tf.zeros([batch_size, self.units]) for _ in self.STATE._fields))

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """The part of the gates that hangs on the inputs alone: [..., F] to [..., GATES * U]."""
        return _times(inputs, self.kernel) + _over_rows(self.bias, inputs)

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
    return sum((_over_rows(each, hidden) for each in bias), _times(hidden, recurrent))


# Products of rows [..., B, F] and a matrix [F, M]; or of those of P cells, [..., P * B, F] and [P, F, M].


def _times(rows: tf.Tensor, matrix: tf.Tensor, transpose_b: bool = False) -> tf.Tensor:
    if matrix.shape.rank == 2:
        return tf.matmul(rows, matrix, transpose_b=transpose_b)
    apart = _apart(rows, matrix.shape[0])
    if apart.shape.rank == 3:
        found = tf.matmul(apart, matrix, transpose_b=transpose_b)
    else:  # of steps: oneDNN computes [T, 1, B, F] times [1, F, M] wrongly, or ends the process, so cells come in front
        found = tf.einsum("tpbf,pmf->tpbm" if transpose_b else "tpbf,pfm->tpbm", apart, matrix)
    return tf.reshape(found, [*rows.shape[:-2], -1, found.shape[-1]])


def _over_rows(bias: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """A bias [M], or [P, M], to go with a product of these rows."""
    return bias if bias.shape.rank == 1 else tf.repeat(bias, tf.shape(rows)[-2] // bias.shape[0], axis=0)


def _gradient_of_matrix(rows: tf.Tensor, d_product: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
    """Of a product of rows [T, B, F], from the gradient of that, [T, B, M]."""
    if matrix.shape.rank == 2:
        rows, d_product = (tf.reshape(each, [-1, each.shape[-1]]) for each in (rows, d_product))
        return tf.matmul(rows, d_product, transpose_a=True)
    rows, d_product = (_apart(each, matrix.shape[0]) for each in (rows, d_product))
    return tf.einsum("tpbf,tpbm->pfm", rows, d_product)


def _gradient_of_bias(d_product: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    if bias.shape.rank == 1:
        return tf.reduce_sum(d_product, axis=[0, 1])
    return tf.reduce_sum(_apart(d_product, bias.shape[0]), axis=[0, 2])


def _apart(rows: tf.Tensor, count: int) -> tf.Tensor:
    return tf.reshape(rows, [*rows.shape[:-2], count, -1, rows.shape[-1]])


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
                through = _times(of_held, weights[0], transpose_b=True)
                of_state = _begun(begins[at], of_state._replace(hidden=of_state.hidden + through))
                return of_state, d_given.write(at, of_given), d_held.write(at, of_held)

            arrays = [tf.TensorArray(tf.float32, steps, element_shape=each.shape[1:]) for each in (given, held)]
            first, d_given, d_held = loops.repeat(steps, back, (state_type(*d_state), *arrays))
            d_held = d_held.stack()
            d_recurrent = _gradient_of_matrix(before.hidden, d_held, weights[0])
            d_bias = [_gradient_of_bias(d_held, bias) for bias in weights[1:]]
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

        self.bias = self._add("bias", (4 * units,), initial)

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
        self.bias = self._add("bias", (3 * self.units,))
        self.recurrent_bias = self._add("recurrent_bias", (3 * self.units,))

    def _recurrent_weights(self):
        return (*super()._recurrent_weights(), tf.convert_to_tensor(self.recurrent_bias))

    @staticmethod
    def gated(given, held, state):
        (z, r, n), (z_held, r_held, n_held) = (tf.split(each, 3, axis=-1) for each in (given, held))
        keep = tf.sigmoid(z + z_held)
        return GRUState(keep * state.hidden + (1.0 - keep) * tf.tanh(n + tf.sigmoid(r + r_held) * n_held))


CELLS = {"lstm": LSTM, "gru": GRU}
