"""Networks of one form side by side, as one: every weight has an axis more, and every product is of all of them.

Shapes: P networks, B rows of each. What enters and leaves are rows [P * B, ...], the first network's first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfdqn.networks import layers
from tfdqn.networks.products import rounded_matmul

Layer = tf.keras.layers.Layer


class _Stacked:
    """A layer whose weights are those of P layers of its kind, [P, ...]."""

    count: int

    def _over_rows(self: Any, weight: Any, outputs: tf.Tensor) -> tf.Tensor:
        """A weight [P, F] to go with outputs [P, B, ..., F]."""
        return tf.reshape(weight, [self.count] + [1] * (outputs.shape.rank - 2) + [weight.shape[-1]])

    def _apart(self: Any, rows: tf.Tensor) -> tf.Tensor:
        return tf.reshape(rows, [self.count, -1, *rows.shape[1:]])

    def _product(self: Any, rows: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
        """Rows [P * R, K] times the matrices [P, K, M]."""
        return tf.reshape(tf.matmul(self._apart(rows), matrix), [-1, matrix.shape[-1]])

    def _biased(self: Any, outputs: tf.Tensor) -> tf.Tensor:
        apart = self._apart(outputs)
        return tf.reshape(apart + self._over_rows(self.bias, apart), [-1, *outputs.shape[1:]])

    def _add(self: Any, name: str, shape: Sequence[int]) -> tf.Variable:
        return self.add_weight(name, [self.count, *shape], initializer="zeros")


class Dense(_Stacked, layers.Dense):
    """P dense layers."""

    def __init__(self, count, **config):
        super().__init__(**config)
        self.count = count

    def build(self, input_shape):
        self.kernel = self._add("kernel", [int(input_shape[-1]), self.units])
        self.bias = self._add("bias", [self.units])
        Layer.build(self, input_shape)

    def call(self, inputs, training=None):
        return self.activation(self._biased(self._product(inputs, self.kernel)))

    def _product(self, rows, matrix):
        if not self.rounded:
            return super()._product(rows, matrix)
        kernels = tf.unstack(tf.convert_to_tensor(matrix))
        return tf.concat(
            [rounded_matmul(a, b) for a, b in zip(tf.split(rows, self.count), kernels, strict=True)], axis=0
        )


class PatchConv2D(_Stacked, layers.PatchConv2D):
    """P convolutions, as patches times matrices."""

    def __init__(self, count, **config):
        super().__init__(**{**config, "native": False})
        self.count = count

    def build(self, input_shape):
        self.kernel = self._add("kernel", [self.kernel_size, self.kernel_size, int(input_shape[-1]), self.filters])
        self.bias = self._add("bias", [self.filters])
        self._height, self._width = (self._padding(pixels) for pixels in input_shape[1:3])
        Layer.build(self, input_shape)

    def _matrix(self, kernel, is_by_frame, is_wide):
        one = super()._matrix
        return tf.stack([one(each, is_by_frame, is_wide) for each in tf.unstack(tf.convert_to_tensor(kernel))])


class ColumnDense(_Stacked, layers.ColumnDense):
    """P layers over columns."""

    def __init__(self, count, **config):
        super().__init__(**config)
        self.count = count

    def build(self, input_shape):
        rows, _, channels = (int(size) for size in input_shape[1:])
        self.kernel = self._add("kernel", [channels * self.width * rows, self.filters])
        self.bias = self._add("bias", [self.filters])
        Layer.build(self, input_shape)


class LayerNormalization(_Stacked, tf.keras.layers.LayerNormalization):
    """P layer normalisations over the last axis."""

    def __init__(self, count, **config):
        super().__init__(**{**config, "center": False, "scale": False})
        self.count = count

    def build(self, input_shape):
        super().build(input_shape)
        self.slope, self.bias = (self._add(name, [int(input_shape[-1])]) for name in ("gamma", "beta"))

    def call(self, inputs):
        apart = self._apart(super().call(inputs))
        scaled = apart * self._over_rows(self.slope, apart)
        return tf.reshape(scaled + self._over_rows(self.bias, apart), [-1, *inputs.shape[1:]])


KINDS = {
    layers.Dense: Dense,
    layers.PatchConv2D: PatchConv2D,
    layers.ColumnDense: ColumnDense,
    tf.keras.layers.LayerNormalization: LayerNormalization,
}


def model(networks: Sequence[tf.keras.Model]) -> tf.keras.Model:
    """One network of several of the same form, with their weights as they are now.

    Raises:
      ValueError: a layer with weights that cannot be stacked; it is named.
    """
    count = len(networks)

    def stacked(layer: Layer) -> Layer:
        if isinstance(layer, tf.keras.Model):
            return tf.keras.models.clone_model(layer, clone_function=stacked)
        config = layer.get_config()
        if not layer.weights:
            return type(layer).from_config(config)
        # What a layer has beside a kernel and a bias, such as a direction of spectral normalisation, is its own matter.
        if type(layer) not in KINDS or len(layer.weights) != 2:
            raise ValueError(f"{type(layer).__name__} {layer.name}: such layers are not stacked")
        return KINDS[type(layer)].from_config({"count": count, **config})

    one = tf.keras.models.clone_model(networks[0], clone_function=stacked)
    one.set_weights([np.stack(each) for each in zip(*(network.get_weights() for network in networks), strict=True)])
    return one


def weights_of(network: tf.keras.Model, number: int) -> list[np.ndarray]:
    """The weights of one of the networks in a stacked one, as `set_weights` of it alone takes them."""
    return [weight[number] for weight in network.get_weights()]
