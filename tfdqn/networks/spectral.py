"""Spectral normalisation: a layer's matrix divided by its largest singular value."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


class Spectral:
    """Of a layer with a `kernel` [..., units], which is divided by its largest singular value if `spectral`.

    Of `count` layers side by side the kernel is [count, ..., units], and each is divided by its own.

    So the layer stretches no difference between two inputs (Miyato et al. 2018, "Spectral normalization for generative
    adversarial networks", algorithm 1), as far as inputs are counted as often as a kernel meets them. In Q-learning it
    keeps the step of deep bodies in bounds (Gogianu et al. 2021; Clark et al. 2024, "Beyond the Rainbow").

    The value is estimated by the power method from the direction that the last update came to, one step an update, so
    that it hangs on nothing but the layer's variables. No gradient goes through the directions: the slope of the value
    is their outer product.
    """

    spectral: bool
    kernel: tf.Variable
    count: int | None = None

    def add_direction(self: Any) -> None:
        """To be called when the kernel has been made."""
        if self.spectral:
            self.direction = self.add_weight(
                "direction",
                (*self._axes(), self.kernel.shape[-1]),
                initializer="ones",
                trainable=False,
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            )

    def _axes(self) -> tuple[int, ...]:
        return () if self.count is None else (self.count,)

    def kernel_in_use(self: Any, training: bool | None) -> Any:
        """The kernel as the layer multiplies by it; with `training` the direction moves on."""
        if not self.spectral:
            return self.kernel
        kernel = tf.convert_to_tensor(self.kernel)
        matrix = tf.reshape(kernel, [*self._axes(), -1, kernel.shape[-1]])
        fixed = tf.stop_gradient(matrix)
        left = tf.math.l2_normalize(tf.linalg.matvec(fixed, self.direction), axis=-1)
        right = tf.math.l2_normalize(tf.linalg.matvec(fixed, left, transpose_a=True), axis=-1)
        if training:
            self.direction.assign(right)
        if self.count is None:
            largest = tf.tensordot(left, tf.linalg.matvec(matrix, right), 1)
        else:
            largest = tf.reduce_sum(left * tf.linalg.matvec(matrix, right), axis=-1)
            largest = tf.reshape(largest, [self.count] + [1] * (kernel.shape.rank - 1))
        return kernel / tf.maximum(largest, 1e-12)
