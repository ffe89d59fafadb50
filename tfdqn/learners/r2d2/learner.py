"""R2D2 as a run's learner: rows and states in the replay, and updates from windows that are drawn there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf

from tfdqn import seeds
from tfdqn.config import Config
from tfdqn.envs.base import Environment
from tfdqn.learners import base, exploration
from tfdqn.learners.metrics import Metrics, has_ended
from tfdqn.learners.networked import NetworkLearner
from tfdqn.learners.r2d2.agent import R2D2
from tfdqn.learners.r2d2.metrics import CAUSES, METRICS
from tfdqn.learners.replaying import ReplayLearner
from tfdqn.members import Members, members_of

if TYPE_CHECKING:
    from tfdqn.replay.sequences import SequenceReplay


class R2D2Learner(ReplayLearner, NetworkLearner):
    """Recurrent replay distributed DQN (Kapturowski et al. 2019), with the players and the learner in one program."""

    METRICS, CAUSES, AGENT = METRICS, CAUSES, R2D2

    def __init__(self, config: Config, env: Environment, device: str):
        super().__init__(config, env, device)
        self.iterations_per_round = config.iterations_per_update
        self.exploration = exploration.exploration(config, self._members)
        self.replay = build_replay(config, env, device, self.agent.initial_state(1), self._members)

    def take(self, gathered: Any, number: tf.Tensor, decision: base.Decision) -> Any:
        self.replay.add_with_state(decision.row, decision.agent_state)
        return gathered

    def _learn(self, sums: Metrics) -> Metrics:
        """One update."""
        updates = self.agent.optimizer.iterations.read_value()  # a number now: the variable moves on below
        seed, batch_size = seeds.at(self._members.stream("replay"), updates), self.config.batch_size
        windows, weights, index = self.replay.sample_windows(seed, batch_size)
        result = self.agent.learn(windows, weights)
        sums, priority = self.noted(sums, result), result.priority
        if self._members.shape:
            priority = tf.where(self._members.rows_of(has_ended(sums), batch_size), 0.0, priority)
        self.replay.update(index, priority)
        return sums

    @property
    def variables(self) -> dict[str, tf.Variable]:
        target = base.numbered(**{"agent/target": self.agent.target.variables})
        replay = {f"replay/{name}": variable for name, variable in self.replay.state.items()}
        return super().variables | target | replay


def build_replay(
    config: Config, env: Environment, device: str, state: Any, members: Members | None = None
) -> SequenceReplay:
    """The replay that a configuration describes; imported here, as an agent plays without TF-Agents."""
    from tfdqn.replay.sequences import SequenceReplay

    members = members or members_of(config)
    return SequenceReplay(
        env.observation_spec,
        num_envs=config.num_envs,
        capacity=config.replay_capacity,
        stack=config.frame_stack,
        stride=config.frame_stride,
        device=device,
        legal_actions=env.masked_actions or None,
        window=config.burn_in + config.sequence_length + config.n_step,
        period=config.sequence_period,
        state=state,
        alpha=members.setting("priority_alpha") if config.prioritized else 0.0,
        beta=members.setting("priority_beta"),
        beta_updates=members.setting("priority_beta_updates"),
        members=members.count,
    )


LEARNER = R2D2Learner
