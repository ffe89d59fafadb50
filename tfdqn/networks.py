"""Q-networks: bodies that turn stacked frames into features, and heads that turn features into action values.

Every weight-bearing operation is a matmul. XLA's convolutions on a CPU are 10 to 30 times slower than the same
arithmetic as patches times a matrix, and a matmul's gradient is again a matmul.
Shapes: B batch, H W rows and columns, C channels, A actions.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from tfdqn import losses

Layer = tf.keras.layers.Layer

DEEP_LAYERS = 3  # residual layers of "columns_deep" and "columns_wide"


@tf.keras.saving.register_keras_serializable(package="tfdqn")
class PatchConv2D(Layer):
    """A 2-D convolution computed as patches times a matrix: equal to `tf.nn.conv2d`, and quick under XLA on a CPU.

    Args:
      filters: output channels.
      kernel_size: side of the square kernel, in pixels.
      stride: step between outputs, in pixels.
      padding: "same" or "valid", as in TensorFlow.
      activation: name of a Keras activation, or None.
      seed: seed of the kernel's initializer (Glorot uniform, as in Keras).

    Call with [B, H, W, C] of any real dtype, computed in float32; returns [B, H', W', filters] float32.
    """

    def __init__(self, filters, kernel_size, stride=1, padding="same", activation=None, seed=None, **kwargs):
        super().__init__(**kwargs)
        if padding not in ("same", "valid"):
            raise ValueError(f"padding {padding!r}: must be 'same' or 'valid'")
        self.filters, self.kernel_size, self.stride, self.padding = filters, kernel_size, stride, padding
        self.activation = tf.keras.activations.get(activation)
        self.seed = seed

    def build(self, input_shape):
        shape = (self.kernel_size, self.kernel_size, int(input_shape[-1]), self.filters)
        initializer = tf.keras.initializers.GlorotUniform(self.seed)
        self.kernel = self.add_weight("kernel", shape, initializer=initializer)
        self.bias = self.add_weight("bias", (self.filters,), initializer="zeros")
        self._height, self._width = (self._padding(pixels) for pixels in input_shape[1:3])  # (before, after, outputs)
        super().build(input_shape)

    def call(self, inputs):
        blocks, kernel = self._blocks(inputs)
        outputs = self._expand_outputs(blocks, kernel) if self._is_wide(blocks) else self._expand_inputs(blocks, kernel)
        return self.activation(outputs + self.bias)

    def _blocks(self, inputs):
        """The padded input with each s x s block of pixels as one, and the kernel in the same order.

        A k x k kernel with stride s, k divisible by s, is a (k/s) x (k/s) kernel with stride 1 over blocks of s x s
        pixels. Returns [B, rows, columns, depth] float32 and [taps, taps, depth, filters].
        """
        size, stride = self.kernel_size, self.stride
        block = stride if size % stride == 0 else 1
        (top, bottom, _), (left, right, _) = self._height, self._width
        # Whole blocks only: what is added at the far edge meets no kernel.
        bottom += -(inputs.shape[1] + top + bottom) % block
        right += -(inputs.shape[2] + left + right) % block
        if top or bottom or left or right:
            inputs = tf.pad(inputs, [[0, 0], [top, bottom], [left, right], [0, 0]])
        rows, columns, channels = inputs.shape[1] // block, inputs.shape[2] // block, inputs.shape[3]
        split = tf.reshape(self.kernel, [size // block, block, size // block, block, channels, self.filters])
        if inputs.dtype == tf.uint8:
            # Frames arrive one after another in memory, seen as channels: keep each frame's runs of pixels together.
            # (This transposition undoes the one that made the channels; the compiler drops both.)
            inputs = tf.reshape(tf.transpose(inputs, [0, 3, 1, 2]), [-1, channels, rows, block, columns, block])
            inputs = tf.transpose(inputs, [0, 2, 4, 1, 3, 5])
            kernel = tf.transpose(split, [0, 2, 4, 1, 3, 5])
            scale = 1.0 / 255.0
        else:
            inputs = tf.nn.space_to_depth(inputs, block) if block > 1 else inputs
            kernel = tf.transpose(split, [0, 2, 1, 3, 4, 5])
            scale = 1.0
        depth = block * block * channels
        blocks = tf.reshape(tf.cast(inputs, tf.float32) * scale, [-1, rows, columns, depth])
        return blocks, tf.reshape(kernel, [size // block, size // block, depth, self.filters])

    def _is_wide(self, blocks):
        """Whether a block holds at least as many numbers as an output: then it is cheaper to copy outputs."""
        return blocks.shape[-1] >= self.filters

    def _expand_outputs(self, blocks, kernel):
        """Every block times every tap of the kernel in one product, then the shifted sum of the taps."""
        rows, columns, depth = blocks.shape[1:]
        taps = kernel.shape[0]
        flat = tf.reshape(tf.transpose(kernel, [2, 0, 1, 3]), [depth, taps * taps * self.filters])
        products = tf.reshape(tf.matmul(tf.reshape(blocks, [-1, depth]), flat), [-1, rows, columns, flat.shape[1]])
        parts = tf.split(products, taps * taps, axis=-1)
        return tf.add_n([self._shifted(part, t // taps, t % taps) for t, part in enumerate(parts)])

    def _expand_inputs(self, blocks, kernel):
        """Every output's receptive field as one row of a matrix, times the kernel."""
        taps = kernel.shape[0]
        slices = [self._shifted(blocks, t // taps, t % taps) for t in range(taps * taps)]
        patches = tf.concat(slices, axis=-1)
        _, height, width, fields = patches.shape
        products = tf.matmul(tf.reshape(patches, [-1, fields]), tf.reshape(kernel, [fields, self.filters]))
        return tf.reshape(products, [-1, height, width, self.filters])

    def _shifted(self, blocks, row, column):
        """What the tap (row, column) meets for each output."""
        step = 1 if self.kernel_size % self.stride == 0 else self.stride
        last_row, last_column = row + step * (self._height[2] - 1), column + step * (self._width[2] - 1)
        return blocks[:, row : last_row + 1 : step, column : last_column + 1 : step, :]

    def _padding(self, pixels):
        """Pixels (before, after, then outputs) along one side, by TensorFlow's rule: the odd pixel goes after."""
        if self.padding == "valid":
            return 0, 0, (pixels - self.kernel_size) // self.stride + 1
        outputs = -(-pixels // self.stride)
        total = max((outputs - 1) * self.stride + self.kernel_size - pixels, 0)
        return total // 2, total - total // 2, outputs

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "stride": self.stride,
            "padding": self.padding,
            "activation": tf.keras.activations.serialize(self.activation),
            "seed": self.seed,
        }


@tf.keras.saving.register_keras_serializable(package="tfdqn")
class ColumnDense(Layer):
    """A dense layer over whole columns of the screen, the same for each group of neighbouring columns.

    Equal to a convolution whose kernel is as high as the screen and as wide as its stride. It suits a game in which a
    height on the screen has a fixed meaning, while what matters arrives column by column, as in the cave, whose camera
    follows the player. It costs a tenth of a convolution that looks everywhere for the same small thing.

    Args:
      filters: outputs for each group.
      width: columns in a group; must divide the screen's.
      activation: name of a Keras activation, or None.
      seed: seed of the kernel's initializer (Glorot uniform, as in Keras).

    Call with [B, H, W, C] uint8, read as levels over 255; returns [B, W / width, filters] float32.
    """

    def __init__(self, filters, width, activation=None, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.filters, self.width, self.seed = filters, width, seed
        self.activation = tf.keras.activations.get(activation)

    def build(self, input_shape):
        rows, columns, channels = (int(size) for size in input_shape[1:])
        if columns % self.width:
            raise ValueError(f"ColumnDense: {columns} columns are no multiple of the width {self.width}")
        initializer = tf.keras.initializers.GlorotUniform(self.seed)
        self.kernel = self.add_weight("kernel", (channels * self.width * rows, self.filters), initializer=initializer)
        self.bias = self.add_weight("bias", (self.filters,), initializer="zeros")
        super().build(input_shape)

    def call(self, inputs):
        _, rows, columns, channels = inputs.shape
        # Frame by frame, each column by column: the order in which a replay with `column_major` holds them, so that
        # the compiler drops this transposition together with the replay's, and every frame is one matrix product.
        frames = tf.transpose(inputs, [3, 0, 2, 1])
        fields = self.width * rows
        kernels = tf.split(self.kernel, channels) if channels > 1 else [self.kernel]
        groups = [tf.reshape(tf.cast(frames[c], tf.float32) * (1.0 / 255.0), [-1, fields]) for c in range(channels)]
        products = [tf.matmul(group, kernel) for group, kernel in zip(groups, kernels, strict=True)]
        outputs = tf.add_n(products) + self.bias
        return self.activation(tf.reshape(outputs, [-1, columns // self.width, self.filters]))

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "width": self.width,
            "activation": tf.keras.activations.serialize(self.activation),
            "seed": self.seed,
        }


@tf.keras.saving.register_keras_serializable(package="tfdqn")
class Greyscale(Layer):
    """Frames as floats in [0, 1]: uint8 levels over 255."""

    def call(self, inputs):
        return tf.cast(inputs, tf.float32) * (1.0 / 255.0)


class Head(abc.ABC):
    """The last layers of a Q-network, what their output means, and what they learn from.

    The output is [B, U]. In each head `K` numbers stand for one action.

    Args:
      num_actions: A.
      dueling: the state's value and each action's advantage come from hidden layers of their own and are joined as in
        Wang et al. 2016, eq. 9; the output then holds K numbers for V(s), then A * K for A(s, a).
      target_epsilon: share of random actions of the player whose returns are learnt; the others are greedy.
    """

    numbers = 1  # K

    def __init__(self, num_actions: int, dueling: bool = False, target_epsilon: float = 0.0):
        self.num_actions, self.dueling, self._target_epsilon = num_actions, dueling, target_epsilon

    def connect(self, features: Any, hidden: Callable, dense: Callable) -> Any:
        """The output, a Keras tensor, from the body's features.

        Args:
          features: Keras tensor.
          hidden: makes the body's last hidden layer, given a number that tells apart several of them.
          dense: makes a linear layer, given its units and such a number.
        """
        units = self.num_actions * self.numbers
        if not self.dueling:
            return dense(units, 0)(hidden(0)(features))
        value = dense(self.numbers, 0)(hidden(0)(features))
        advantage = dense(units, 1)(hidden(1)(features))
        return tf.keras.layers.Concatenate()([value, advantage])

    def _per_action(self, output: tf.Tensor) -> tf.Tensor:
        """The output as [B, A, K]."""
        if not self.dueling:
            return tf.reshape(output, [-1, self.num_actions, self.numbers])
        value, advantage = output[:, tf.newaxis, : self.numbers], output[:, self.numbers :]
        return losses.dueling_value(value, tf.reshape(advantage, [-1, self.num_actions, self.numbers]))

    @abc.abstractmethod
    def values(self, output: tf.Tensor) -> tf.Tensor:
        """Action values [B, A]."""

    @abc.abstractmethod
    def target(self, reward: tf.Tensor, discount: tf.Tensor, next_output: tf.Tensor, choosing_q: tf.Tensor) -> Any:
        """What to learn, from the next observation's output and the action values [B, A] that choose there."""

    @abc.abstractmethod
    def loss(self, output: tf.Tensor, action: tf.Tensor, target: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """The loss and the TD error (Q(s, a) minus the target's mean) of each transition, both [B]."""


class ScalarHead(Head):
    """One number an action: its expected return.

    Args:
      loss: of the TD error, [B] to [B].
    """

    def __init__(
        self, num_actions: int, dueling: bool = False, target_epsilon: float = 0.0, loss: Callable = losses.huber
    ):
        super().__init__(num_actions, dueling, target_epsilon)
        self._loss = loss

    def values(self, output):
        return self._per_action(output)[:, :, 0]

    def target(self, reward, discount, next_output, choosing_q):
        next_q = self.values(next_output)
        greedy = losses.double_value(choosing_q, next_q)
        return losses.td_target(reward, discount, losses.expected_over_actions(greedy, next_q, self._target_epsilon))

    def loss(self, output, action, target):
        td_error = losses.masked_value(self.values(output), action) - target
        return self._loss(td_error), td_error


class CategoricalHead(Head):
    """Probabilities of evenly spaced returns (C51, Bellemare et al. 2017), learnt by cross-entropy.

    Where most returns are near one end and the rare others decide, as in a game that is about not dying, this tells one
    death in a thousand from one in a hundred: a squared error does not, both are small to it. With two atoms it is a
    logistic regression of the return between `value_min` and `value_max`.

    Args:
      atoms: K, at least 2.
      value_min, value_max: returns of the first and the last atom; what lies outside is clipped.
    """

    def __init__(
        self,
        num_actions: int,
        dueling: bool,
        atoms: int,
        value_min: float,
        value_max: float,
        target_epsilon: float = 0.0,
    ):
        super().__init__(num_actions, dueling, target_epsilon)
        if atoms < 2 or not value_min < value_max:
            raise ValueError(f"categorical head: {atoms} atoms from {value_min} to {value_max} are no distribution")
        self.numbers, self._low, self._high = atoms, value_min, value_max
        step = (value_max - value_min) / (atoms - 1)
        self._returns = tf.constant([value_min + i * step for i in range(atoms)], tf.float32)  # [K]

    def values(self, output):
        return tf.reduce_sum(tf.nn.softmax(self._per_action(output)) * self._returns, axis=-1)

    def target(self, reward, discount, next_output, choosing_q):
        each = tf.nn.softmax(self._per_action(next_output))
        greedy = losses.taken(each, losses.greedy_action(choosing_q))
        expected = losses.expected_over_actions(greedy, each, self._target_epsilon)
        return losses.categorical_target(reward, discount, expected, self._returns)

    def loss(self, output, action, target):
        logits = losses.taken(self._per_action(output), action)
        mean = tf.reduce_sum(tf.nn.softmax(logits) * self._returns, axis=-1)
        td_error = mean - tf.reduce_sum(target * self._returns, axis=-1)
        return tf.nn.softmax_cross_entropy_with_logits(target, logits), td_error


class Ensemble:
    """Several networks side by side: each learns by itself, from a target in which the values of all are averaged.

    Their errors differ, so that the mean of K values errs less than one of them, in play and in the target
    (Averaged-DQN, Anschel et al. 2017, with networks begun apart, as Osband et al. 2016 do, in place of earlier ones).
    The output is [B, K * U]: one member's after the other's.

    Args:
      head: what each member's output [B, U] means.
      members: K.
    """

    def __init__(self, head: Head, members: int):
        self._head, self._members = head, members

    def _each(self, output: tf.Tensor) -> list[tf.Tensor]:
        return tf.split(output, self._members, axis=-1)

    def _mean(self, parts: list[Any]) -> Any:
        return tf.add_n(parts) / float(self._members)

    def values(self, output: tf.Tensor) -> tf.Tensor:
        """Action values [B, A]: the mean over the members."""
        return self._mean([self._head.values(part) for part in self._each(output)])

    def target(self, reward: tf.Tensor, discount: tf.Tensor, next_output: tf.Tensor, choosing_q: tf.Tensor) -> Any:
        """The mean of the members' targets, all at the action that `choosing_q` [B, A] takes."""
        return self._mean([self._head.target(reward, discount, part, choosing_q) for part in self._each(next_output)])

    def loss(self, output: tf.Tensor, action: tf.Tensor, target: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """The sum of the members' losses, so that each learns as fast as alone, and the mean TD error, both [B]."""
        losses_, td_errors = zip(*(self._head.loss(part, action, target) for part in self._each(output)), strict=True)
        return tf.add_n(losses_), self._mean(list(td_errors))


def reads_columns(name: str) -> bool:
    """Whether a network looks at whole columns of the screen: a replay should then hold frames column by column."""
    return name.startswith("columns")


def build(
    name: str, observation_shape: tuple[int, int, int], head: Head, seed: int, label: str, members: int = 1
) -> tf.keras.Model:
    """Make a network by its name.

    Args:
      name: "mlp" (the article's for catch8: dense 64, 32), "conv" (the article's for catch16 and the cave),
        "conv_stride4" (small, for the cave), "columns" (whole columns of the screen, for the cave: quicker by far),
        "columns_deep" (with residual layers behind it, in which to plan ahead) or "columns_wide" (the same with layers
        of 512, for a long training: half the speed).
      observation_shape: (H, W, stack).
      head: makes the last layers and gives their output its meaning.
      seed: every layer's initial weights follow from it; seeds less than 1,000 apart give networks begun apart, if only
        by a shift of the residual layers' weights.
      label: name of the Keras model.
      members: how many such networks, each with initial weights of its own, stand side by side (see `Ensemble`); the
        first is the one that stands alone.

    Returns:
      A Keras model from [B, H, W, stack] uint8 to the head's output; of several, to all of theirs, and they are its
      `layers` that are models.
    """
    if members > 1:
        inputs = tf.keras.Input(observation_shape, dtype=tf.uint8)
        each = [build(name, observation_shape, head, seed + 1000 * i, f"{label}_{i}") for i in range(members)]
        return tf.keras.Model(inputs, tf.keras.layers.Concatenate()([one(inputs) for one in each]), name=label)

    def dense(units, layer_seed, activation="relu"):
        return tf.keras.layers.Dense(
            units, activation=activation, kernel_initializer=tf.keras.initializers.GlorotUniform(seed + layer_seed)
        )

    def conv(filters, kernel_size, stride, layer_seed):
        return PatchConv2D(filters, kernel_size, stride, "same", "relu", seed + layer_seed)

    def columns(filters, width, layer_seed):
        return ColumnDense(filters, width, None, seed + layer_seed)

    def norm():
        # Between a linear layer and its ReLU (Ba et al. 2016): most of a screen is wall, so without it inputs share a
        # large constant part, and precision comes late.
        return [tf.keras.layers.LayerNormalization(), tf.keras.layers.ReLU()]

    def residual(units, layer_seed):
        # Normed before use, and the sum left linear (He et al. 2016, "Identity mappings in deep residual networks").
        layers = [*norm(), dense(units, layer_seed, None)]
        return lambda inputs: tf.keras.layers.Add()([inputs, _through(layers, inputs)])

    def deep(units):
        return [
            *[columns(32, 2, 0), *norm(), flatten(), dense(units, 1, None)],
            *[residual(units, 20 + number) for number in range(DEEP_LAYERS)],
            *norm(),
        ]

    def last(more):
        return [dense(128, 2 + more, None), *norm()]

    grey, flatten = Greyscale, tf.keras.layers.Flatten
    # Each body, and what makes the last hidden layer from a seed: that one is the head's, which may need several.
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
        lambda units, number: dense(units, 9 + 100 * number, None),
    )
    return tf.keras.Model(inputs, output, name=label)


def _through(layers: Sequence[Layer], inputs: Any) -> Any:
    for layer in layers:
        inputs = layer(inputs)
    return inputs
