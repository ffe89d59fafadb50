"""Q-networks by name: bodies that turn observations into features, behind them a head.

Shapes: B batch, H W rows and columns, A actions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import tensorflow as tf

from tfdqn import seeds
from tfdqn.envs import loading
from tfdqn.envs.spec import ObservationSpec
from tfdqn.networks import bodies, layers, noisy
from tfdqn.networks.names import CONVOLUTIONS, PRECISIONS
from tfdqn.runtime import compiled

LEAST_ROUNDED = 64  # units of a hidden dense layer whose products may be rounded; narrower ones cost little
DEEP_LAYERS = 3  # residual layers of "columns_deep" and "columns_wide"


class Head(Protocol):
    """What a learner puts on a body, and what the network's output then means."""

    def connect(self, features: Any, hidden: Callable, dense: Callable) -> Any:
        """The output, a Keras tensor, from the body's features.

        Args:
          features: Keras tensor.
          hidden: makes the body's last hidden layer, given a number that tells apart several of them.
          dense: makes a linear layer, given its units and such a number.
        """


class Body(NamedTuple):
    """A body, and what others may ask about it."""

    # From what makes layers to those of the body, and to what makes the last hidden layer from a number: that one is
    # the head's, which may need several.
    make: Callable[[_Maker], tuple[Sequence, Callable[[int], Sequence]]]
    sees_screens: bool = True  # observations must be [H, W, C]
    prefers_columns: bool = False  # reads whole columns of the screen: a replay should hold frames column by column
    has_convolutions: bool = False  # it matters how convolutions are computed


class _Maker:
    """Makes the layers of one network; a number that each has to itself tells their weights apart."""

    def __init__(self, seed: int, member: int, convolution: str, precision: str, sigma: float, is_spectral: bool):
        self._seed, self._member, self._sigma, self._is_at_head = seed, member, sigma, False
        self._is_spectral = is_spectral
        self._is_native, self._is_rounded = convolution == "native", precision == "bfloat16"

    def seed_of(self, number: int) -> int:
        return seeds.stream(self._seed, "weights", self._member, number)

    def begin_head(self) -> None:
        """From now on dense layers are the head's, which may be noisy."""
        self._is_at_head = True

    def grey(self):
        return layers.Greyscale()

    def flatten(self):
        return tf.keras.layers.Flatten("channels_last", dtype=layers.DTYPE)

    def dense(self, units, number, activation="relu", is_last=False):
        seed, rounded = self.seed_of(number), self._is_rounded and units >= LEAST_ROUNDED and not is_last
        if self._is_at_head and self._sigma:
            return noisy.NoisyDense(units, rounded, seed, self._sigma, activation=activation)
        initializer = tf.keras.initializers.GlorotUniform(seed)
        return layers.Dense(
            units,
            rounded,
            self._is_spectral and not self._is_at_head,
            activation=activation,
            kernel_initializer=initializer,
        )

    def conv(self, filters, kernel_size, stride, number, padding="same", activation="relu"):
        seed = self.seed_of(number)
        return layers.PatchConv2D(
            filters, kernel_size, stride, padding, activation, seed, self._is_native, self._is_spectral
        )

    def columns(self, filters, width, number):
        return layers.ColumnDense(filters, width, None, self.seed_of(number), self._is_spectral)

    def norm(self):
        # Between a linear layer and its ReLU (Ba et al. 2016): most of a screen is wall, so without it inputs share a
        # large constant part, and precision comes late.
        return [tf.keras.layers.LayerNormalization(dtype=layers.DTYPE), tf.keras.layers.ReLU(dtype=layers.DTYPE)]

    def residual(self, units, number):
        # Normed before use, and the sum left linear (He et al. 2016, "Identity mappings in deep residual networks").
        branch = [*self.norm(), self.dense(units, number, None)]
        return lambda inputs: tf.keras.layers.Add(dtype=layers.DTYPE)([inputs, _through(branch, inputs)])

    def residual_conv(self, filters, number):
        branch = [self.relu(), self.conv(filters, 3, 1, number, activation=None)]
        branch += [self.relu(), self.conv(filters, 3, 1, number + 1, activation=None)]
        return lambda inputs: tf.keras.layers.Add(dtype=layers.DTYPE)([inputs, _through(branch, inputs)])

    def relu(self):
        return tf.keras.layers.ReLU(dtype=layers.DTYPE)

    def deep(self, units):
        return [
            *[self.columns(32, 2, 0), *self.norm(), self.flatten(), self.dense(units, 1, None)],
            *[self.residual(units, 20 + number) for number in range(DEEP_LAYERS)],
            *self.norm(),
        ]

    def last(self, more):
        return [self.dense(128, 2 + more, None), *self.norm()]


