"""A2C: the synchronous form of A3C (Mnih et al. 2016), with generalized advantages (Schulman et al. 2016).

All environments play T decisions by the policy; then comes one update on all of them. No replay and no Q-values.
Shapes: T decisions, N environments, A actions. Of a population, N is that of all members.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import tensorflow as tf

from tfdqn.config import Config
from tfdqn.envs.base import Environment
from tfdqn.learners.a2c.agent import ActorCritic
from tfdqn.learners.a2c.metrics import CAUSES, METRICS
from tfdqn.learners.exploration import Explore
from tfdqn.learners.metrics import Metrics
from tfdqn.learners.rounds import Round, RoundLearner


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Every action is drawn from the policy."""

    def epsilon_at(self, env_frames: tf.Tensor) -> tf.Tensor:
        """1, at any time; of a population, each member's, [P]."""
        return tf.ones(tf.shape(env_frames))

    def at(self, env_frames: tf.Tensor) -> Explore:
        """What an agent is told."""
        return Explore(tf.ones([]))

    @staticmethod
    def draws(num_actions: int) -> int:
        """Numbers that each environment draws for a decision between so many actions."""
        return num_actions + 1


def advantages(
    reward: tf.Tensor,
    discount: tf.Tensor,
    value: tf.Tensor,
    is_boundary: tf.Tensor,
    last_value: tf.Tensor,
    gae_lambda: float | tf.Tensor,
) -> tf.Tensor:
    """Generalized advantage estimates of a round, [T, N] float32 (Schulman et al. 2016, eq. 16).

        A_t = r_t + discount_t V_{t+1} - V_t + discount_t lambda A_{t+1},   A_T = 0

    Where an episode was cut off, its last frame has a row of its own (`is_boundary`), whose entry is 0: the row before
    bootstraps from that frame's value and from nothing behind it.

    Args:
      reward: [T, N].
      discount: [T, N], gamma, or 0 where the episode terminated.
      value: [T, N], V_0 to V_{T-1}.
      is_boundary: [T, N] bool.
      last_value: [N], V_T.
      gae_lambda: lambda, one or [N].
    """
    steps = reward.shape[0]

    def body(number, after, following, found):
        t = steps - 1 - number
        advantage = reward[t] + discount[t] * (following + gae_lambda * after) - value[t]
        advantage = tf.where(is_boundary[t], 0.0, advantage)
        return number + 1, advantage, value[t], tf.tensor_scatter_nd_update(found, [[t]], advantage[tf.newaxis])

    start = (tf.constant(0), tf.zeros_like(last_value), last_value, tf.zeros_like(reward))
    return tf.while_loop(lambda number, *_: number < steps, body, start)[3]


class A2CLearner(RoundLearner):
    """Advantage actor-critic."""

    METRICS, CAUSES, AGENT = METRICS, CAUSES, ActorCritic

    def __init__(self, config: Config, env: Environment, device: str):
        super().__init__(config, env, device, config.rollout_steps)
        self.exploration = Sampling()

    def value(self, observation, agent_state, legal):
        return self.agent.policy_and_value(observation)[1]

    def update(
        self,
        gathered: Round,
        observation: tf.Tensor,
        agent_state: Any,
        sums: Metrics,
        legal: tf.Tensor | None = None,
    ) -> Metrics:
        """The update of a round."""
        config, members = self.config, self._members
        found = advantages(
            gathered.reward,
            self.discount(gathered),
            gathered.value,
            gathered.is_boundary,
            self.value(observation, agent_state, legal),
            members.rows_of(members.setting("gae_lambda"), config.num_envs),
        )
        target, weight = found + gathered.value, tf.cast(~gathered.is_boundary, tf.float32)
        if config.normalize_advantages:
            found = self._normalized(found, weight)
        entries = (gathered.observation, gathered.action, found, target, weight, gathered.legal)
        *entries, legal = self.one_row(entries)
        return self.noted(sums, self.agent.learn(*entries, None if isinstance(legal, tuple) else legal))

    def _normalized(self, values: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
        """Values [T, N] of which those that count have mean 0 and standard deviation 1."""
        members, num_envs = self._members, self.config.num_envs
        total = tf.maximum(members.sum(weight, axis=1), 1.0)
        centred = values - members.rows_of(members.sum(weight * values, axis=1) / total, num_envs)
        variance = members.sum(weight * tf.square(centred), axis=1) / total
        return centred / members.rows_of(tf.sqrt(variance) + 1e-8, num_envs)


LEARNER = A2CLearner
