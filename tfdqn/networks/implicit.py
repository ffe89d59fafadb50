"""Layers of an implicit quantile network: which quantiles it is asked for, and how a body's features learn of them.

Shapes: B batch, K quantiles asked for of each observation, F features, U units.
"""

from __future__ import annotations

import math

import tensorflow as tf

from tfdqn import seeds
from tfdqn.networks import drawing
from tfdqn.networks.layers import DTYPE

COSINES = 64  # n of the paper
_WORD = 0x74617573  # of what is drawn here; noisy layers have others


@tf.keras.saving.register_keras_serializable(package="tfdqn")
class Cosines(tf.keras.layers.Layer):
    """The cosines of quantiles, cos(pi i tau) for i from 0 to 63 (Dabney et al. 2018b, eq. 4), and the taus themselves.

    Args:
      samples: K where they are drawn, uniformly and for each observation anew (see `tfdqn.networks.drawing`).
      fixed: K where they are not: then they are the middles of K equal shares, always the same.

    Call with [B, F], of which B alone counts; returns [B * K, 64] and [B, K] float32.
    """

    def __init__(self, samples, fixed, dtype=DTYPE, **kwargs):
        super().__init__(dtype=dtype, **kwargs)
        self.samples, self.fixed = samples, fixed

    def call(self, features):
        draws, rows = drawing.current(), tf.shape(features)[0]
        if draws is not None and draws.taus:
            numbers = seeds.draw_rows(seeds.part(draws.seed, _WORD), rows, self.samples)
            # Of 23 bits, so that none rounds to 1.
            taus = tf.reshape((tf.cast(numbers % 2**23, tf.float32) + 0.5) / 2.0**23, [-1, self.samples])
        else:
            middles = [(2 * i + 1) / (2 * self.fixed) for i in range(self.fixed)]
            taus = tf.tile(tf.constant([middles], tf.float32), [rows, 1])
        angles = taus[:, :, tf.newaxis] * tf.range(COSINES, dtype=tf.float32) * math.pi
        return tf.reshape(tf.cos(angles), [-1, COSINES]), taus

    def get_config(self):
        return {**super().get_config(), "samples": self.samples, "fixed": self.fixed}


@tf.keras.saving.register_keras_serializable(package="tfdqn")
class Joined(tf.keras.layers.Layer):
    """Each observation's features times those of each of its quantiles (Dabney et al. 2018b, section 3.1).

    Call with [B, F], linear features [B * K, F] of quantiles, which pass a ReLU here, and taus [B, K]; returns
    [B * K, F] float32.
    """

    def __init__(self, dtype=DTYPE, **kwargs):
        super().__init__(dtype=dtype, **kwargs)

    def call(self, inputs):
        features, of_quantiles, taus = inputs
        size = features.shape[1]
        each = tf.reshape(tf.nn.relu(of_quantiles), [-1, taus.shape[1], size])
        return tf.reshape(features[:, tf.newaxis] * each, [-1, size])


@tf.keras.saving.register_keras_serializable(package="tfdqn")
class WithTaus(tf.keras.layers.Layer):
    """The numbers of each quantile, and behind them its tau: whoever learns from them has to know it.

    Call with [B * K, U] and taus [B, K]; returns [B, K, U + 1] float32.
    """

    def __init__(self, dtype=DTYPE, **kwargs):
        super().__init__(dtype=dtype, **kwargs)

    def call(self, inputs):
        numbers, taus = inputs
        numbers = tf.reshape(numbers, [-1, taus.shape[1], numbers.shape[1]])
        return tf.concat([numbers, taus[:, :, tf.newaxis]], axis=2)
