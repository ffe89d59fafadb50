"""Networks of one form side by side, as one: every weight has an axis more, and every product is of all of them.

Shapes: P networks, B rows of each. What enters and leaves are rows [P * B, ...], the first network's first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfdqn.networks import drawing, layers, noisy
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
        self.add_direction()
        Layer.build(self, input_shape)

    def call(self, inputs, training=None):
        inputs = tf.cast(inputs, self.compute_dtype)  # as Keras's own: of bytes, too
        return self.activation(self._biased(self._product(inputs, self.kernel_in_use(training))))

    def _product(self, rows, matrix):
        if not self.rounded:
            return super()._product(rows, matrix)
        kernels = tf.unstack(tf.convert_to_tensor(matrix))
        return tf.concat(
            [rounded_matmul(a, b) for a, b in zip(tf.split(rows, self.count), kernels, strict=True)], axis=0
        )


class NoisyDense(Dense, noisy.NoisyDense):
    """P noisy layers, each with noise of its own.

    Args:
      words: by which it is drawn, of each.
    """

    def __init__(self, count, words, **config):
        super().__init__(count, **config)
        self.words = list(words)

    def build(self, input_shape):
        super().build(input_shape)
        self.sigma_kernel = self._add("sigma_kernel", [int(input_shape[-1]), self.units])
        self.sigma_bias = self._add("sigma_bias", [self.units])

    def call(self, inputs, training=None):
        if drawing.current() is None:
            return super().call(inputs)
        return noisy.NoisyDense.call(self, inputs)

    def linear(self, inputs, kernel, bias, rounded=False):
        found = self._apart(self._product(inputs, kernel) if rounded else _Stacked._product(self, inputs, kernel))
        return tf.reshape(found + self._over_rows(bias, found), [-1, bias.shape[-1]])


class PatchConv2D(_Stacked, layers.PatchConv2D):
    """P convolutions, as patches times matrices."""

    def __init__(self, count, **config):
        super().__init__(**{**config, "native": False})
        self.count = count

    def build(self, input_shape):
        self.kernel = self._add("kernel", [self.kernel_size, self.kernel_size, int(input_shape[-1]), self.filters])
        self.bias = self._add("bias", [self.filters])
        self.add_direction()
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
        self.add_direction()
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


class Apart(Layer):
    """P layers that are called one after the other, each on its rows: of a kind that is not known here.

    Their weights stay theirs, without an axis of networks, and say whose they are (`owner_of`).

    Args:
      alone: the layers, which have been built.
    """

    def __init__(self, alone):
        super().__init__(dtype=layers.DTYPE)
        self.alone = list(alone)
        self.supports_masking = alone[0].supports_masking
        for number, layer in enumerate(alone):
            for variable in layer.variables:
                variable.network_of_stack = number

    def call(self, inputs, *more, training=None, mask=None, **named):
        given = zip(self.alone, *map(self._split, (inputs, mask, more, named)), strict=True)
        found = []
        for layer, part, its_mask, its_more, its_named in given:
            for tensor, its in zip(tf.nest.flatten(part), tf.nest.flatten(its_mask), strict=False):
                tensor._keras_mask = its  # as Keras hands it on
            if layer._call_spec.expects_training_arg:
                its_named = {**its_named, "training": training}
            found.append(layer(part, *its_more, **its_named))
        return tf.nest.map_structure(lambda *each: tf.concat(each, axis=0), *found)

    def compute_mask(self, inputs, mask=None):
        parts = zip(self.alone, self._split(inputs), self._split(mask), strict=True)
        found = [layer.compute_mask(part, its) for layer, part, its in parts]
        return tf.nest.map_structure(lambda *each: None if each[0] is None else tf.concat(each, axis=0), *found)

    def _split(self, given: Any) -> list[Any]:
        """What each layer is given: its rows of tensors, and all of what is none."""
        count = len(self.alone)
        parts = [
            tf.split(each, count) if tf.is_tensor(each) and each.shape.rank else [each] * count
            for each in tf.nest.flatten(given)
        ]
        return [tf.nest.pack_sequence_as(given, [part[number] for part in parts]) for number in range(count)]


KINDS = {
    layers.Dense: Dense,
    noisy.NoisyDense: NoisyDense,
    tf.keras.layers.Dense: Dense,
    layers.PatchConv2D: PatchConv2D,
    layers.ColumnDense: ColumnDense,
    tf.keras.layers.LayerNormalization: LayerNormalization,
}


def model(networks: Sequence[tf.keras.Model]) -> tf.keras.Model:
    """One network of several of the same form, with their weights as they are now; they are not to be used further."""
    one = networks[0].side_by_side(networks) if hasattr(networks[0], "side_by_side") else _clone(networks)
    each = [zip(_variables_of(one, number), network.weights, strict=True) for number, network in enumerate(networks)]
    for pairs in zip(*each, strict=True):
        if owner_of(pairs[0][0]) is None:
            pairs[0][0].assign(np.stack([theirs.numpy() for _, theirs in pairs]))
    return one


def _clone(networks: Sequence[tf.keras.Model]) -> tf.keras.Model:
    """One network of their form, whose weights are still to be set."""
    twins = {id(each[0]): each for each in _side_by_side(networks)}
    made: dict[int, Layer] = {}  # of those so far: a layer in two models stays one

    def stacked(layer: Layer) -> Layer:
        if id(layer) not in made:
            made[id(layer)] = anew(layer)
        return made[id(layer)]

    def anew(layer: Layer) -> Layer:
        if isinstance(layer, tf.keras.Sequential) and _is_graph(layer):
            # As a model with an input: Keras looks for ever for where to put a layer in a sequential one's stead.
            inputs = features = tf.keras.Input(layer.input_shape[1:], dtype=layer.inputs[0].dtype)
            is_plain = type(layer).call is tf.keras.Sequential.call
            for each in map(stacked, layer.layers) if is_plain else [Apart(twins[id(layer)])]:
                features = each(features)
            return tf.keras.Model(inputs, features, name=layer.name)
        if _is_graph(layer):
            return tf.keras.models.clone_model(layer, clone_function=stacked)
        if not layer.weights:
            return layer
        if not _is_known(layer):
            return Apart(twins[id(layer)])
        return beside_each_other(twins[id(layer)])

    return tf.keras.models.clone_model(networks[0], clone_function=stacked)


def beside_each_other(alone: Sequence[Layer]) -> Layer:
    """One layer for several of its kind, one of `KINDS` or one that knows how; its weights are still to be set."""
    layer, count = alone[0], len(alone)
    if hasattr(layer, "side_by_side"):
        return layer.side_by_side(count)
    own = {"words": [each.seed for each in alone]} if isinstance(layer, noisy.NoisyDense) else {}
    return KINDS[type(layer)].from_config({"count": count, **own, **layer.get_config()})


def _is_graph(layer: Layer) -> bool:
    return isinstance(layer, tf.keras.Model) and layer._is_graph_network


def _is_known(layer: Layer) -> bool:
    """Whether it is one of `KINDS` as they are here: with all weights, dense on vectors, normed over the last axis.

    A constraint, which Keras's optimizers keep to, would be of all networks' weights together.
    """
    wanted = 4 if isinstance(layer, noisy.NoisyDense) else 3 if getattr(layer, "spectral", False) else 2
    if type(layer) not in KINDS or len(layer.weights) != wanted:
        return False
    if any(weight.constraint is not None for weight in layer.weights):
        return False
    rank = len(layer.input_shape)
    if isinstance(layer, tf.keras.layers.LayerNormalization):
        return list(layer.axis) == [rank - 1]
    return rank == 2 or not isinstance(layer, tf.keras.layers.Dense)


def _side_by_side(networks: Sequence[tf.keras.Model]) -> Iterator[tuple[Layer, ...]]:
    """Their layers, and those of networks in them."""
    for each in zip(*(network.layers for network in networks), strict=True):
        yield each
        if _is_graph(each[0]):
            yield from _side_by_side(each)


def owner_of(variable: tf.Variable) -> int | None:
    """Which network of a stacked one a variable is of; None for one with an axis of all."""
    return getattr(variable, "network_of_stack", None)


def own_as(slot: tf.Variable, variable: tf.Variable) -> None:
    """Let what is kept of a variable, such as an optimizer's slot, be of the same network."""
    if (owner := owner_of(variable)) is not None:
        slot.network_of_stack = owner


