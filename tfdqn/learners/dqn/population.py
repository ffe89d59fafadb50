"""DQN for a population: all members act and learn at once, in products of all.

Shapes: P members, N environments and a batch of B of each, A actions. Rows of all are [P * N, ...] and [P * B, ...].
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfdqn.learners import exploration
from tfdqn.learners.dqn import rules
from tfdqn.learners.dqn.agent import DQN, TwoNetworks
from tfdqn.learners.dqn.metrics import LearnResult
from tfdqn.members import Members
from tfdqn.networks import drawing, stacked
from tfdqn.replay.transitions import Transition


class DQNPopulation(TwoNetworks):
    """P agents, each with what it was made with, side by side in one.

    Args:
      agents: of the same form. Their weights are copied; they themselves are left alone.
      members: what they are.

    Attributes:
      count: P.
    """

    def __init__(self, agents: Sequence[DQN], members: Members):
        super().__init__(dtype="float32", name="population")
        first = agents[0]
        self.online, self.target = (stacked.model([getattr(agent, name) for agent in agents]) for name in NETWORKS)
        self.target.trainable = False
        self.count, self.num_actions = members.count, first.num_actions
        self._head, self._accepts, self._is_noisy = first.head, first.accepts, first.is_noisy
        names = ("target", "target_update_period_updates", "target_tau")
        settings = {name: members.setting(name) for name in names}
        self.rule = dataclasses.replace(
            first.rule,
            target_policy=rules.TARGETS[settings["target"]](settings, members),
            max_gradient_norm=members.setting("max_gradient_norm"),
            stream=functools.partial(members.stream, "noise"),
            members=members,
        )

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Action values [P * N, A] float32."""
        return self._head.values(self.online(inputs))

    def act(
        self,
        observation: tf.Tensor,
        agent_state: Any,
        epsilon: tf.Tensor | exploration.Explore,
        seed: tf.Tensor,
        legal: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, Any]:
        """Actions [P * N] int32: as of any agent, with the seeds [P, 2] of all."""
        observation = self._accepts.observations(observation)
        explores = self._is_noisy and isinstance(epsilon, exploration.Explore)
        with drawing.within(drawing.Draws(seed, observation.shape[0]) if explores else None):
            values = self(observation)
        return exploration.choose(values, epsilon, seed, legal), agent_state

    def learn(self, transitions: Transition, weights: tf.Tensor) -> LearnResult:
        """One update of all from a batch [P * B] with weights [P * B] float32; what is told of it is [P]."""
        transitions, weights = self._accepts.batch(transitions, weights)
        return self.rule.step(self.online, self.target, self.optimizer, transitions, weights)

    def play_by(self, weights: Sequence[np.ndarray]) -> None:
        """All have these weights of one agent's `online`, and nothing of what was learnt since."""
        for network in (self.online, self.target):
            stacked.set_weights(network, weights, self.count)

    def weights_of(self, number: int) -> list[np.ndarray]:
        """The weights of one member's `online`, as those of an agent alone."""
        return stacked.weights_of(self.online, number)


NETWORKS = ("online", "target")
