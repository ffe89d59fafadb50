"""Members of a population that take over others' agents: one gather over the axis of members, between chunks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from tfdqn.networks import stacked
from tfdqn.runtime import compiled

if TYPE_CHECKING:
    from tfdqn.learners.base import Learner

AGENT = ("agent/", "optimizer/")  # what begins so belongs to an agent: networks, and the optimizer's averages


class Selection:
    """Hands agents from member to member.

    What plays stays: games, replay and streams of draws are each member's own.

    Args:
      learner: of a population of P.
      jit, eager: how it is run.
    """

    def __init__(self, learner: Learner, jit: bool, eager: bool):
        self._learner = learner
        self._gather = compiled.program(self._gathered, jit=jit, eager=eager)

    def take_over(self, source: Sequence[int]) -> None:
        """Let member i have the agent of member `source[i]`, for P of them: weights, target, and optimizer."""
        with tf.device(self._learner.device):
            self._gather(tf.constant(source, tf.int32))

    def _gathered(self, source: tf.Tensor) -> None:
        named = self._learner.variables
        for group in AGENT:
            stacked.gather([variable for name, variable in named.items() if name.startswith(group)], source)

    def set(self, values: Mapping[str, Sequence[Any]]) -> None:
        """Have these settings from now on, P numbers by name."""
        for name, each in values.items():
            self._learner.variables[f"settings/{name}"].assign(np.array(each))

    def values(self) -> dict[str, list[Any]]:
        """The settings as they are now, P numbers by name."""
        named = self._learner.variables
        return {
            name.removeprefix("settings/"): variable.numpy().tolist()
            for name, variable in named.items()
            if name.startswith("settings/")
        }

    def revive(self, ended: np.ndarray) -> None:
        """Let members that had `ended` [P] bool draw from their replay again, should nothing in it have a priority."""
        largest = self._learner.variables.get("replay/max_priority")
        if largest is not None:
            largest.assign(tf.where(ended & (largest.numpy() <= 0), 1.0, largest))
