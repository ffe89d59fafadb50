"""The optimizers by name, and the one that a configuration describes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from tfdqn import optimizers
from tfdqn.inputs import as_float32
from tfdqn.members import Members, members_of

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


def compiled(agent: Agent, config: Config, members: Members | None = None) -> Agent:
    """The agent with the optimizer that a configuration names, ready to learn; its `members` where these are made."""
    agent.compile(build_optimizer(config, members), jit_compile=config.jit and not config.eager)
    agent.optimizer.build(agent.online.trainable_variables)
    return agent


class TunedRates(tf.keras.optimizers.schedules.LearningRateSchedule):
    """Learning rates [P] that are looked up at each update, for they may change between two.

    Args:
      members: whose rates they are.
      decay_updates: over which they fall to `learning_rate_end`; 0: they do not.
    """

    def __init__(self, members: Members, decay_updates: int):
        self.members, self.decay_updates = members, decay_updates

    def __call__(self, step):
        rates, ends = (as_float32(self.members.setting(name)) for name in ("learning_rate", "learning_rate_end"))
        rates = tf.broadcast_to(rates, self.members.shape)
        if not self.decay_updates:
            return rates
        return tf.keras.optimizers.schedules.PolynomialDecay(rates, self.decay_updates, ends)(step)

    def get_config(self):
        return {"members": self.members, "decay_updates": self.decay_updates}


def build_optimizer(config: Config, members: Members | None = None) -> tf.keras.optimizers.Optimizer:
    """The optimizer that a configuration names; of a population whose members' rates differ, with one for each."""
    members = members or members_of(config)
    if members.tuned:
        rates = TunedRates(members, config.learning_rate_decay_updates)
        return optimizers.with_rates(OPTIMIZERS[config.optimizer](config, rates), members.over)
    rate, end = members.setting("learning_rate"), members.setting("learning_rate_end")
    differ = np.ndim(rate) or (config.learning_rate_decay_updates and np.ndim(end))
    if differ:
        rate = np.broadcast_to(np.float32(rate), members.shape)
    if config.learning_rate_decay_updates:
        rate = tf.keras.optimizers.schedules.PolynomialDecay(rate, config.learning_rate_decay_updates, end)
    optimizer = OPTIMIZERS[config.optimizer](config, rate)
    return optimizers.with_rates(optimizer, members.over) if differ else optimizer
