"""Rounds: what all environments play in T decisions, learnt from at once and then forgotten.

Shapes: T decisions, N environments, A actions. Of a population, N is that of all members, the first member's first.
"""

from __future__ import annotations

import abc
from typing import Any, NamedTuple

import tensorflow as tf

from tfdqn.config import Config
from tfdqn.envs.base import Environment
from tfdqn.learners import base
from tfdqn.learners.networked import NetworkLearner


class Round(NamedTuple):
    """What was played in a round."""

    observation: tf.Tensor  # [T, N, ...], frames stacked
    action: tf.Tensor  # [T, N] int32
    reward: tf.Tensor  # [T, N] float32
    discount: tf.Tensor  # [T, N] float32, 0 where the episode terminated, else 1
    value: tf.Tensor  # [T, N] float32, of the state, by the network as it was when this was played
    is_first: tf.Tensor  # [T, N] bool, an episode begins
    is_boundary: tf.Tensor  # [T, N] bool, the last frame of an episode: nothing was played
    legal: tf.Tensor | tuple  # [T, N, A] bool, of games that limit actions
    state: Any  # what the agent carried when the round began, a NamedTuple of [N, ...]


class RoundLearner(NetworkLearner):
    """A learner from rounds.

    Args:
      steps: T.
    """

    def __init__(self, config: Config, env: Environment, device: str, steps: int):
        super().__init__(config, env, device)
        self.iterations_per_round = steps

    @abc.abstractmethod
    def value(self, observation: tf.Tensor, agent_state: Any, legal: tf.Tensor | None) -> tf.Tensor:
        """What a state is worth, [N] float32, from what the agent sees and carries there and what the rules allow."""

    def begin_round(self) -> Round:
        config, env = self.config, self.env
        num_envs = config.num_envs * self._members.count
        sizes = [self.iterations_per_round, num_envs]
        spec = env.observation_spec.stacked(config.frame_stack)
        return Round(
            observation=tf.zeros([*sizes, *spec.shape], spec.dtype),
            action=tf.zeros(sizes, tf.int32),
            reward=tf.zeros(sizes),
            discount=tf.zeros(sizes),
            value=tf.zeros(sizes),
            is_first=tf.zeros(sizes, tf.bool),
            is_boundary=tf.zeros(sizes, tf.bool),
            legal=tf.zeros([*sizes, env.num_actions], tf.bool) if env.limits_actions else (),
            state=self.agent.initial_state(num_envs),
        )

    def take(self, gathered: Round, number: tf.Tensor, decision: base.Decision) -> Round:
        row, place = decision.row, tf.reshape(number, [1, 1])
        legal = None if isinstance(row.legal, tuple) else row.legal
        now = Round(
            observation=decision.observation,
            action=row.action,
            reward=row.reward,
            discount=row.discount,
            # Of what `act` computed too: the compiler makes one of both.
            value=self.value(decision.observation, decision.agent_state, legal),
            is_first=row.is_first,
            is_boundary=row.is_boundary,
            legal=row.legal,
            state=(),
        )
        state = tf.nest.map_structure(
            lambda held, each: tf.where(number == 0, each, held), gathered.state, decision.agent_state
        )
        gathered = tf.nest.map_structure(
            lambda held, each: tf.tensor_scatter_nd_update(held, place, each[tf.newaxis]),
            gathered._replace(state=()),
            now,
        )
        return gathered._replace(state=state)

    def discount(self, gathered: Round) -> tf.Tensor:
        """What the value of the next state counts, [T, N] float32: gamma, or 0 where the episode terminated."""
        return self._members.rows_of(self._members.setting("discount"), self.config.num_envs) * gathered.discount

    def one_row(self, gathered: Any) -> Any:
        """Structures of [T, N, ...] as [T * N, ...]: all decisions of a round in one row, a member's side by side."""
        return tf.nest.map_structure(self._members.one_row, gathered)
