"""Q-networks by name: bodies that turn stacked frames into features, behind them a head.

Shapes: B batch, H W rows and columns, A actions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfdqn import layers, seeds
from tfdqn.config import CONVOLUTIONS, PRECISIONS
from tfdqn.heads import Head

LEAST_ROUNDED = 64  # units of a hidden dense layer whose products may be rounded; narrower ones cost little
DEEP_LAYERS = 3  # residual layers of "columns_deep" and "columns_wide"


def reads_columns(name: str) -> bool:
    """Whether a network looks at whole columns of the screen: a replay should then hold frames column by column."""
    return name.startswith("columns")


def has_convolutions(name: str) -> bool:
    """Whether it matters to a network how convolutions are computed."""
    return name.startswith("conv")


def build(
    name: str,
    observation_shape: tuple[int, int, int],
    head: Head,
    seed: int,
    label: str,
    members: int = 1,
    convolution: str = "patches",
    precision: str = "float32",
) -> tf.keras.Model:
    """Make a network by its name.

    Args:
      name: "mlp" (the article's for catch8: dense 64, 32), "conv" (the article's for catch16 and the cave),
        "conv_stride4" (small, for the cave), "columns" (whole columns of the screen, for the cave: quicker by far),
        "columns_deep" (with residual layers behind it, in which to plan ahead) or "columns_wide" (the same with layers
        of 512, for a long training: half the speed).
      observation_shape: (H, W, stack).
      head: makes the last layers and gives their output its meaning.
      seed: a run's; every layer's initial weights are drawn from a stream of their own, that of the seed, the member
        and the layer (see `tfdqn.seeds`), so that no two share any.
      label: name of the Keras model.
      members: how many such networks, each with initial weights of its own, stand side by side (see
        `tfdqn.heads.Ensemble`); the first is the one that stands alone.
      convolution: "patches", times a matrix, or "native", TensorFlow's own; the same weights fit either.
      precision: "float32", or "bfloat16" to round the factors of the products in hidden dense layers of 64 units or
        more (see `tfdqn.products`); the same weights fit either.

    Returns:
      A Keras model from [B, H, W, stack] uint8 to the head's output; of several, to all of theirs, and they are its
      `layers` that are models.
    """
    if convolution not in CONVOLUTIONS:
        raise ValueError(f"convolution {convolution!r}: must be one of {', '.join(CONVOLUTIONS)}")
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r}: must be one of {', '.join(PRECISIONS)}")
    if members > 1:
        inputs = tf.keras.Input(observation_shape, dtype=tf.uint8)
        kinds = {"convolution": convolution, "precision": precision}
        each = [_one(name, observation_shape, head, seed, i, f"{label}_{i}", **kinds) for i in range(members)]
        return tf.keras.Model(
            inputs, tf.keras.layers.Concatenate(dtype=layers.DTYPE)([one(inputs) for one in each]), name=label
        )
    return _one(name, observation_shape, head, seed, 0, label, convolution, precision)


def _one(
    name: str,
    observation_shape: tuple[int, int, int],
    head: Head,
    seed: int,
    member: int,
    label: str,
    convolution: str,
    precision: str,
) -> tf.keras.Model:
    """One member, by its number; a number that each layer has to itself tells their weights apart."""

    def seed_of(number):
        return seeds.stream(seed, "weights", member, number)

    def dense(units, number, activation="relu", is_last=False):
        initializer = tf.keras.initializers.GlorotUniform(seed_of(number))
        rounded = precision == "bfloat16" and units >= LEAST_ROUNDED and not is_last
        return layers.Dense(units, rounded, activation=activation, kernel_initializer=initializer)

    def conv(filters, kernel_size, stride, number):
        return layers.PatchConv2D(
            filters, kernel_size, stride, "same", "relu", seed_of(number), convolution == "native"
        )

    def columns(filters, width, number):
        return layers.ColumnDense(filters, width, None, seed_of(number))

    def norm():
        # Between a linear layer and its ReLU (Ba et al. 2016): most of a screen is wall, so without it inputs share a
        # large constant part, and precision comes late.
        return [tf.keras.layers.LayerNormalization(dtype=layers.DTYPE), tf.keras.layers.ReLU(dtype=layers.DTYPE)]

    def residual(units, number):
        # Normed before use, and the sum left linear (He et al. 2016, "Identity mappings in deep residual networks").
        branch = [*norm(), dense(units, number, None)]
        return lambda inputs: tf.keras.layers.Add(dtype=layers.DTYPE)([inputs, _through(branch, inputs)])

    def deep(units):
        return [
            *[columns(32, 2, 0), *norm(), flatten(), dense(units, 1, None)],
            *[residual(units, 20 + number) for number in range(DEEP_LAYERS)],
            *norm(),
        ]

    def last(more):
        return [dense(128, 2 + more, None), *norm()]

    def flatten():
        return tf.keras.layers.Flatten("channels_last", dtype=layers.DTYPE)

    grey = layers.Greyscale
    # Each body, and what makes the last hidden layer from a number: that one is the head's, which may need several.
    bodies = {
        "mlp": lambda: ([grey(), flatten(), dense(64, 0)], lambda more: [dense(32, 1 + more)]),
        "conv": lambda: (
            [grey(), conv(16, 4, 2, 0), conv(32, 2, 1, 1), conv(32, 2, 1, 2), flatten()],
            lambda more: [dense(128, 3 + more)],
        ),
        "conv_stride4": lambda: (
            [grey(), conv(16, 8, 4, 0), conv(32, 4, 2, 1), flatten()],
            lambda more: [dense(128, 2 + more)],
        ),
        "columns": lambda: ([columns(32, 2, 0), *norm(), flatten(), dense(256, 1, None), *norm()], last),
        "columns_deep": lambda: (deep(256), last),
        "columns_wide": lambda: (deep(512), last),
    }
    body, hidden = bodies[name]()
    inputs = tf.keras.Input(observation_shape, dtype=tf.uint8)
    features = _through(body, inputs)
    output = head.connect(
        features,
        lambda number: lambda features: _through(hidden(100 * number), features),
        lambda units, number: dense(units, 9 + 100 * number, None, is_last=True),
    )
    return tf.keras.Model(inputs, output, name=label)


def _through(chain: Sequence[tf.keras.layers.Layer], inputs: Any) -> Any:
    for layer in chain:
        inputs = layer(inputs)
    return inputs
