"""Learners that draw from a replay: when they learn, and how often."""

from __future__ import annotations

import abc
from typing import Any

import tensorflow as tf

from tfdqn.learners import base
from tfdqn.learners.metrics import Metrics
from tfdqn.runtime import loops


class ReplayLearner(base.Learner):
    """At a round's end it takes `updates_per_iteration` updates, once its `replay` holds `replay_min_rows` rows."""

    def update(
        self,
        gathered: Any,
        observation: tf.Tensor,
        agent_state: Any,
        sums: Metrics,
        legal: tf.Tensor | None = None,
    ) -> Metrics:
        """The updates that are due, none while the replay is filled to its minimum."""
        due = self.config.updates_per_iteration
        if not self.is_filled_first:
            due = tf.where(self.is_ready(), due, 0)
        # A loop, not a condition: XLA passes the replay by without a copy, and the same code serves any count.
        start, written = (tf.constant(0), sums), self.variables.values()
        return loops.while_loop(
            lambda i, _: i < due, lambda i, m: (i + 1, self._learn(m)), start, self.device, written
        )[1]

    def is_ready(self) -> tf.Tensor:
        """Whether enough rows are held to learn from, [] bool."""
        return self.replay.holds(self.config.replay_min_rows)

    def rounds_to_fill(self) -> int:
        missing = self.replay.steps_to_sample(self.config.replay_min_rows) - int(self.replay.num_steps)
        return max(-(-missing // self.iterations_per_round) - 1, 0)

    @abc.abstractmethod
    def _learn(self, sums: Metrics) -> Metrics:
        """One update; the sums after it."""
