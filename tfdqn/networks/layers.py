"""Layers: those that read screens, and a dense one.

Every weight-bearing operation is a matmul, unless a convolution is asked to be native. XLA's convolutions on a CPU are
10 to 30 times slower than the same arithmetic as patches times a matrix, and a matmul's gradient is again a matmul.
All are float32 unless told otherwise, whatever Keras' own settings (`keras.json`, a mixed-precision policy) say.
Shapes: B batch, H W rows and columns, C channels.
"""

from __future__ import annotations

import functools
import itertools

import tensorflow as tf

from tfdqn.networks.products import rounded_matmul
from tfdqn.networks.spectral import Spectral
from tfdqn.runtime import loops

Layer = tf.keras.layers.Layer
DTYPE = "float32"


@tf.keras.saving.register_keras_serializable(package="tfdqn")
class PatchConv2D(Spectral, Layer):
    """A 2-D convolution computed as patches times a matrix: equal to `tf.nn.conv2d`, and quick under XLA on a CPU.

    Args:
      filters: output channels.
      kernel_size: side of the square kernel, in pixels.
      stride: step between outputs, in pixels.
      padding: "same" or "valid", as in TensorFlow.
      activation: name of a Keras activation, or None.
      seed: seed of the kernel's initializer (Glorot uniform, as in Keras).
      native: leave it to `tf.nn.conv2d` all the same, which on a GPU is cuDNN's. The weights are the same.
      spectral: see `tfdqn.networks.spectral`.

    Call with [B, H, W, C] of any real dtype, computed in float32; returns [B, H', W', filters] float32.
    """

    def __init__(
        self,
        filters,
        kernel_size,
        stride=1,
        padding="same",
        activation=None,
        seed=None,
        native=False,
        spectral=False,
        dtype=DTYPE,
        **kwargs,
    ):
        super().__init__(dtype=dtype, **kwargs)
        if padding not in ("same", "valid"):
            raise ValueError(f"padding {padding!r}: must be 'same' or 'valid'")
        self.filters, self.kernel_size, self.stride, self.padding = filters, kernel_size, stride, padding
        self.activation = tf.keras.activations.get(activation)
        self.seed, self.native, self.spectral = seed, native, spectral

    def build(self, input_shape):
        shape = (self.kernel_size, self.kernel_size, int(input_shape[-1]), self.filters)
        initializer = tf.keras.initializers.GlorotUniform(self.seed)
        self.kernel = self.add_weight("kernel", shape, initializer=initializer)
        self.bias = self.add_weight("bias", (self.filters,), initializer="zeros")
        self.add_direction()
        self._height, self._width = (self._padding(pixels) for pixels in input_shape[1:3])  # (before, after, outputs)
        super().build(input_shape)

    def call(self, inputs, training=None):
        weights = self.kernel_in_use(training)
        if self.native:
            levels = tf.cast(inputs, tf.float32) * (1.0 / 255.0 if inputs.dtype == tf.uint8 else 1.0)
            return self.activation(tf.nn.conv2d(levels, weights, self.stride, self.padding.upper()) + self.bias)
        blocks = self._blocks(inputs)
        is_wide = self._is_wide(blocks)
        matrix = self._matrix(weights, inputs.dtype == tf.uint8, is_wide)
        outputs = self._expand_outputs(blocks, matrix) if is_wide else self._expand_inputs(blocks, matrix)
        return self.activation(self._biased(outputs))

    def _product(self, rows, matrix):
        """Rows [R, K] times the matrix [K, M]."""
        return tf.matmul(rows, matrix)

    def _biased(self, outputs):
        return outputs + self.bias

    def _blocks(self, inputs):
        """The padded input with each s x s block of pixels as one, [B, rows, columns, depth] float32.

        A k x k kernel with stride s, k divisible by s, is a (k/s) x (k/s) kernel with stride 1 over blocks of s x s
        pixels.
        """
        block = self._block()
        (top, bottom, _), (left, right, _) = self._height, self._width
        # Whole blocks only: what is added at the far edge meets no kernel.
        bottom += -(inputs.shape[1] + top + bottom) % block
        right += -(inputs.shape[2] + left + right) % block
        if top or bottom or left or right:
            inputs = tf.pad(inputs, [[0, 0], [top, bottom], [left, right], [0, 0]])
        rows, columns, channels = inputs.shape[1] // block, inputs.shape[2] // block, inputs.shape[3]
        scale = 1.0
        if inputs.dtype == tf.uint8:
            # Frames arrive one after another in memory, seen as channels: keep each frame's runs of pixels together.
            # (This transposition undoes the one that made the channels; the compiler drops both.)
            inputs = tf.reshape(tf.transpose(inputs, [0, 3, 1, 2]), [-1, channels, rows, block, columns, block])
            inputs = tf.transpose(inputs, [0, 2, 4, 1, 3, 5])
            scale = 1.0 / 255.0
        elif block > 1:
            inputs = tf.nn.space_to_depth(inputs, block)
        return tf.reshape(tf.cast(inputs, tf.float32) * scale, [-1, rows, columns, block * block * channels])

    def _block(self):
        """The side of a block."""
        return self.stride if self.kernel_size % self.stride == 0 else 1

    def _matrix(self, kernel, is_by_frame, is_wide):
        """The kernel in the order of the blocks, and in that of the product that is to be made.

        Args:
          kernel: [k, k, C, filters].
          is_by_frame: whether a block holds one channel after the other.
          is_wide: as of `_is_wide`.

        Returns:
          [depth, taps * taps * filters] where it is wide, else [taps * taps * depth, filters].
        """
        block, channels = self._block(), kernel.shape[2]
        taps = self.kernel_size // block
        split = tf.reshape(kernel, [taps, block, taps, block, channels, self.filters])
        kernel = tf.transpose(split, [0, 2, 4, 1, 3, 5] if is_by_frame else [0, 2, 1, 3, 4, 5])
        depth = block * block * channels
        if not is_wide:
            return tf.reshape(kernel, [taps * taps * depth, self.filters])
        kernel = tf.reshape(kernel, [taps, taps, depth, self.filters])
        return tf.reshape(tf.transpose(kernel, [2, 0, 1, 3]), [depth, taps * taps * self.filters])

    def _is_wide(self, blocks):
        """Whether a block holds at least as many numbers as an output: then it is cheaper to copy outputs."""
        return blocks.shape[-1] >= self.filters

    def _expand_outputs(self, blocks, matrix):
        """Every block times every tap of the kernel in one product, then the shifted sum of the taps."""
        rows, columns, depth = blocks.shape[1:]
        taps = self.kernel_size // self._block()
        products = self._product(tf.reshape(blocks, [-1, depth]), matrix)
        products = tf.reshape(products, [-1, rows, columns, taps * taps * self.filters])
        parts = tf.split(products, taps * taps, axis=-1)
        return tf.add_n([self._shifted(part, t // taps, t % taps) for t, part in enumerate(parts)])

    def _expand_inputs(self, blocks, matrix):
        """Every output's receptive field as one row of a matrix, times the kernel."""
        taps = self.kernel_size // self._block()
        slices = [self._shifted(blocks, t // taps, t % taps) for t in range(taps * taps)]
        patches = tf.concat(slices, axis=-1)
        _, height, width, fields = patches.shape
        products = self._product(tf.reshape(patches, [-1, fields]), matrix)
        return tf.reshape(products, [-1, height, width, self.filters])

    def _shifted(self, blocks, row, column):
        """What the tap (row, column) meets for each output."""
        step = 1 if self.kernel_size % self.stride == 0 else self.stride
        last_row, last_column = row + step * (self._height[2] - 1), column + step * (self._width[2] - 1)
        return blocks[:, row : last_row + 1 : step, column : last_column + 1 : step, :]

    def _padding(self, pixels):
        """Pixels (before, after, then outputs) along one side."""
        if self.padding == "valid":
            return 0, 0, (pixels - self.kernel_size) // self.stride + 1
        return _same_padding(pixels, self.kernel_size, self.stride)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "stride": self.stride,
            "padding": self.padding,
            "activation": tf.keras.activations.serialize(self.activation),
            "seed": self.seed,
            "native": self.native,
            "spectral": self.spectral,
        }


@tf.keras.saving.register_keras_serializable(package="tfdqn")
class MaxPool(Layer):
    """The largest of each 3 x 3 pixels, every second pixel, padded as "same": equal to `tf.nn.max_pool2d`.

    As the largest of nine shifted screens: XLA's gradient of a pooling goes through a slow search on a CPU.

    Call with [B, H, W, C] float32; returns [B, ceil(H / 2), ceil(W / 2), C] float32.
    """

    SIZE, STRIDE = 3, 2

    def __init__(self, dtype=DTYPE, **kwargs):
        super().__init__(dtype=dtype, **kwargs)

    def call(self, inputs):
        sides = [_same_padding(pixels, self.SIZE, self.STRIDE) for pixels in inputs.shape[1:3]]
        paddings = [[0, 0], *([before, after] for before, after, _ in sides), [0, 0]]
        padded = tf.pad(inputs, paddings, constant_values=inputs.dtype.min)
        height, width = (self.STRIDE * (outputs - 1) + 1 for _, _, outputs in sides)
        offsets = itertools.product(range(self.SIZE), repeat=2)
        shifted = [padded[:, i : i + height : self.STRIDE, j : j + width : self.STRIDE] for i, j in offsets]
        return functools.reduce(tf.maximum, shifted)


def _same_padding(pixels, size, stride):
    """Pixels (before, after, then outputs) along one side, by TensorFlow's rule: the odd pixel goes after."""
    outputs = -(-pixels // stride)
    total = max((outputs - 1) * stride + size - pixels, 0)
    return total // 2, total - total // 2, outputs


@tf.keras.saving.register_keras_serializable(package="tfdqn")
class ColumnDense(Spectral, Layer):
    """A dense layer over whole columns of the screen, the same for each group of neighbouring columns.

    Equal to a convolution whose kernel is as high as the screen and as wide as its stride. It suits a game in which a
    height on the screen has a fixed meaning, while what matters arrives column by column, as in the cave, whose camera
    follows the player. It costs a tenth of a convolution that looks everywhere for the same small thing.

    Args:
      filters: outputs for each group.
      width: columns in a group; must divide the screen's.
      activation: name of a Keras activation, or None.
      seed: seed of the kernel's initializer (Glorot uniform, as in Keras).
      spectral: see `tfdqn.networks.spectral`.

    Call with [B, H, W, C] uint8, read as levels over 255; returns [B, W / width, filters] float32.
    """

    def __init__(self, filters, width, activation=None, seed=None, spectral=False, dtype=DTYPE, **kwargs):
        super().__init__(dtype=dtype, **kwargs)
        self.filters, self.width, self.seed, self.spectral = filters, width, seed, spectral
        self.activation = tf.keras.activations.get(activation)

    def build(self, input_shape):
        rows, columns, channels = (int(size) for size in input_shape[1:])
        if columns % self.width:
            raise ValueError(f"ColumnDense: {columns} columns are no multiple of the width {self.width}")
        initializer = tf.keras.initializers.GlorotUniform(self.seed)
        self.kernel = self.add_weight("kernel", (channels * self.width * rows, self.filters), initializer=initializer)
        self.bias = self.add_weight("bias", (self.filters,), initializer="zeros")
        self.add_direction()
        super().build(input_shape)

    def call(self, inputs, training=None):
        _, rows, columns, channels = inputs.shape
        # Frame by frame, each column by column: the order in which a replay with `column_major` holds them, so that
        # the compiler drops this transposition together with the replay's, and every frame is one matrix product.
        frames = tf.transpose(inputs, [3, 0, 2, 1])
        fields = self.width * rows
        kernel = self.kernel_in_use(training)
        kernels = tf.split(kernel, channels, axis=-2) if channels > 1 else [kernel]
        groups = [tf.reshape(tf.cast(frames[c], tf.float32) * (1.0 / 255.0), [-1, fields]) for c in range(channels)]
        products = [self._product(group, kernel) for group, kernel in zip(groups, kernels, strict=True)]
        outputs = self._biased(loops.added(products))
        return self.activation(tf.reshape(outputs, [-1, columns // self.width, self.filters]))

    def _product(self, rows, matrix):
        return tf.matmul(rows, matrix)

    def _biased(self, outputs):
        return outputs + self.bias

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "width": self.width,
            "activation": tf.keras.activations.serialize(self.activation),
            "seed": self.seed,
            "spectral": self.spectral,
        }


@tf.keras.saving.register_keras_serializable(package="tfdqn")
class Dense(Spectral, tf.keras.layers.Dense):
    """Keras's dense layer, whose product may be that of `networks.products.rounded_matmul`. The weights are the same.

    So is its name, by which Keras finds a layer's weights in a file: agents of earlier versions hold Keras's own.

    Args:
      rounded: do so. (Such a layer has a bias.)
      spectral: see `tfdqn.networks.spectral`. (The same holds of it.)

    Attributes:
      is_beside_another: whether another layer takes the same input (see `tfdqn.runtime.loops.by_itself`).

    Call with [B, inputs] float32; returns [B, units] float32.
    """

    is_beside_another = False

    def __init__(self, units, rounded=False, spectral=False, dtype=DTYPE, **kwargs):
        super().__init__(units, dtype=dtype, **kwargs)
        self.rounded, self.spectral = rounded, spectral

    def build(self, input_shape):
        super().build(input_shape)
        self.add_direction()

    def call(self, inputs, training=None):
        if self.is_beside_another:
            inputs = loops.by_itself(inputs)
        if not self.rounded and not self.spectral:
            return super().call(inputs)
        multiply = rounded_matmul if self.rounded else tf.matmul
        return self.activation(multiply(inputs, tf.convert_to_tensor(self.kernel_in_use(training))) + self.bias)

    def get_config(self):
        return {**super().get_config(), "rounded": self.rounded, "spectral": self.spectral}


@tf.keras.saving.register_keras_serializable(package="tfdqn")
class Greyscale(Layer):
    """Observations as floats: uint8 levels over 255, others as they are, False and True as 0 and 1."""

    def __init__(self, dtype=DTYPE, **kwargs):
        super().__init__(dtype=dtype, **kwargs)

    def call(self, inputs):
        levels = tf.cast(inputs, tf.float32)
        return levels * (1.0 / 255.0) if inputs.dtype == tf.uint8 else levels
