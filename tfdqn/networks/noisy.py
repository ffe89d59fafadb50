"""Dense layers whose weights are noisy while an agent explores and learns."""

from __future__ import annotations

import math

import tensorflow as tf

from tfdqn.networks import drawing
from tfdqn.networks.layers import DTYPE, Dense
from tfdqn.networks.products import rounded_matmul


@tf.keras.saving.register_keras_serializable(package="tfdqn")
class NoisyDense(Dense):
    """A dense layer with factorised Gaussian noise (Fortunato et al. 2018, "Noisy networks for exploration", eq. 9-11).

        y = (W + S * f(e_in) f(e_out)^T)^T x + b + s * f(e_out),   f(e) = sign(e) sqrt(|e|)

    with W, S, b and s learnt. Noise is drawn as `tfdqn.networks.drawing.current` says; without it the layer is the
    dense one of W and b. As the noise has two factors, each row of a batch may have its own at the price of one more
    matrix product: ((x * f(e_in)) S) * f(e_out).

    W and b begin uniform within 1 / sqrt(inputs), S and s as sigma / sqrt(inputs) (section 3.2).

    Args:
      seed: of the initial weights, and the word by which the layer's noise is drawn; below 2**32.
      sigma: sigma_0, above 0.

    Call with [B, inputs] float32; returns [B, units] float32.
    """

    def __init__(self, units, rounded=False, seed=0, sigma=0.5, dtype=DTYPE, **kwargs):
        super().__init__(units, rounded, dtype=dtype, **kwargs)
        self.seed, self.words, self.sigma = seed, seed, sigma

    def build(self, input_shape):
        inputs = int(input_shape[-1])
        limit, start = 1.0 / math.sqrt(inputs), tf.keras.initializers.Constant(self.sigma / math.sqrt(inputs))
        self.kernel_initializer = tf.keras.initializers.RandomUniform(-limit, limit, self.seed)
        self.bias_initializer = tf.keras.initializers.RandomUniform(-limit, limit, self.seed ^ 1)
        super().build(input_shape)
        self.sigma_kernel = self.add_weight("sigma_kernel", (inputs, self.units), initializer=start)
        self.sigma_bias = self.add_weight("sigma_bias", (self.units,), initializer=start)

    def call(self, inputs, training=None):
        draws = drawing.current()
        if draws is None:
            return super().call(inputs)
        entering, leaving = (drawing.for_batch(noise, draws.rows, inputs) for noise in self.noise(draws))
        mean = self.linear(inputs, self.kernel, self.bias, self.rounded)
        noise = self.linear(inputs * entering, self.sigma_kernel, self.sigma_bias) * leaving
        return self.activation(mean + noise)

    @staticmethod
    def linear(inputs, kernel, bias, rounded=False):
        """Inputs [B, inputs] times a kernel, whose factors may be rounded, and a bias: [B, units]."""
        return (rounded_matmul if rounded else tf.matmul)(inputs, tf.convert_to_tensor(kernel)) + bias

    def noise(self, draws: drawing.Draws) -> list[tf.Tensor]:
        """f(e_in) [R, inputs] and f(e_out) [R, units], float32."""
        inputs = self.kernel.shape[-2]
        drawn = drawing.normal(draws, self.words, inputs + self.units)
        return tf.split(tf.sign(drawn) * tf.sqrt(tf.abs(drawn)), [inputs, self.units], axis=1)

    def get_config(self):
        return {**super().get_config(), "seed": self.seed, "sigma": self.sigma}
