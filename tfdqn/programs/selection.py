"""Members of a population that take over others' agents: a gather over the axis of members, between chunks."""

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
      learners: of a population of P, an equal part each, the first members in the first; one of all in one program.
      jit, eager: how it is run.
    """

    def __init__(self, learners: Sequence[Learner], jit: bool, eager: bool):
        self._learners = learners
        self._gather = compiled.program(self._gathered, jit=jit, eager=eager)

    def take_over(self, source: Sequence[int]) -> None:
        """Let member i have the agent of member `source[i]`, for P of them: weights, target, and optimizer."""
        if len(self._learners) > 1:
            self._hand_over(source)
            return
        with tf.device(self._learners[0].device):
            self._gather(tf.constant(source, tf.int32))

    def _gathered(self, source: tf.Tensor) -> None:
        for group in AGENT:
            stacked.gather(_variables(self._learners[0], group), source)

    def _hand_over(self, source: Sequence[int]) -> None:
        """The same from device to device, by way of the host."""
        for group in AGENT:
            parts = [_variables(learner, group) for learner in self._learners]
            count = len(source) // len(parts)
            held = [stacked.agent_of(part, number) for part in parts for number in range(count)]
            for place, part in enumerate(parts):
                first = place * count
                stacked.set_agents(part, [held[each] for each in source[first : first + count]])

    def set(self, values: Mapping[str, Sequence[Any]]) -> None:
        """Have these settings from now on, P numbers by name."""
        for name, each in values.items():
            parts = np.split(np.array(each), len(self._learners))
            for learner, part in zip(self._learners, parts, strict=True):
                learner.variables[f"settings/{name}"].assign(part)

    def values(self) -> dict[str, list[Any]]:
        """The settings as they are now, P numbers by name."""
        found: dict[str, list[Any]] = {}
        for learner in self._learners:
            for name, variable in learner.variables.items():
                if name.startswith("settings/"):
                    found.setdefault(name.removeprefix("settings/"), []).extend(variable.numpy().tolist())
        return found

    def revive(self, ended: np.ndarray) -> None:
        """Let members that had `ended` [P] bool draw from their replay again, should nothing in it have a priority."""
        for learner, part in zip(self._learners, np.split(ended, len(self._learners)), strict=True):
            largest = learner.variables.get("replay/max_priority")
            if largest is not None:
                largest.assign(tf.where(part & (largest.numpy() <= 0), 1.0, largest))


def _variables(learner: Learner, group: str) -> list[tf.Variable]:
    return [variable for name, variable in learner.variables.items() if name.startswith(group)]
