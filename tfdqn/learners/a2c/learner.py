"""A2C: the synchronous form of A3C (Mnih et al. 2016), with generalized advantages (Schulman et al. 2016).

All environments play T decisions by the policy; then comes one update on all of them. No replay and no Q-values.
Shapes: T decisions, N environments, A actions.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import tensorflow as tf

from tfdqn.config import Config
from tfdqn.envs.base import Environment
from tfdqn.learners import base, optimizing
from tfdqn.learners.a2c.agent import ActorCritic
from tfdqn.learners.a2c.metrics import CAUSES, METRICS
from tfdqn.learners.metrics import Metrics, note_non_finite


class Rollout(NamedTuple):
    """What was played in a round."""

    observation: tf.Tensor  # [T, N, ...]
    action: tf.Tensor  # [T, N] int32
    reward: tf.Tensor  # [T, N] float32
    discount: tf.Tensor  # [T, N] float32, 0 where the episode terminated, else 1
    value: tf.Tensor  # [T, N] float32, V(s) when it was played
    is_boundary: tf.Tensor  # [T, N] bool, the last frame of an episode: nothing was played
    legal: tf.Tensor | tuple  # [T, N, A] bool, of games that limit actions


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Every action is drawn from the policy."""

    def epsilon_at(self, env_frames: tf.Tensor) -> tf.Tensor:
        """1, at any time."""
        return tf.ones([])

    at = epsilon_at


def advantages(
    reward: tf.Tensor,
    discount: tf.Tensor,
    value: tf.Tensor,
    is_boundary: tf.Tensor,
    last_value: tf.Tensor,
    gae_lambda: float,
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
      gae_lambda: lambda.
    """
    steps = reward.shape[0]

    def body(number, after, following, found):
        t = steps - 1 - number
        advantage = reward[t] + discount[t] * (following + gae_lambda * after) - value[t]
        advantage = tf.where(is_boundary[t], 0.0, advantage)
        return number + 1, advantage, value[t], tf.tensor_scatter_nd_update(found, [[t]], advantage[tf.newaxis])

    start = (tf.constant(0), tf.zeros_like(last_value), last_value, tf.zeros_like(reward))
    return tf.while_loop(lambda number, *_: number < steps, body, start)[3]


class A2CLearner(base.Learner):
    """Advantage actor-critic."""

    METRICS, CAUSES = METRICS, CAUSES

    def __init__(self, config: Config, env: Environment, device: str):
        super().__init__(config.replace(convolution=_convolution(config)), env, device)
        self.iterations_per_round = config.rollout_steps
        self.exploration = Sampling()
        self.agent = self.build_agent(self.config, env)
        self.agent.compile(optimizing.build_optimizer(config), jit_compile=config.jit and not config.eager)
        self.agent.optimizer.build(self.agent.online.trainable_variables)

    @classmethod
    def build_agent(cls, config: Config, env: Environment) -> ActorCritic:
        spec = env.observation_spec.stacked(config.frame_stack)
        return ActorCritic(
            spec.shape,
            env.num_actions,
            network=config.network,
            convolution=_convolution(config),
            precision=config.precision,
            max_gradient_norm=config.max_gradient_norm,
            entropy_weight=config.entropy_weight,
            value_weight=config.value_weight,
            seed=config.seed,
            observation_dtype=spec.dtype,
            name="a2c",
        )

    def begin_round(self) -> Rollout:
        config, env = self.config, self.env
        steps, spec = [config.rollout_steps, config.num_envs], env.observation_spec.stacked(config.frame_stack)
        return Rollout(
            observation=tf.zeros([*steps, *spec.shape], spec.dtype),
            action=tf.zeros(steps, tf.int32),
            reward=tf.zeros(steps),
            discount=tf.zeros(steps),
            value=tf.zeros(steps),
            is_boundary=tf.zeros(steps, tf.bool),
            legal=tf.zeros([*steps, env.num_actions], tf.bool) if env.limits_actions else (),
        )

    def take(self, gathered: Rollout, number: tf.Tensor, decision: base.Decision) -> Rollout:
        row = decision.row
        # What `act` computed too: the compiler makes one of both.
        _, value = self.agent.policy_and_value(decision.observation)
        now = Rollout(
            observation=decision.observation,
            action=row.action,
            reward=row.reward,
            discount=row.discount,
            value=value,
            is_boundary=row.is_boundary,
            legal=row.legal,
        )
        place = tf.reshape(number, [1, 1])
        return tf.nest.map_structure(
            lambda held, each: tf.tensor_scatter_nd_update(held, place, each[tf.newaxis]), gathered, now
        )

    def update(
        self,
        gathered: Rollout,
        observation: tf.Tensor,
        agent_state: Any,
        sums: Metrics,
        legal: tf.Tensor | None = None,
    ) -> Metrics:
        """The update of a round."""
        config, agent = self.config, self.agent
        _, last_value = agent.policy_and_value(observation)
        discount = config.discount * gathered.discount
        found = advantages(
            gathered.reward, discount, gathered.value, gathered.is_boundary, last_value, config.gae_lambda
        )
        target, weight = found + gathered.value, tf.cast(~gathered.is_boundary, tf.float32)
        if config.normalize_advantages:
            found = _normalized(found, weight)
        rows = config.rollout_steps * config.num_envs
        flat = tf.nest.map_structure(
            lambda each: tf.reshape(each, [rows, *each.shape[2:]]),
            (gathered.observation, gathered.action, found, target, weight, gathered.legal),
        )
        *entries, legal = flat
        updates = agent.optimizer.iterations.read_value()
        result = agent.learn(*entries, legal=None if isinstance(legal, tuple) else legal)
        sums = note_non_finite(sums, ~result.is_finite, updates + 1, 1)
        return sums.with_update({metric.name: getattr(result, metric.name) for metric in METRICS})

    @property
    def variables(self) -> dict[str, tf.Variable]:
        return base.numbered(
            **{"agent/online": self.agent.online.variables, "optimizer": self.agent.optimizer.variables}
        )


def _normalized(values: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    total = tf.maximum(tf.reduce_sum(weight), 1.0)
    centred = values - tf.reduce_sum(weight * values) / total
    return centred / (tf.sqrt(tf.reduce_sum(weight * tf.square(centred)) / total) + 1e-8)


def _convolution(config: Config) -> str:
    return "patches" if config.convolution == "auto" else config.convolution


LEARNER = A2CLearner
