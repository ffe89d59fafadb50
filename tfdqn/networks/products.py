"""Matrix products of numbers rounded to bfloat16, summed in float32: several times as quick on CPUs with AMX.

Tensor cores of GPUs take such products, too; there nothing has been measured.

A bfloat16 is a float32 with 8 significant bits in place of 24. Products of two are exact in float32. Weights, sums,
activations, gradients and the optimizer stay float32, so that nothing has to be scaled (Micikevicius et al. 2018,
"Mixed precision training", without its loss scaling, as a bfloat16 has a float32's range; Kalamkar et al. 2019).
"""

from __future__ import annotations

import tensorflow as tf
from tensorflow.python.ops import control_flow_util

# XLA's CPU library for such products takes the first factor row by row, and XLA turns a transposed copy back into a
# product that it then computes in float32, at a third of the rate. Pieces of one, put together again, it leaves alone.
# At most 16: each is an operation to compile.
TRANSPOSED_ROWS, TRANSPOSED_PIECES = 64, 16


@tf.custom_gradient
def rounded_matmul(a: tf.Tensor, b: tf.Tensor):
    """`tf.matmul(a, b)` of [M, K] and [K, N] float32 whose elements are rounded to bfloat16; [M, N] float32.

    So are both factors of each product in its gradient.
    """
    a_rounded, b_rounded = tf.cast(a, tf.bfloat16), tf.cast(b, tf.bfloat16)

    def gradient(upstream):
        rounded = tf.cast(upstream, tf.bfloat16)
        return _product(rounded, b_rounded, adj_y=True), _product(_transposed(a_rounded), rounded)

    return _product(a_rounded, b_rounded), gradient


def _product(a: tf.Tensor, b: tf.Tensor, adj_y: bool = False) -> tf.Tensor:
    """The product of two bfloat16 matrices, of the second's transpose with `adj_y`; float32."""
    if control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()):
        return tf.raw_ops.BatchMatMulV3(x=a, y=b, Tout=tf.float32, adj_y=adj_y)
    # TensorFlow has no such kernel for CPUs outside XLA. The result is the same but for the order of its sums.
    return tf.matmul(tf.cast(a, tf.float32), tf.cast(b, tf.float32), transpose_b=adj_y)


def _transposed(matrix: tf.Tensor) -> tf.Tensor:
    rows = matrix.shape[0]
    if rows is None or rows <= TRANSPOSED_ROWS:
        return tf.transpose(matrix)
    step = max(TRANSPOSED_ROWS, -(-rows // TRANSPOSED_PIECES))
    pieces = [tf.transpose(matrix[start : start + step]) for start in range(0, rows, step)]
    return tf.concat(pieces, axis=1)