def gather(variables: Sequence[tf.Variable], source: tf.Tensor) -> None:
    """Let network i have what network `source[i]` has.

    Args:
      variables: of a stacked network or of its optimizer; what is of all, as a count of updates, is left alone.
      source: [P] int32.
    """
    each = [_of_network(variables, number) for number in range(source.shape[0])]
    for twins in zip(*each, strict=True):
        if owner_of(twins[0]) is None:
            twins[0].assign(tf.gather(twins[0].read_value(), source))
            continue
        values = tf.gather(tf.stack([twin.read_value() for twin in twins]), source)
        for twin, value in zip(twins, tf.unstack(values), strict=True):
            twin.assign(value)


def _of_network(variables: Sequence[tf.Variable], number: int) -> list[tf.Variable]:
    """Those that hold something of a network, without what is of all at once, such as an optimizer's count."""
    return [each for each in variables if owner_of(each) == number or (owner_of(each) is None and each.shape.rank)]


def agent_of(variables: Sequence[tf.Variable], number: int) -> list[np.ndarray]:
    """On the host, what one network has of `variables`, as `gather` would hand it on."""
    held = _of_network(variables, number)
    return [each.numpy() if owner_of(each) is not None else each.numpy()[number] for each in held]


def set_agents(variables: Sequence[tf.Variable], values: Sequence[Sequence[np.ndarray]]) -> None:
    """Let each network have what `agent_of` gave."""
    each = [_of_network(variables, number) for number in range(len(values))]
    for twins, arrays in zip(zip(*each, strict=True), zip(*values, strict=True), strict=True):
        if owner_of(twins[0]) is None:
            twins[0].assign(np.stack(arrays))
            continue
        for twin, array in zip(twins, arrays, strict=True):
            twin.assign(array)


