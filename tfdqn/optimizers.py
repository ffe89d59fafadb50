"""RMSPropGraves, the optimizer of the article, and the norm of a gradient."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import tensorflow as tf

from tfdqn.inputs import as_tensor
from tfdqn.networks import stacked

DQN_NATURE_EPSILON = 0.01  # for the loss summed over the batch, as Mnih et al. (2015) train
FOLD_WIDTH, FOLD_WAYS = 64, 16  # numbers that a sum is folded down to, and how many are added at once


def global_norm(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """The root of the sum of the squares of all numbers of some float32 tensors, [] float32.

    As `tf.linalg.global_norm`, up to rounding. XLA on a CPU takes longer over that than over a small network's step: it
    sums each tensor by itself, in windows of 32 numbers one after another. Here all are one vector, which is cut into
    equal parts that are added as vectors, until a few numbers are left.
    """
    return _norm(tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], axis=0))


def global_norm_of_each(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """The same of each of P parts of tensors [P, ...], [P] float32."""
    return _norm(tf.concat([tf.reshape(tensor, [tensor.shape[0], -1]) for tensor in tensors], axis=1))


def _norm(flat: tf.Tensor) -> tf.Tensor:
    """Over the last axis."""
    size, width, before = flat.shape[-1], FOLD_WIDTH, [[0, 0]] * (flat.shape.rank - 1)
    while width * FOLD_WAYS < size:
        width *= FOLD_WAYS
    sums = tf.square(tf.pad(flat, [*before, [0, -size % width]]))
    while sums.shape[-1] > FOLD_WIDTH:
        sums = tf.add_n(tf.split(sums, sums.shape[-1] // width, axis=-1))
        width //= FOLD_WAYS
    return tf.sqrt(tf.reduce_sum(sums, axis=-1))


def with_rate(
    optimizer: tf.keras.optimizers.Optimizer, rate: float | tf.keras.optimizers.schedules.LearningRateSchedule
) -> tf.keras.optimizers.Optimizer:
    """A Keras optimizer whose learning rate is that number as a float32, whatever `keras.json` says of floats.

    Its other variables are of the weights' type. A schedule is left to be what it is.
    """
    if not isinstance(rate, tf.keras.optimizers.schedules.LearningRateSchedule):
        with tf.init_scope():
            optimizer._learning_rate = tf.Variable(rate, dtype=tf.float32, name="learning_rate", trainable=False)
    return optimizer


class _Rates:
    """An optimizer of the weights of P agents, with a rate for each."""

    beside: Callable
    variable = None  # that is under way

    def add_variable_from_reference(self, model_variable, *args, **kwargs):
        slot = super().add_variable_from_reference(model_variable, *args, **kwargs)
        stacked.own_as(slot, model_variable)
        return slot

    def update_step(self, gradient, variable):
        self.variable = variable
        super().update_step(gradient, variable)
        self.variable = None

    @property
    def learning_rate(self):
        rates = super().learning_rate
        return rates if self.variable is None else self.beside(tf.convert_to_tensor(rates), self.variable)


def with_rates(optimizer: tf.keras.optimizers.Optimizer, beside: Callable) -> tf.keras.optimizers.Optimizer:
    """The same optimizer, of elementwise steps, with learning rates [P] of P agents.

    Args:
      optimizer: made with such rates.
      beside: gives what goes with a variable, from the rates and that.
    """
    kind = type(optimizer)
    optimizer.__class__ = type(kind.__name__, (_Rates, kind), {"beside": staticmethod(beside)})
    return optimizer


@tf.keras.utils.register_keras_serializable(package="tfdqn")
class RMSPropGraves(tf.keras.optimizers.Optimizer):
    """RMSProp scaled by the gradient's standard deviation, with momentum (Graves 2013, arXiv:1308.0850, eq. 38-45).

    Per weight w with gradient e, all state starting at zero:

        n <- rho n + (1 - rho) e^2
        g <- rho g + (1 - rho) e
        delta <- momentum delta - learning_rate e / sqrt(n - g^2 + epsilon)
        w <- w + delta

    The variance n - g^2 is kept directly, as v <- rho v + rho (1 - rho) (e - g_before)^2. From a zero start that is the
    same number, but it cannot turn negative: in float32 n - g^2 cancels when gradients are steady, and the root of a
    negative number ends a run.

    What to know before choosing numbers:
    * There is no bias correction: the first step is about learning_rate / sqrt(rho (1 - rho)), 4.6 times the
      learning rate at rho 0.95.
    * A constant gradient e has no variance: steps grow to learning_rate e / (sqrt(epsilon) (1 - momentum)).
    * epsilon is added to a squared gradient, so it belongs to the loss's scale: see `dqn_nature`.
    * The learning rate is inside delta, so a scheduled rate reaches the weights with the momentum's delay.
    * A NaN gradient stays in all three slots for ever: whoever trains must stop there, as `tfdqn.runs.loop` does.

    Args:
        learning_rate: a number or a `LearningRateSchedule`.
        rho: decay of both moving averages.
        momentum: decay of delta.
        epsilon: added to the variance, inside the root.
        name: prefix of the variables' names.
        **kwargs: clipping and the like, as for every Keras optimizer.
    """

    def __init__(self, learning_rate=1e-4, rho=0.95, momentum=0.9, epsilon=1e-4, name="RMSPropGraves", **kwargs):
        for label, decay in (("rho", rho), ("momentum", momentum)):
            if not 0 <= decay < 1:
                raise ValueError(f"{label} must be at least 0 and below 1, not {decay}")
        if not epsilon > 0:
            raise ValueError(f"epsilon must be above 0, not {epsilon}: it is all that is left under a steady gradient")
        if isinstance(learning_rate, (int, float)) and not 0 <= learning_rate < math.inf:
            raise ValueError(f"learning_rate must be at least 0 and finite, not {learning_rate}")
        # Keras's own default is a decay of 0, which it applies to every weight at every step.
        super().__init__(name=name, **{"weight_decay": None, **kwargs})
        self._learning_rate = self._build_learning_rate(learning_rate)
        with_rate(self, learning_rate)
        self.rho = float(rho)
        self.momentum = float(momentum)
        self.epsilon = float(epsilon)

    @classmethod
    def graves2013(cls, **kwargs) -> RMSPropGraves:
        """The numbers of Graves (2013), which are the defaults, as in Chainer's `RMSpropGraves`."""
        return cls(**kwargs)

    @classmethod
    def dqn_nature(cls, batch_size: int | None = None, **kwargs) -> RMSPropGraves:
        """The numbers of DQN (Mnih et al. 2015, and its Torch code): no momentum, epsilon 0.01.

        That epsilon belongs to a loss *summed* over the batch. A loss averaged over B samples has gradients B times
        smaller, so the same path needs epsilon / B^2: pass `batch_size=B` for a mean loss (32 gives 9.77e-6).
        """
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}; leave it out for a summed loss")
        epsilon = DQN_NATURE_EPSILON / (batch_size or 1) ** 2
        return cls(**{"learning_rate": 2.5e-4, "rho": 0.95, "momentum": 0.0, "epsilon": epsilon, **kwargs})

    @classmethod
    def seed(cls, **kwargs) -> RMSPropGraves:
        """The numbers of the article's own code, for a summed loss: 2.5e-4 was its rate for catch, 1.5e-4 for cave.

        Only the numbers: that code computed the momentum but never stored it, so it ran as if momentum were 0, and
        neither that nor the mean gradient was saved with the weights. Pass `momentum=0` for how it behaved. With so
        small an epsilon, a steady gradient e ends up moving a weight by 25 e a step: for comparison, not for training.
        """
        return cls(**{"learning_rate": 2.5e-4, "rho": 0.9, "momentum": 0.9, "epsilon": 1e-8, **kwargs})

    def build(self, var_list: Sequence[tf.Variable]) -> None:
        """Make three slots per variable, each of the variable's shape and dtype."""
        super().build(var_list)
        if getattr(self, "_built", False):
            return
        for variable in var_list:
            if variable.dtype not in (tf.float32, tf.float64):
                # Mixed precision is fine: Keras keeps its variables in float32 there.
                raise ValueError(f"{variable.name} is {variable.dtype.name}: squared gradients need float32 or float64")
        self._variances = [self.add_variable_from_reference(variable, "variance") for variable in var_list]
        self._means = [self.add_variable_from_reference(variable, "mean") for variable in var_list]
        self._deltas = [self.add_variable_from_reference(variable, "delta") for variable in var_list]
        self._built = True

    def update_step(self, gradient: tf.Tensor | tf.IndexedSlices, variable: tf.Variable) -> None:
        """Apply one step to one variable: elementwise operations only, which XLA fuses into one pass."""
        index = self._index_dict[self._var_key(variable)]
        variance, mean, delta = self._variances[index], self._means[index], self._deltas[index]
        # Rows without a gradient still decay and still move by their momentum, so a sparse gradient is a dense one.
        gradient = as_tensor(
            tf.convert_to_tensor(gradient), mean.dtype, mean.shape, f"RMSPropGraves: gradient of {variable.name}"
        )
        learning_rate = tf.cast(self.learning_rate, mean.dtype)

        deviation = gradient - mean
        new_variance = self.rho * variance + self.rho * (1 - self.rho) * tf.square(deviation)
        step = learning_rate * gradient * tf.math.rsqrt(new_variance + self.epsilon)
        new_delta = self.momentum * delta - step

        variance.assign(new_variance)
        mean.assign_add((1 - self.rho) * deviation)
        delta.assign(new_delta)
        variable.assign_add(new_delta)

    def get_config(self) -> dict:
        """The numbers, as plain Python values that `from_config` and JSON take back."""
        learning_rate = self._serialize_hyperparameter(self._learning_rate)
        if not isinstance(learning_rate, dict):
            learning_rate = float(str(learning_rate))  # the shortest decimal: 0.0001, not 9.999999747378752e-05
        numbers = {"rho": self.rho, "momentum": self.momentum, "epsilon": self.epsilon}
        return {**super().get_config(), "learning_rate": learning_rate, **numbers}
