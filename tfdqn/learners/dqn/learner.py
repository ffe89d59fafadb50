"""DQN as a run's learner: a row in the replay for each decision, and updates from what is drawn there."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from tfdqn import seeds
from tfdqn.config import Config
from tfdqn.envs.base import Environment
from tfdqn.learners import base, exploration
from tfdqn.learners.dqn import building, convolutions, rules
from tfdqn.learners.dqn.agent import DQN
from tfdqn.learners.dqn.metrics import CAUSES, GRADIENTS, METRICS
from tfdqn.learners.metrics import Metrics, has_ended, note_non_finite
from tfdqn.learners.replaying import ReplayLearner
from tfdqn.members import Members, members_of
from tfdqn.metric import Metric
from tfdqn.networks import catalogue
from tfdqn.runtime import compiled

if TYPE_CHECKING:
    from tfdqn.replay.table import FrameReplay


class DQNLearner(ReplayLearner):
    """Deep Q-learning (Mnih et al. 2015) with what `tfdqn.learners.dqn.rules` lists."""

    METRICS, CAUSES, HISTOGRAMS = METRICS, CAUSES, (GRADIENTS,)

    def __init__(self, config: Config, env: Environment, device: str):
        config = convolutions.choose(config, device, lambda each: building.build_learner(each, env))
        super().__init__(config, env, device)
        self.iterations_per_round = config.iterations_per_update
        self._members = members_of(config)
        self.exploration = exploration.exploration(config, self._members)
        self._player = rules.PLAYERS[config.play_target]
        self.replay = build_replay(config, env, device, self._members)
        self.agent = building.build_learner(config, env, self._members)
        self.rare_period_updates = self.agent.rule.target_policy.rare_period_updates
        self._gradient = compiled.program(self._gradient_of_a_batch, jit=config.jit, eager=config.eager)

    @classmethod
    def build_agent(cls, config: Config, env: Environment) -> DQN:
        return building.build_agent(config, env)

    def take(self, gathered: Any, number: tf.Tensor, decision: base.Decision) -> Any:
        self.replay.add(decision.row)
        return gathered

    def _learn(self, sums: Metrics) -> Metrics:
        """One update."""
        updates = self.agent.optimizer.iterations.read_value()  # a number now: the variable moves on below
        seed = seeds.at(self._members.stream("replay"), updates)
        transitions, weights, index = self.replay.sample(seed, self.config.batch_size)
        result = self.agent.learn(transitions, weights)
        sums, error = note_non_finite(sums, ~result.is_finite, updates + 1, 1), tf.abs(result.td_error)
        if self._members.shape:
            error = tf.where(self._members.rows_of(has_ended(sums), self.config.batch_size), 0.0, error)
        self.replay.update(index, error)
        return sums.with_update(result.reported())

    @contextlib.contextmanager
    def without_rare(self):
        rule = self.agent.rule
        self.agent.rule = dataclasses.replace(rule, target_policy=rules.Resting(rule.target_policy))
        try:
            yield
        finally:
            self.agent.rule = rule

    def histograms(self, evaluation: int) -> Mapping[Metric, np.ndarray]:
        every = self.config.gradients_every_evals
        if not every or evaluation % every or not self.is_ready():
            return {}
        with tf.device(self.device):
            return {GRADIENTS: self._gradient().numpy()}

    def _gradient_of_a_batch(self) -> tf.Tensor:
        """The gradient by every weight, [W] float32, on a batch as an update would draw it, but for the draw."""
        updates = self.agent.optimizer.iterations.read_value()
        seed = seeds.at(seeds.stream(self.config.seed, "look"), updates)
        transitions, weights, _ = self.replay.sample(seed, self.config.batch_size)
        return tf.concat([tf.reshape(each, [-1]) for each in self.agent.gradient(transitions, weights)], axis=0)

    def player(self) -> contextlib.AbstractContextManager:
        return self._player(self.agent)

    @property
    def variables(self) -> dict[str, tf.Variable]:
        agent = self.agent
        named = base.numbered(
            **{
                "agent/online": agent.online.variables,
                "agent/target": agent.target.variables,
                "optimizer": agent.optimizer.variables,
            }
        )
        named |= {f"settings/{name}": variable for name, variable in self._members.tuned.items()}
        return named | {f"replay/{name}": variable for name, variable in self.replay.state.items()}


def build_replay(config: Config, env: Environment, device: str, members: Members | None = None) -> FrameReplay:
    """The replay that a configuration describes."""
    members = members or members_of(config)
    return rules.SAMPLERS[config.prioritized](
        members,
        frame=env.observation_spec,
        num_envs=config.num_envs,
        capacity=config.replay_capacity,
        stack=config.frame_stack,
        stride=config.frame_stride,
        n_step=config.n_step,
        return_lambda=config.return_lambda,
        discount=members.setting("discount"),
        device=device,
        column_major=catalogue.body_of(config.network).prefers_columns,
        legal_actions=env.masked_actions or None,
        members=members.count,
    )


LEARNER = DQNLearner
