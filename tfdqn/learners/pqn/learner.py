"""PQN (Gallici et al. 2024, "Simplifying deep temporal difference learning"): no replay and no target network.

Many environments play a round of T decisions; what happened is learnt from in some epochs of minibatches, towards
lambda returns of the network's own values as they were while it played; then it is forgotten. What keeps that stable is
layer normalisation, so choose a network that has it. Shapes: T decisions, N environments, A actions, B a minibatch.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from tfdqn import seeds
from tfdqn.config import Config
from tfdqn.envs.base import Environment
from tfdqn.learners import base, exploration, losses, optimizing
from tfdqn.learners.metrics import Metrics, note_non_finite
from tfdqn.learners.pqn.agent import QNetwork
from tfdqn.learners.pqn.metrics import CAUSES, METRICS


class Round(NamedTuple):
    """What was played in a round."""

    observation: tf.Tensor  # [T, N, ...]
    action: tf.Tensor  # [T, N] int32
    reward: tf.Tensor  # [T, N] float32
    discount: tf.Tensor  # [T, N] float32, 0 where the episode terminated, else 1
    value: tf.Tensor  # [T, N] float32, max_a Q(s, a) among legal actions, when it was played
    is_boundary: tf.Tensor  # [T, N] bool, the last frame of an episode: nothing was played


def lambda_returns(
    reward: tf.Tensor,
    discount: tf.Tensor,
    value: tf.Tensor,
    is_boundary: tf.Tensor,
    last_value: tf.Tensor,
    q_lambda: float,
) -> tf.Tensor:
    """Peng's Q(lambda) of a round, [T, N] float32 (Peng and Williams 1994; Gallici et al. 2024, algorithm 1).

        G_t = r_t + discount_t ((1 - lambda) V_{t+1} + lambda G_{t+1}),   G_T = V_T

    Where an episode was cut off, its last frame has a row of its own (`is_boundary`): the row before bootstraps from
    that frame's value and from nothing behind it.

    Args:
      reward: [T, N].
      discount: [T, N], gamma, or 0 where the episode terminated.
      value: [T, N], V_0 to V_{T-1}.
      is_boundary: [T, N] bool; their own entries mean nothing.
      last_value: [N], V_T.
      q_lambda: lambda.
    """
    steps = reward.shape[0]

    def body(number, after, following, returns):
        t = steps - 1 - number
        found = reward[t] + discount[t] * ((1 - q_lambda) * following + q_lambda * after)
        found = tf.where(is_boundary[t], value[t], found)
        return number + 1, found, value[t], tf.tensor_scatter_nd_update(returns, [[t]], found[tf.newaxis])

    start = (tf.constant(0), last_value, last_value, tf.zeros_like(reward))
    return tf.while_loop(lambda number, *_: number < steps, body, start)[3]


class PQNLearner(base.Learner):
    """Parallelised Q-network."""

    METRICS, CAUSES = METRICS, CAUSES

    def __init__(self, config: Config, env: Environment, device: str):
        super().__init__(config.replace(convolution=_convolution(config)), env, device)
        self.iterations_per_round = config.num_steps
        self.exploration = exploration.exploration(config)
        self.agent = self.build_agent(self.config, env)
        self.agent.compile(optimizing.build_optimizer(config), jit_compile=config.jit and not config.eager)
        self.agent.optimizer.build(self.agent.online.trainable_variables)

    @classmethod
    def build_agent(cls, config: Config, env: Environment) -> QNetwork:
        spec = env.observation_spec.stacked(config.frame_stack)
        return QNetwork(
            spec.shape,
            env.num_actions,
            network=config.network,
            convolution=_convolution(config),
            precision=config.precision,
            max_gradient_norm=config.max_gradient_norm,
            seed=config.seed,
            observation_dtype=spec.dtype,
            name="pqn",
        )

    def begin_round(self) -> Round:
        config = self.config
        steps, spec = [config.num_steps, config.num_envs], self.env.observation_spec.stacked(config.frame_stack)
        return Round(
            observation=tf.zeros([*steps, *spec.shape], spec.dtype),
            action=tf.zeros(steps, tf.int32),
            reward=tf.zeros(steps),
            discount=tf.zeros(steps),
            value=tf.zeros(steps),
            is_boundary=tf.zeros(steps, tf.bool),
        )

    def take(self, gathered: Round, number: tf.Tensor, decision: base.Decision) -> Round:
        row = decision.row
        q = self.agent(decision.observation)  # what `act` computed too: the compiler makes one of both
        legal = None if isinstance(row.legal, tuple) else row.legal
        now = Round(
            observation=decision.observation,
            action=row.action,
            reward=row.reward,
            discount=row.discount,
            value=losses.max_value(q, legal),
            is_boundary=row.is_boundary,
        )
        place = tf.reshape(number, [1, 1])
        return tf.nest.map_structure(
            lambda held, each: tf.tensor_scatter_nd_update(held, place, each[tf.newaxis]), gathered, now
        )

    def update(
        self,
        gathered: Round,
        observation: tf.Tensor,
        agent_state: Any,
        sums: Metrics,
        legal: tf.Tensor | None = None,
    ) -> Metrics:
        """The epochs of a round."""
        config = self.config
        target = lambda_returns(
            gathered.reward,
            config.discount * gathered.discount,
            gathered.value,
            gathered.is_boundary,
            losses.max_value(self.agent(observation), legal),
            config.q_lambda,
        )
        rows = config.num_steps * config.num_envs
        size = rows // config.minibatches
        flat = [tf.reshape(each, [rows, *each.shape[2:]]) for each in (gathered.observation, gathered.action, target)]
        weight = tf.reshape(tf.cast(~gathered.is_boundary, tf.float32), [rows])

        def epoch(number, sums):
            # Counted in updates: an order of its own for every epoch of the run.
            updates = self.agent.optimizer.iterations.read_value()
            order = tf.argsort(seeds.draw(seeds.at(seeds.stream(config.seed, "replay"), updates), rows))

            def minibatch(number, sums):
                chosen = tf.reshape(order, [config.minibatches, size])[number]
                return number + 1, self._learn(*(tf.gather(each, chosen) for each in (*flat, weight)), sums)

            return number + 1, tf.while_loop(lambda i, _: i < config.minibatches, minibatch, (tf.constant(0), sums))[1]

        return tf.while_loop(lambda i, _: i < config.epochs, epoch, (tf.constant(0), sums))[1]

    def _learn(self, observation, action, target, weight, sums: Metrics) -> Metrics:
        updates = self.agent.optimizer.iterations.read_value()
        result = self.agent.learn(observation, action, target, weight)
        sums = note_non_finite(sums, ~result.is_finite, updates + 1, 1)
        return sums.with_update({metric.name: getattr(result, metric.name) for metric in METRICS})

    @property
    def variables(self) -> dict[str, tf.Variable]:
        return base.numbered(
            **{"agent/online": self.agent.online.variables, "optimizer": self.agent.optimizer.variables}
        )


def _convolution(config: Config) -> str:
    return "patches" if config.convolution == "auto" else config.convolution


LEARNER = PQNLearner