def rows_of(sequences: tf.Tensor, count: int) -> tf.Tensor:
    """Sequences of all networks [T, P * B, ...] as rows [P * T * B, ...], the first network's first."""
    steps, rows, *frame = sequences.shape
    apart = tf.reshape(sequences, [steps, count, rows // count, *frame])
    return tf.reshape(tf.transpose(apart, [1, 0, *range(2, apart.shape.rank)]), [steps * rows, *frame])


def sequences_of(rows: tf.Tensor, count: int, steps: int) -> tf.Tensor:
    """The other way: rows [P * T * B, ...] as sequences [T, P * B, ...]."""
    size, frame = rows.shape[0] // steps, rows.shape[1:]
    apart = tf.reshape(rows, [count, steps, size // count, *frame])
    return tf.reshape(tf.transpose(apart, [1, 0, *range(2, apart.shape.rank)]), [steps, size, *frame])


def beside(each: tf.Tensor, variable: tf.Variable) -> tf.Tensor:
    """Numbers [P] to go with a variable [P, ...]."""
    return tf.reshape(each, [-1] + [1] * (variable.shape.rank - 1))


def _variables_of(network: tf.keras.Model, number: int) -> list[tf.Variable]:
    """In the order in which the network alone has them."""
    return [variable for variable in network.weights if owner_of(variable) in (None, number)]


def weights_of(network: tf.keras.Model, number: int) -> list[np.ndarray]:
    """The weights of one of the networks in a stacked one, as `set_weights` of it alone takes them."""
    return [
        variable.numpy() if owner_of(variable) is not None else variable[number].numpy()
        for variable in _variables_of(network, number)
    ]


def set_weights(network: tf.keras.Model, weights: Sequence[np.ndarray], count: int) -> None:
    """Let each of `count` networks in a stacked one have these weights of one alone."""
    for number in range(count):
        for variable, weight in zip(_variables_of(network, number), weights, strict=True):
            if owner_of(variable) is not None:
                variable.assign(weight)
            elif number == 0:
                variable.assign(np.stack([weight] * count))
