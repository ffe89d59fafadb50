"""The optimizers by name, and the one that a configuration describes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf

from tfdqn import optimizers

if TYPE_CHECKING:
    from tfdqn.config import Config


def _adam(config: Config, rate: Any) -> tf.keras.optimizers.Optimizer:
    adam = tf.keras.optimizers.Adam(rate, epsilon=config.optimizer_epsilon, jit_compile=False)
    return optimizers.with_rate(adam, rate)


def _rmsprop(config: Config, rate: Any) -> tf.keras.optimizers.Optimizer:
    rmsprop = tf.keras.optimizers.RMSprop(rate, **_averages(config), jit_compile=False)
    return optimizers.with_rate(rmsprop, rate)


def _rmsprop_graves(config: Config, rate: Any) -> tf.keras.optimizers.Optimizer:
    return optimizers.RMSPropGraves(rate, **_averages(config), jit_compile=False)


def _averages(config: Config) -> dict[str, float]:
    return {
        "rho": config.optimizer_rho,
        "momentum": config.optimizer_momentum,
        "epsilon": config.optimizer_epsilon,
    }


# From a configuration and a rate or its schedule.
OPTIMIZERS = {"adam": _adam, "rmsprop": _rmsprop, "rmsprop_graves": _rmsprop_graves}


def build_optimizer(config: Config) -> tf.keras.optimizers.Optimizer:
    """The optimizer that a configuration names."""
    rate = config.learning_rate
    if config.learning_rate_decay_updates:
        rate = tf.keras.optimizers.schedules.PolynomialDecay(
            rate, config.learning_rate_decay_updates, config.learning_rate_end
        )
    return OPTIMIZERS[config.optimizer](config, rate)
