"""Spectral normalisation: a layer's matrix divided by its largest singular value."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


class Spectral:
    """Of a layer with a `kernel` [..., units], which is divided by its largest singular value if `spectral`.

    So the layer stretches no difference between two inputs (Miyato et al. 2018, "Spectral normalization for generative
    adversarial networks", algorithm 1), as far as inputs are counted as often as a kernel meets them. In Q-learning it
    keeps the step of deep bodies in bounds (Gogianu et al. 2021; Clark et al. 2024, "Beyond the Rainbow").

    The value is estimated by the power method from the direction that the last update came to, one step an update, so
    that it hangs on nothing but the layer's variables. No gradient goes through the directions: the slope of the value
    is their outer product.
    """

    spectral: bool
    kernel: tf.Variable

    def add_direction(self: Any) -> None:
        """To be called when the kernel has been made."""
        if self.spectral:
            self.direction = self.add_weight(
                "direction",
                (self.kernel.shape[-1],),
                initializer="ones",
                trainable=False,
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            )

    def kernel_in_use(self: Any, training: bool | None) -> Any:
        """The kernel as the layer multiplies by it; with `training` the direction moves on."""
        if not self.spectral:
            return self.kernel
        kernel = tf.convert_to_tensor(self.kernel)
        matrix = tf.reshape(kernel, [-1, kernel.shape[-1]])
        fixed = tf.stop_gradient(matrix)
        left = tf.math.l2_normalize(tf.linalg.matvec(fixed, self.direction))
        right = tf.math.l2_normalize(tf.linalg.matvec(fixed, left, transpose_a=True))
        if training:
            self.direction.assign(right)
        largest = tf.tensordot(left, tf.linalg.matvec(matrix, right), 1)
        return kernel / tf.maximum(largest, 1e-12)
