"""A recurrent Q-network: it plays, carries what it remembers, and learns from windows.

Shapes: T rows of a window, B batch, A actions, U units of the cell. Of a population of P, B is that of all members.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import tensorflow as tf

from tfdqn import seeds
from tfdqn.learners import exploration, losses
from tfdqn.learners.networked import NetworkAgent
from tfdqn.networks import layers, stacked
from tfdqn.networks.recurrent import RecurrentNetwork
from tfdqn.runtime import held


def n_step_targets(
    reward: tf.Tensor,
    discount: tf.Tensor,
    is_boundary: tf.Tensor,
    value: tf.Tensor,
    n_step: int,
    rescale_epsilon: float,
) -> tf.Tensor:
    """What the first T - n rows of windows of T are to be worth, [T - n, B] (Kapturowski et al. 2019, section 2.3).

        h(sum_k gamma^k r_t+k + gamma^n h^-1(Q_target(s_t+n, a*))),   a* the online network's choice

    Where an episode was cut off, its last frame has a row of its own (`is_boundary`), from which a return that reaches
    it bootstraps.

    Args:
      reward: [T, B].
      discount: [T, B], gamma, or 0 where the episode terminated.
      is_boundary: [T, B] bool; the targets of these rows mean nothing.
      value: [T, B], rescaled, of a* at each row.
      n_step: n.
      rescale_epsilon: of h.
    """
    size = reward.shape[0] - n_step
    value = losses.unscale(value, rescale_epsilon)
    found = value[n_step:]
    for number in reversed(range(n_step)):
        rows = slice(number, number + size)
        found = tf.where(is_boundary[rows], value[rows], losses.td_target(reward[rows], discount[rows], found))
    return losses.rescale(found, rescale_epsilon)


class LearnResult(NamedTuple):
    """What one update shows; values are rescaled. Of a population, what is [] has that axis, [P]."""

    loss: tf.Tensor  # [] float32, the weighted mean of half the squared TD error
    td_error: tf.Tensor  # [] float32, the mean of its size
    mean_q: tf.Tensor  # [] float32, mean of max_a Q(s, a)
    max_q: tf.Tensor  # [] float32, the largest of these
    gradient_norm: tf.Tensor  # [] float32, global norm before clipping
    is_finite: tf.Tensor  # [3] bool: the targets, the loss, the gradient
    priority: tf.Tensor  # [B] float32, eta max |td| + (1 - eta) mean |td| of each window


class DuelingValues(tf.keras.layers.Layer):
    """Action values [B, A] from features [B, F], the state's value and the advantages apart (Wang et al. 2016, eq. 9).

    Args:
      num_actions: A.
      units: of the hidden layer that each has to itself.
      seed: the weights are drawn from it.
      count: P, of agents side by side (see `tfdqn.networks.stacked`); None: one alone.
    """

    def __init__(self, num_actions: int, units: int, seed: int, count: int | None = None):
        super().__init__(dtype=layers.DTYPE)
        self._given = (num_actions, units, seed)
        draws = (tf.keras.initializers.GlorotUniform(seeds.stream(seed, "weights", 0, number)) for number in range(4))
        self.hidden_value, self.hidden_advantage, self.value, self.advantage = (
            layers.Dense(size, False, activation=activation, kernel_initializer=initializer)
            for (size, activation), initializer in zip(
                ((units, "relu"), (units, "relu"), (1, None), (num_actions, None)), draws, strict=True
            )
        )
        if count is not None:
            for name in ("hidden_value", "hidden_advantage", "value", "advantage"):
                setattr(self, name, stacked.beside_each_other([getattr(self, name)] * count))

    def side_by_side(self, count: int) -> DuelingValues:
        """So many of its kind, whose weights are still to be set."""
        return DuelingValues(*self._given, count)

    def build(self, input_shape: Any) -> None:
        for hidden, last in ((self.hidden_value, self.value), (self.hidden_advantage, self.advantage)):
            hidden.build(input_shape)
            last.build((None, hidden.units))
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        value, advantage = self.value(self.hidden_value(inputs)), self.advantage(self.hidden_advantage(inputs))
        return losses.dueling_value(value[..., tf.newaxis], advantage[..., tf.newaxis])[..., 0]


@tf.keras.saving.register_keras_serializable(package="tfdqn")
class R2D2(NetworkAgent):
    """A recurrent Q-network and its target network (Hausknecht and Stone 2015; Kapturowski et al. 2019).

    `call` maps observations [B, ...] that begin an episode to action values [B, A] float32, which are rescaled returns.

    Args:
      *args, **kwargs: see `NetworkAgent`, whose network's last hidden layer feeds the cell; its settings are also:
        cell: "lstm" or "gru".
        cell_units: U.
        burn_in: rows of a window that only bring its stored state up to date (Kapturowski et al. 2019, section 3).
        n_step: decisions of reward before bootstrapping.
        discount: gamma.
        priority_eta: how much the largest TD error counts in a window's priority.
        rescale_epsilon: see `tfdqn.learners.losses.rescale`.
        target_update_period_updates: the target network is copied from the online one after so many.
        previous_action_reward: the cell sees the action and the reward before, too (Kapturowski et al. 2019).
        dueling: see `DuelingValues`; its hidden layers have U units.
    """

    SETTINGS: ClassVar[dict[str, Any]] = {
        **NetworkAgent.SETTINGS,
        "cell": "lstm",
        "cell_units": 64,
        "burn_in": 10,
        "n_step": 5,
        "discount": 0.997,
        "priority_eta": 0.9,
        "rescale_epsilon": 1e-3,
        "target_update_period_updates": 400,
        "previous_action_reward": False,  # as of agents of earlier versions
        "dueling": False,
    }

    def make_networks(self, spec, body):
        settings = self._settings
        given = {"cell": settings["cell"], "cell_units": settings["cell_units"]}
        given |= {
            "sees_past": settings["previous_action_reward"],
            "head": DuelingValues if settings["dueling"] else None,
        }
        self.online, self.target = (
            RecurrentNetwork(spec, self.num_actions, label=label, **given, **body) for label in ("online", "target")
        )
        self.target.trainable = False
        self.copy_to_target()

    def join(self, agents, members):
        super().join(agents, members)
        self.target = stacked.model([agent.target for agent in agents])
        self.target.trainable = False

    # Playing.

    def initial_state(self, num_envs: int) -> Any:
        return self.online.initial_state(num_envs)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.online(self.entering(inputs))

    def action_values(self, observation: tf.Tensor, agent_state: Any) -> tf.Tensor:
        return self.online.step(self.entering(observation), agent_state)[0]

    def act(self, observation, agent_state, epsilon, seed, legal=None):
        q, agent_state = self.online.step(self.entering(observation), agent_state)
        action = exploration.choose(q, epsilon, seed, legal)
        if self._settings["previous_action_reward"]:
            agent_state = agent_state._replace(action=action, reward=tf.zeros_like(agent_state.reward))
        return action, agent_state

    def rewarded(self, agent_state, reward):
        return agent_state._replace(reward=reward) if self._settings["previous_action_reward"] else agent_state

    # Learning.

    def learn(self, windows: Any, weights: tf.Tensor) -> LearnResult:
        """Take one step of the optimizer on a batch, then bring the target network up to date.

        Args:
          windows: `tfdqn.replay.sequences.Windows` of `burn_in` rows, those to learn, and `n_step` rows.
          weights: [B] float32, importance of each window in the mean loss; with 0 it does not count.
        """
        settings, members = self._settings, self._members
        burn_in, n_step = settings["burn_in"], settings["n_step"]
        observation, begins, state = windows.observation, windows.is_first, windows.state
        action, reward = windows.action, windows.reward
        target_q = self.target.unroll(observation, begins, state, action, reward)[0][burn_in:]
        if burn_in:  # outside the tape: no gradient goes there
            _, state = self.online.unroll(
                observation[:burn_in], begins[:burn_in], state, action[:burn_in], reward[:burn_in]
            )
        late = tf.nest.map_structure(lambda rows: rows[burn_in:], windows._replace(state=()))
        size, of_each = late.reward.shape[0] - n_step, late.reward.shape[1] // members.count
        discount, eta = (members.rows_of(self.setting(name), of_each) for name in ("discount", "priority_eta"))
        counts = tf.cast(~late.is_boundary[:size], tf.float32)
        with held.Tape(self.online.trainable_variables) as tape:
            q, _ = self.online.unroll(late.observation, late.is_first, state, late.action, late.reward)
            with tape.stop_recording():
                legal = None if isinstance(late.legal, tuple) else late.legal
                value = losses.double_value(q, target_q, legal)
                target = n_step_targets(
                    late.reward, discount * late.discount, late.is_boundary, value, n_step, settings["rescale_epsilon"]
                )
            q = q[:size]
            td_error = (losses.masked_value(q, late.action[:size]) - target) * counts  # [T - n, B]
            total = tf.maximum(members.sum(counts, axis=1), 1.0)
            loss = members.sum(weights * losses.squared(td_error), axis=1) / total
        norm, is_finite = self.descend(tape, loss, target * counts, axis=1)
        self._sync_target()
        best = losses.max_value(q, None if legal is None else legal[:size])
        size_of_error = tf.abs(td_error)
        each = tf.reduce_sum(size_of_error, axis=0) / tf.maximum(tf.reduce_sum(counts, axis=0), 1.0)
        return LearnResult(
            loss=loss,
            td_error=members.sum(size_of_error, axis=1) / total,
            mean_q=members.sum(tf.where(counts > 0, best, 0.0), axis=1) / total,
            max_q=members.max(tf.where(counts > 0, best, -math.inf), axis=1),
            gradient_norm=norm,
            is_finite=is_finite,
            priority=eta * tf.reduce_max(size_of_error, axis=0) + (1.0 - eta) * each,
        )

    # The target network.

    def play_by(self, weights: Sequence[np.ndarray]) -> None:
        super().play_by(weights)
        self.copy_to_target()

    def copy_to_target(self) -> None:
        """Make the target network equal to the online one."""
        for target, online in zip(self.target.variables, self.online.variables, strict=True):
            target.assign(online)

    def _sync_target(self) -> None:
        """After an update, which `optimizer.iterations` has counted."""
        is_due = self.optimizer.iterations % self.setting("target_update_period_updates") == 0
        for target, online in zip(self.target.variables, self.online.variables, strict=True):
            target.assign(tf.where(self._members.over(is_due, online), online, target))
