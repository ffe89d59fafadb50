"""What is taken over one agent's rows, and over those of each agent of a population.

A population's P members lie behind one another: of N environments or a batch of B each, rows [P * N, ...] or
[P * B, ...], the first member's first. So what treats rows apart need not know of members; what takes a mean, or has a
number for each member, asks here. An agent alone has no axis of members: what is [P] of a population is [] of it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from tfdqn import optimizers, population, seeds
from tfdqn.inputs import as_float32
from tfdqn.networks import stacked

if TYPE_CHECKING:
    from tfdqn.config import Config


class Members:
    """An agent alone.

    Args:
      configs: what each is made from; they differ in settings that may vary. None of an agent that no run has made.

    Attributes:
      count: P, or 1.
      shape: of what there is one of for each: [P], or [] alone.
      tuned: settings that change in training, by name, [P] float64 or int64.
    """

    tuned: Mapping[str, tf.Variable] = MappingProxyType({})

    def __init__(self, configs: Sequence[Config]):
        self.configs, self.count = tuple(configs), max(len(configs), 1)
        self.shape: tuple[int, ...] = ()

    def setting(self, name: str) -> Any:
        """A setting's value; of a population whose members differ in it, that of each, [P]; of `tuned`, the variable.

        What hangs on it is made of `tfdqn.inputs.as_float32`, or of whole numbers, where it is traced.
        """
        return getattr(self.configs[0], name)

    def stream(self, name: str, *more: int) -> int | list[int]:
        """What names a stream of draws (see `tfdqn.seeds`); of a population, one for each member."""
        return seeds.stream(self.configs[0].seed, name, *more)

    def mean(self, rows: tf.Tensor) -> tf.Tensor:
        """Of all numbers of the rows [B, ...], []; of a population's rows [P * B, ...], [P]. So the others, too."""
        return tf.reduce_mean(rows)

    def sum(self, rows: tf.Tensor, axis: int = 0) -> tf.Tensor:
        """With the `axis` on which the rows are: 1 of sequences [T, B, ...]. So the next two, too."""
        return tf.reduce_sum(rows)

    def max(self, rows: tf.Tensor, axis: int = 0) -> tf.Tensor:
        return tf.reduce_max(rows)

    def all(self, flags: tf.Tensor, variable: tf.Variable) -> tf.Tensor:
        """Whether all flags are set, of a variable's numbers; of those of one member's, all others' are."""
        return tf.reduce_all(flags)

    def half_square(self, rows: tf.Tensor, axis: int = 0) -> tf.Tensor:
        """Half the sum of the squares."""
        return tf.nn.l2_loss(rows)

    def least(self, each: tf.Tensor) -> tf.Tensor:
        """The smallest, [], of what there is one of for each."""
        return each

    def rows_of(self, each: Any, count: int) -> Any:
        """What there is one of for each [P], for every one of its `count` rows: [P * count]; alone as it is."""
        return each

    def one_row(self, sequences: tf.Tensor) -> tf.Tensor:
        """Sequences [T, B, ...] as rows [T * B, ...]; of a population [T, P * B, ...] as [P * T * B, ...]."""
        return tf.reshape(sequences, [sequences.shape[0] * sequences.shape[1], *sequences.shape[2:]])

    def orders(self, draws: tf.Tensor) -> tf.Tensor:
        """Orders of rows, [B], of a population each one's own [P, B], by numbers drawn for each row, [B] or [P * B]."""
        return tf.argsort(draws)

    def part(self, orders: tf.Tensor, number: tf.Tensor, parts: int) -> tf.Tensor:
        """Which rows come in one of so many equal parts of `orders`: numbers among all rows, [B / parts] or P times."""
        return tf.reshape(orders, [parts, -1])[number]

    def norm(self, gradients: Sequence[tf.Tensor], variables: Sequence[tf.Variable]) -> tf.Tensor:
        """The global norm of gradients by variables; of a population that of each member, [P]."""
        return optimizers.global_norm(gradients)

    def clipped(
        self, gradients: Sequence[tf.Tensor], variables: Sequence[tf.Variable], norm: tf.Tensor, limit: Any
    ) -> Sequence[tf.Tensor]:
        """Gradients scaled down to a global norm of `limit`, from the norm that they have."""
        return tf.clip_by_global_norm(gradients, limit, use_norm=norm)[0]

    def over(self, each: Any, variable: tf.Variable) -> Any:
        """What there is one of for each [P], to go with a variable [P, ...] of all or of one; alone as it is."""
        return each