def _mlp(make):
    return [make.grey(), make.flatten(), make.dense(64, 0)], lambda more: [make.dense(32, 1 + more)]


def _mlp_norm(make):
    body = [make.grey(), make.flatten(), make.dense(128, 0, None), *make.norm(), make.dense(128, 1, None), *make.norm()]
    return body, lambda more: []


def _conv3_norm(make):
    # The network that Young and Tian 2019 have for MinAtar, with layer normalisation as Gallici et al. 2024 add it.
    body = [make.grey(), make.conv(16, 3, 1, 0, padding="valid", activation=None), *make.norm(), make.flatten()]
    return body, lambda more: [make.dense(128, 1 + more, None), *make.norm()]


def _conv(make):
    body = [make.grey(), make.conv(16, 4, 2, 0), make.conv(32, 2, 1, 1), make.conv(32, 2, 1, 2), make.flatten()]
    return body, lambda more: [make.dense(128, 3 + more)]


def _conv_stride4(make):
    body = [make.grey(), make.conv(16, 8, 4, 0), make.conv(32, 4, 2, 1), make.flatten()]
    return body, lambda more: [make.dense(128, 2 + more)]


def _columns(make):
    return [make.columns(32, 2, 0), *make.norm(), make.flatten(), make.dense(256, 1, None), *make.norm()], make.last


def _resnet(make, width):
    # Of IMPALA (Espeholt et al. 2018, figure 3, right), its channels times `width`.
    body = [make.grey()]
    for number, filters in enumerate((16 * width, 32 * width, 32 * width)):
        first = 20 + 10 * number
        body += [make.conv(filters, 3, 1, first, activation=None), layers.MaxPool()]
        body += [make.residual_conv(filters, first + 1), make.residual_conv(filters, first + 3)]
    return [*body, make.relu(), make.flatten()], lambda more: [make.dense(256, 2 + more)]


BODIES = {
    "mlp": Body(_mlp, sees_screens=False),
    "mlp_norm": Body(_mlp_norm, sees_screens=False),
    "conv": Body(_conv, has_convolutions=True),
    "conv3_norm": Body(_conv3_norm, has_convolutions=True),
    "conv_stride4": Body(_conv_stride4, has_convolutions=True),
    "columns": Body(_columns, prefers_columns=True),
    "columns_deep": Body(lambda make: (make.deep(256), make.last), prefers_columns=True),
    "columns_wide": Body(lambda make: (make.deep(512), make.last), prefers_columns=True),
    "resnet": Body(lambda make: _resnet(make, 1), has_convolutions=True),
    "resnet_wide": Body(lambda make: _resnet(make, 2), has_convolutions=True),
}


def body_of(name: str) -> Body:
    """What is known of a network's body; of one from elsewhere, nothing."""
    if loading.is_spec(name):
        return Body(make=None, sees_screens=False)
    if name not in BODIES:
        raise ValueError(f"network {name!r}: must be one of {', '.join(BODIES)}, or module:function")
    return BODIES[name]


