"""The optimizers by name, and the one that a configuration describes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from tfdqn import optimizers
from tfdqn.members import members_of

if TYPE_CHECKING:
    from tfdqn.config import Config
    from tfdqn.learners.base import Agent


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


def compiled(agent: Agent, config: Config) -> Agent:
    """The agent with the optimizer that a configuration names, ready to learn."""
    agent.compile(build_optimizer(config), jit_compile=config.jit and not config.eager)
    agent.optimizer.build(agent.online.trainable_variables)
    return agent


def build_optimizer(config: Config) -> tf.keras.optimizers.Optimizer:
    """The optimizer that a configuration names; of a population whose members' rates differ, with one for each."""
    members = members_of(config)
    rate, end = members.setting("learning_rate"), members.setting("learning_rate_end")
    differ = np.ndim(rate) or (config.learning_rate_decay_updates and np.ndim(end))
    if differ:
        rate = np.broadcast_to(np.float32(rate), members.shape)
    if config.learning_rate_decay_updates:
        rate = tf.keras.optimizers.schedules.PolynomialDecay(rate, config.learning_rate_decay_updates, end)
    optimizer = OPTIMIZERS[config.optimizer](config, rate)
    return optimizers.with_rates(optimizer, members.over) if differ else optimizer