class Population(Members):
    """P agents side by side."""

    def __init__(self, configs: Sequence[Config]):
        super().__init__(configs)
        self.shape = (self.count,)

    def setting(self, name):
        values = [getattr(config, name) for config in self.configs]
        if all(value == values[0] for value in values):
            return values[0]
        return np.array(values)

    def stream(self, name, *more):
        return [seeds.stream(config.seed, name, *more) for config in self.configs]

    def mean(self, rows):
        return tf.reduce_mean(tf.reshape(rows, [self.count, -1]), axis=1)

    def sum(self, rows, axis=0):
        return tf.reduce_sum(self._apart(rows, axis), axis=1)

    def max(self, rows, axis=0):
        return tf.reduce_max(self._apart(rows, axis), axis=1)

    def all(self, flags, variable):
        owner = stacked.owner_of(variable)
        if owner is not None:
            return tf.reduce_all(flags) | (np.arange(self.count) != owner)
        return tf.reduce_all(tf.reshape(flags, [self.count, -1]), axis=1)

    def half_square(self, rows, axis=0):
        return 0.5 * self.sum(tf.square(rows), axis)

    def _apart(self, rows: tf.Tensor, axis: int) -> tf.Tensor:
        """All numbers of each one's rows, [P, numbers]."""
        return tf.reshape(stacked.rows_of(rows, self.count) if axis else rows, [self.count, -1])

    def least(self, each):
        return tf.reduce_min(each)

    def rows_of(self, each, count):
        return tf.repeat(_entering(each), count) if len(np.shape(each)) else each

    def one_row(self, sequences):
        return stacked.rows_of(sequences, self.count)

    def orders(self, draws):
        return tf.argsort(tf.reshape(draws, [self.count, -1]), axis=1)

    def part(self, orders, number, parts):
        count = orders.shape[1]
        chosen = tf.reshape(orders, [self.count, parts, count // parts])[:, number]
        first = tf.range(self.count, dtype=chosen.dtype) * count
        return tf.reshape(chosen + first[:, tf.newaxis], [-1])

    def norm(self, gradients, variables):
        owners = [stacked.owner_of(variable) for variable in variables]
        if all(owner is None for owner in owners):
            return optimizers.global_norm_of_each(gradients)
        pairs = list(zip(gradients, owners, strict=True))
        each = [
            [
                gradient if owner is not None else gradient[number]
                for gradient, owner in pairs
                if owner in (None, number)
            ]
            for number in range(self.count)
        ]
        return tf.stack([optimizers.global_norm(gradients) for gradients in each])

    def clipped(self, gradients, variables, norm, limit):
        # As `tf.clip_by_global_norm` has it: a norm that is not finite makes all of that member's gradients so.
        scale = tf.minimum(_entering(limit) / norm, 1.0) + (norm - norm)
        return [each * self.over(scale, variable) for each, variable in zip(gradients, variables, strict=True)]

    def over(self, each, variable):
        if not len(np.shape(each)):
            return each
        owner = stacked.owner_of(variable)
        return _entering(each)[owner] if owner is not None else stacked.beside(_entering(each), variable)


class TunedPopulation(Population):
    """P agents side by side, some of whose settings change in training.

    Args:
      configs: what each begins with.
      names: of those settings.
    """

    def __init__(self, configs: Sequence[Config], names: Sequence[str]):
        super().__init__(configs)
        self._names = tuple(names)

    @functools.cached_property
    def tuned(self):
        # As wide as the host's numbers: what is computed of them is what it is of a constant, to the bit.
        values = {name: np.array([getattr(config, name) for config in self.configs]) for name in self._names}
        return {name: tf.Variable(each, trainable=False, name=name) for name, each in values.items()}

    def setting(self, name):
        return self.tuned[name] if name in self._names else super().setting(name)


def _entering(values: Any) -> tf.Tensor:
    """Numbers of the host or of `tuned` as float32 or int64, as what they meet in a program is."""
    if isinstance(values, tf.Variable):
        return tf.convert_to_tensor(values) if values.dtype.is_integer else as_float32(values)
    is_whole = isinstance(values, np.ndarray) and values.dtype.kind == "i"
    return values if tf.is_tensor(values) else tf.constant(values, tf.int64 if is_whole else tf.float32)


def members_of(config: Config) -> Members:
    """Those that a configuration trains."""
    if names := population.tuned(config):
        return TunedPopulation(population.members(config), names)
    return (Population if population.is_one(config) else Members)(population.members(config))