def build(
    name: str,
    spec: ObservationSpec,
    head: Head,
    seed: int,
    label: str,
    members: int = 1,
    convolution: str = "patches",
    precision: str = "float32",
    noisy_sigma: float = 0.0,
    spectral_norm: bool = False,
) -> tf.keras.Model:
    """Make a network by its name.

    Args:
      name: "mlp" (the article's for catch8: dense 64, 32), "conv" (the article's for catch16 and the cave),
        "conv_stride4" (small, for the cave), "mlp_norm" (dense 128, 128) and "conv3_norm" (one 3x3 convolution and
        dense 128, for small planes) with layer normalisation, "columns" (whole columns of the screen, for the cave:
        quicker by far), "columns_deep" (with residual layers behind it, in which to plan ahead) or "columns_wide" (the
        same with layers of 512, for a long training: half the speed), "resnet" (three stages of convolutions with
        residual blocks, IMPALA's) or "resnet_wide" (with twice the channels); or a body of one's own (see
        `tfdqn.networks.bodies`).
      spec: of the observations that it takes, frames stacked.
      head: makes the last layers and gives their output its meaning.
      seed: a run's; every layer's initial weights are drawn from a stream of their own, that of the seed, the member
        and the layer (see `tfdqn.seeds`), so that no two share any.
      label: name of the Keras model.
      members: how many such networks, each with initial weights of its own, stand side by side (see
        `tfdqn.learners.dqn.heads.Ensemble`); the first is the one that stands alone.
      convolution: "patches", times a matrix, or "native", TensorFlow's own; the same weights fit either.
      precision: "float32"; "tf32" to let a GPU round the factors of all products (see
        `tfdqn.runtime.compiled.take_tf32`, which is told here); or "bfloat16" to round those in hidden dense layers of
        64 units or more (see `tfdqn.networks.products`). The same weights fit each.
      noisy_sigma: above 0, the head's dense layers, the last hidden ones among them, are noisy with it (see
        `tfdqn.networks.noisy`).
      spectral_norm: the body's layers, those before the head, are normalised (see `tfdqn.networks.spectral`); a body of
        one's own stays as it is.

    Returns:
      A Keras model from observations [B, ...] to the head's output; of several, to all of theirs, and they are its
      `layers` that are models.

    Raises:
      ValueError: no such network, or one that does not take such observations.
    """
    if convolution not in CONVOLUTIONS:
        raise ValueError(f"convolution {convolution!r}: must be one of {', '.join(CONVOLUTIONS)}")
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r}: must be one of {', '.join(PRECISIONS)}")
    check_fits(name, spec)
    compiled.take_tf32(precision == "tf32")
    makers = [_Maker(seed, member, convolution, precision, noisy_sigma, spectral_norm) for member in range(members)]
    if members == 1:
        return _one(name, spec, head, makers[0], label)
    each = [_one(name, spec, head, maker, f"{label}_{i}") for i, maker in enumerate(makers)]
    inputs = tf.keras.Input(spec.shape, dtype=spec.dtype)
    outputs = tf.keras.layers.Concatenate(dtype=layers.DTYPE)([one(inputs) for one in each])
    return tf.keras.Model(inputs, outputs, name=label)


def check_fits(name: str, spec: ObservationSpec) -> None:
    """Raise a ValueError in one line if a network cannot take such observations."""
    body, shape = body_of(name), list(spec.shape)
    if body.sees_screens and len(shape) != 3:
        raise ValueError(
            f"network {name}: looks at screens [H, W, C], but observations are {shape}: use mlp, or your own"
        )
    if body.prefers_columns and (shape[1] % 2 or spec.dtype != "uint8"):
        raise ValueError(
            f"network {name}: reads pairs of columns of uint8 screens, but observations are {shape} {spec.dtype}: use "
            "conv or mlp, or your own"
        )


def _one(name: str, spec: ObservationSpec, head: Head, make: _Maker, label: str) -> tf.keras.Model:
    inputs = tf.keras.Input(spec.shape, dtype=spec.dtype)
    if loading.is_spec(name):
        features, hidden = bodies.connect(name, spec, inputs, make.seed_of(0)), lambda _: []
    else:
        body, hidden = BODIES[name].make(make)
        features = _through(body, inputs)
    make.begin_head()

    def hidden_of(number):
        chain = hidden(100 * number)
        if number and chain:
            chain[0].is_beside_another = True  # the features are the first one's, too
        return chain

    output = head.connect(
        features,
        lambda number: lambda features: _through(hidden_of(number), features),
        lambda units, number: make.dense(units, 9 + 100 * number, None, is_last=True),
    )
    return tf.keras.Model(inputs, output, name=label)


def _through(chain: Sequence[tf.keras.layers.Layer], inputs: Any) -> Any:
    for layer in chain:
        inputs = layer(inputs)
    return inputs
