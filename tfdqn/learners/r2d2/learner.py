"""R2D2 as a run's learner: rows and states in the replay, and updates from windows that are drawn there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf

from tfdqn import seeds
from tfdqn.config import Config
from tfdqn.envs.base import Environment
from tfdqn.learners import base, exploration
from tfdqn.learners.metrics import Metrics
from tfdqn.learners.networked import NetworkLearner
from tfdqn.learners.r2d2.agent import R2D2
from tfdqn.learners.r2d2.metrics import CAUSES, METRICS
from tfdqn.learners.replaying import ReplayLearner

if TYPE_CHECKING:
    from tfdqn.replay.sequences import SequenceReplay


class R2D2Learner(ReplayLearner, NetworkLearner):
    """Recurrent replay distributed DQN (Kapturowski et al. 2019), with the players and the learner in one program."""

    METRICS, CAUSES, AGENT = METRICS, CAUSES, R2D2

    def __init__(self, config: Config, env: Environment, device: str):
        super().__init__(config, env, device)
        self.iterations_per_round = config.iterations_per_update
        self.exploration = exploration.exploration(config)
        self.replay = build_replay(config, env, device, self.agent.initial_state(1))

    def take(self, gathered: Any, number: tf.Tensor, decision: base.Decision) -> Any:
        self.replay.add_with_state(decision.row, decision.agent_state)
        return gathered

    def _learn(self, sums: Metrics) -> Metrics:
        """One update."""
        updates = self.agent.optimizer.iterations.read_value()  # a number now: the variable moves on below
        seed = seeds.at(seeds.stream(self.config.seed, "replay"), updates)
        windows, weights, index = self.replay.sample_windows(seed, self.config.batch_size)
        result = self.agent.learn(windows, weights)
        self.replay.update(index, result.priority)
        return self.noted(sums, result)

    def take_over(self, agent: base.Agent) -> None:
        super().take_over(agent)
        self.agent.copy_to_target()

    @property
    def variables(self) -> dict[str, tf.Variable]:
        target = base.numbered(**{"agent/target": self.agent.target.variables})
        replay = {f"replay/{name}": variable for name, variable in self.replay.state.items()}
        return super().variables | target | replay


def build_replay(config: Config, env: Environment, device: str, state: Any) -> SequenceReplay:
    """The replay that a configuration describes; imported here, as an agent plays without TF-Agents."""
    from tfdqn.replay.sequences import SequenceReplay

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
        alpha=config.priority_alpha if config.prioritized else 0.0,
        beta=config.priority_beta,
        beta_updates=config.priority_beta_updates,
    )


LEARNER = R2D2Learner
