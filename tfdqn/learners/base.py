"""The contract that learners share: what `tfdqn.programs` asks of one, and nothing else about it.

A learner is made from a run's configuration and its game. In a round every environment decides `iterations_per_round`
times; the learner takes in each decision, and then learns. The loop, the reports and the guard against numbers that are
not finite are the program's. Shapes: N environments, A actions.
"""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import tensorflow as tf

from tfdqn.config import Config
from tfdqn.envs.base import Environment
from tfdqn.learners import metrics
from tfdqn.metric import Metric
from tfdqn.replay.transitions import Row


class NoState(NamedTuple):
    """What is carried by whoever carries nothing."""


class Decision(NamedTuple):
    """One decision of every environment, as the learner is told of it."""

    observation: tf.Tensor  # [N, ...], frames stacked, what the agent saw
    agent_state: Any  # what the agent carried when it saw that, [N, ...]
    row: Row  # the newest frame and what followed; where `is_boundary`, nothing was played


class Agent(tf.keras.Model):
    """What plays: a Keras model from observations [B, ...] to action values [B, A].

    Attributes:
      online: the network that plays, whose weights are the agent's.
      optimizer: with which it is compiled to learn; its `iterations` count the updates.
    """

    online: tf.keras.Model

    def initial_state(self, num_envs: int) -> Any:
        """What it carries at an episode's start, a NamedTuple of tensors [N, ...]."""
        return NoState()

    def play_by(self, weights: Sequence[np.ndarray]) -> None:
        """Have these weights of `online`, and nothing of what was learnt since."""
        self.online.set_weights(weights)

    def action_values(self, observation: tf.Tensor, agent_state: Any) -> tf.Tensor:
        """What it takes each action to be worth, [N, A] float32."""
        return self(observation)

    def rewarded(self, agent_state: Any, reward: tf.Tensor) -> Any:
        """What it carries on, once the actions of its last decision have paid `reward` [N] float32."""
        return agent_state

    @abc.abstractmethod
    def act(
        self, observation: tf.Tensor, agent_state: Any, epsilon: Any, seed: tf.Tensor, legal: tf.Tensor | None
    ) -> tuple[tf.Tensor, Any]:
        """Choose actions.

        Args:
          observation: [N, ...].
          agent_state: what it has carried so far.
          epsilon: [] float32, the share of random actions, or [N], that of each environment; with 0 it plays as well
            as it can. In training what the learner's `exploration` says (see `tfdqn.learners.exploration.Explore`).
          seed: [2] int64.
          legal: [N, A] bool, at least one action each; None: every action.

        Returns:
          Actions [N] int32, and what it carries on; whoever plays them tells `rewarded` what they paid.
        """


class Learner(abc.ABC):
    """What learns in a run.

    Args:
      config: the run's configuration.
      env: the game.
      device: TensorFlow device that holds everything.

    Attributes:
      config: the run's, with what the device decides.
      agent: what plays, and learns.
      exploration: what the agent's `act` is told by the frames played, `at(env_frames)`, and the share of random
        actions [] that is reported, `epsilon_at(env_frames)`; `draws(num_actions)`, how many numbers an environment
        draws for a decision.
      iterations_per_round: decisions of every environment before it learns.
      replay: where it keeps rows for longer than a round; None where it does not.
      is_filled_first: whether the program calls `update` only after the rounds of `rounds_to_fill`.
      rare_period_updates: something is done only by each so manieth update, all told; 0 for nothing.
    """

    METRICS: ClassVar[tuple[Metric, ...]]  # what it reports of an update
    HISTOGRAMS: ClassVar[tuple[Metric, ...]] = ()  # what `histograms` may hold
    CAUSES: ClassVar[tuple[str, ...]]  # of weights that are no longer finite, as its updates tell them
    replay: Any = None
    is_filled_first: bool = False
    rare_period_updates: int = 0

    def __init__(self, config: Config, env: Environment, device: str):
        self.config, self.env, self.device = config, env, device

    @classmethod
    @abc.abstractmethod
    def build_agent(cls, config: Config, env: Environment) -> Agent:
        """The agent that a configuration describes; to play, nothing else is needed."""

    @classmethod
    def sums(cls) -> type[metrics.Metrics]:
        """The type of the sums that a program keeps for it."""
        return metrics.sums_of(cls.METRICS)

    def begin_round(self) -> Any:
        """What it gathers in a round, at its start: a NamedTuple of tensors."""
        return NoState()

    @abc.abstractmethod
    def take(self, gathered: Any, number: tf.Tensor, decision: Decision) -> Any:
        """Take in a decision, the round's `number` [] int32 from 0; returns what is gathered."""

    @abc.abstractmethod
    def update(
        self,
        gathered: Any,
        observation: tf.Tensor,
        agent_state: Any,
        sums: metrics.Metrics,
        legal: tf.Tensor | None = None,
    ) -> metrics.Metrics:
        """Learn at a round's end.

        Args:
          gathered: in the round.
          observation: [N, ...], what each environment shows now, before the next decision.
          agent_state: what the agent carries now.
          sums: since the last report.
          legal: [N, A] bool, what the rules allow now; None: every action.
        """

    def rounds_to_fill(self) -> int:
        """On the host: rounds from now on at whose ends too few rows are held to learn from."""
        return 0

    def without_rare(self) -> contextlib.AbstractContextManager:
        """Meanwhile updates are traced without what `rare_period_updates` tells of: whoever runs them sees that it is
        not due."""
        return contextlib.nullcontext()

    def histograms(self, evaluation: int) -> Mapping[Metric, np.ndarray]:
        """On the host: what people are to see of it beside an evaluation, numbers by their metrics.

        Nothing that learns or plays is changed by it, nor any draw of theirs.

        Args:
          evaluation: its number, from 1.
        """
        return {}

    def player(self) -> contextlib.AbstractContextManager:
        """Meanwhile the agent is the one that a run is to give."""
        return contextlib.nullcontext()

    def take_over(self, agent: Agent) -> None:
        """Begin with another agent's weights; the optimizer starts afresh."""
        self.agent.play_by(agent.online.get_weights())

    @property
    def parts(self) -> Sequence[Learner]:
        """What has a part of the members of a population each; itself, where it has all."""
        return [self]

    @property
    @abc.abstractmethod
    def variables(self) -> dict[str, tf.Variable]:
        """All that it changes, by stable names; rows of a replay under "replay/"."""


def numbered(**groups: Any) -> dict[str, tf.Variable]:
    """Variables by the names of their groups and a number each.

    Keras numbers its own names through a whole process, so a second agent has others.
    """
    return {f"{group}/{i}": variable for group, variables in groups.items() for i, variable in enumerate(variables)}
