"""PQN (Gallici et al. 2024, "Simplifying deep temporal difference learning"): no replay and no target network.

Many environments play a round of T decisions; what happened is learnt from in some epochs of minibatches, towards
lambda returns of the network's own values as they were while it played; then it is forgotten. What keeps that stable is
layer normalisation, so choose a network that has it. With a cell (their PQN-RNN) what is carried while playing goes on
from round to round, and a minibatch is the whole round of some environments, unrolled from what each carried at its
start, anew wherever an episode begins.

Shapes: T decisions, N environments, A actions, B a minibatch. Of a population, N and B are those of all members.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfdqn import seeds
from tfdqn.config import Config
from tfdqn.envs.base import Environment
from tfdqn.learners import exploration, losses
from tfdqn.learners.metrics import Metrics
from tfdqn.learners.pqn.agent import QNetwork
from tfdqn.learners.pqn.metrics import CAUSES, METRICS
from tfdqn.learners.rounds import Round, RoundLearner
from tfdqn.runtime import loops


def lambda_returns(
    reward: tf.Tensor,
    discount: tf.Tensor,
    value: tf.Tensor,
    is_boundary: tf.Tensor,
    last_value: tf.Tensor,
    q_lambda: float | tf.Tensor,
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
      q_lambda: lambda, one or [N].
    """
    steps = reward.shape[0]

    def body(number, after, following, returns):
        t = steps - 1 - number
        found = reward[t] + discount[t] * ((1 - q_lambda) * following + q_lambda * after)
        found = tf.where(is_boundary[t], value[t], found)
        return number + 1, found, value[t], tf.tensor_scatter_nd_update(returns, [[t]], found[tf.newaxis])

    start = (tf.constant(0), last_value, last_value, tf.zeros_like(reward))
    return tf.while_loop(lambda number, *_: number < steps, body, start)[3]


class PQNLearner(RoundLearner):
    """Parallelised Q-network."""

    METRICS, CAUSES, AGENT = METRICS, CAUSES, QNetwork

    def __init__(self, config: Config, env: Environment, device: str):
        super().__init__(config, env, device, config.num_steps)
        self.exploration = exploration.exploration(config, self._members)

    def value(self, observation, agent_state, legal):
        best = losses.max_value(self.agent.action_values(observation, agent_state), legal)
        # Where nothing is legal the episode is over, and its value counts nowhere; but 0 * -inf would be no number.
        return best if legal is None else tf.where(tf.reduce_any(legal, axis=-1), best, 0.0)

    def update(
        self,
        gathered: Round,
        observation: tf.Tensor,
        agent_state: Any,
        sums: Metrics,
        legal: tf.Tensor | None = None,
    ) -> Metrics:
        """The epochs of a round."""
        config, members = self.config, self._members
        target = lambda_returns(
            gathered.reward,
            self.discount(gathered),
            gathered.value,
            gathered.is_boundary,
            self.value(observation, agent_state, legal),
            members.rows_of(members.setting("q_lambda"), config.num_envs),
        )
        weight = tf.cast(~gathered.is_boundary, tf.float32)
        entries = (gathered.observation, gathered.action, target, weight)
        allowed = gathered.legal
        if self.agent.remembers:  # an environment's decisions stay together, to be played again in turn
            entries, axis, count = (*entries, gathered.is_first), 1, config.num_envs
        else:
            entries, allowed = self.one_row((entries, allowed))
            axis, count = 0, config.num_steps * config.num_envs

        def epoch(number, sums):
            # Counted in updates: an order of its own for every epoch of the run.
            updates = self.agent.optimizer.iterations.read_value()
            orders = members.orders(seeds.draw(seeds.at(members.stream("replay"), updates), count))

            def minibatch(number, sums):
                chosen = members.part(orders, number, config.minibatches)
                picked = [tf.gather(each, chosen, axis=axis) for each in entries]
                state = tf.nest.map_structure(lambda each: tf.gather(each, chosen), gathered.state)
                shown = None if isinstance(allowed, tuple) else tf.gather(allowed, chosen, axis=axis)
                return number + 1, self._learn([*picked, state] if self.agent.remembers else picked, sums, shown)

            return number + 1, repeated(config.minibatches, minibatch, sums)

        def repeated(times, turn, sums):
            start, written = (tf.constant(0), sums), self.variables.values()
            return loops.while_loop(lambda i, _: i < times, turn, start, self.device, written)[1]

        return repeated(config.epochs, epoch, sums)

    def _learn(self, entries: Sequence[Any], sums: Metrics, legal: tf.Tensor | None) -> Metrics:
        return self.noted(sums, self.agent.learn(*entries, legal=legal))


LEARNER = PQNLearner
