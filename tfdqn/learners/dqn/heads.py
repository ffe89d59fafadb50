"""Heads of Q-networks: what their last layers' output means, and what it learns from.

Shapes: B batch, A actions, K numbers that stand for one action, U units of the output.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from tfdqn.learners import losses
from tfdqn.networks import implicit


class Head(abc.ABC):
    """The last layers of a Q-network, what their output means, and what they learn from.

    The output is [B, U] if a head does not say otherwise. In each `K` numbers stand for one action.

    Args:
      num_actions: A.
      dueling: the state's value and each action's advantage come from hidden layers of their own and are joined as in
        Wang et al. 2016, eq. 9; the output then holds K numbers for V(s), then A * K for A(s, a).
      target_epsilon: share of random actions of the player whose returns are learnt; the others are greedy.
    """

    numbers = 1  # K
    draws = False  # whether its layers draw in updates (see `tfdqn.networks.drawing`)
    mixes_returns = False  # whether its target may be bootstrapped from K states, with a discount [B, K]

    def __init__(self, num_actions: int, dueling: bool = False, target_epsilon: float = 0.0):
        self.num_actions, self.dueling, self._target_epsilon = num_actions, dueling, target_epsilon

    def connect(self, features: Any, hidden: Callable, dense: Callable) -> Any:
        """The output from the body's features: see `tfdqn.networks.catalogue.Head`."""
        units = self.num_actions * self.numbers
        if not self.dueling:
            return dense(units, 0)(hidden(0)(features))
        value = dense(self.numbers, 0)(hidden(0)(features))
        advantage = dense(units, 1)(hidden(1)(features))
        return tf.keras.layers.Concatenate(dtype=tf.float32)([value, advantage])

    def _per_action(self, output: tf.Tensor) -> tf.Tensor:
        """The output as [B, A, K]."""
        if not self.dueling:
            return tf.reshape(output, [-1, self.num_actions, self.numbers])
        value, advantage = output[:, tf.newaxis, : self.numbers], output[:, self.numbers :]
        return losses.dueling_value(value, tf.reshape(advantage, [-1, self.num_actions, self.numbers]))

    @abc.abstractmethod
    def values(self, output: tf.Tensor) -> tf.Tensor:
        """Action values [B, A]."""

    @abc.abstractmethod
    def target(
        self,
        reward: tf.Tensor,
        discount: tf.Tensor,
        next_output: tf.Tensor,
        choosing_q: tf.Tensor,
        legal: tf.Tensor | None = None,
    ) -> Any:
        """What to learn, from the next observation's output and the action values [B, A] that choose there.

        They choose among the `legal` [B, A] actions; None: all. Where `discount` is [B, K] instead of [B], there are as
        many next observations: the other three then have B * K rows.
        """

    def soft_target(
        self,
        reward: tf.Tensor,
        discount: tf.Tensor,
        next_output: tf.Tensor,
        log_policy: tf.Tensor,
        temperature: float,
    ) -> Any:
        """The same of a player who draws by `log_policy` [B, A] and is paid for its entropy, times `temperature`."""
        raise NotImplementedError(f"{type(self).__name__} has no target for a soft policy")

    def mixed(self, targets: Sequence[Any]) -> Any:
        """One target of several, each as likely."""
        return tf.add_n(targets) / float(len(targets))

    @abc.abstractmethod
    def loss(self, output: tf.Tensor, action: tf.Tensor, target: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """The loss and the TD error (Q(s, a) minus the target's mean) of each transition, both [B]."""


class ScalarHead(Head):
    """One number an action: its expected return.

    Args:
      loss: of the TD error, [B] to [B].
    """

    mixes_returns = True

    def __init__(
        self, num_actions: int, dueling: bool = False, target_epsilon: float = 0.0, loss: Callable = losses.huber
    ):
        super().__init__(num_actions, dueling, target_epsilon)
        self._loss = loss

    def values(self, output):
        return self._per_action(output)[:, :, 0]

    def target(self, reward, discount, next_output, choosing_q, legal=None):
        next_q = self.values(next_output)
        greedy = losses.double_value(choosing_q, next_q, legal)
        expected = losses.expected_over_actions(greedy, next_q, self._target_epsilon, legal)
        return self._td_target(reward, discount, expected)

    def soft_target(self, reward, discount, next_output, log_policy, temperature):
        expected = losses.soft_expectation(self.values(next_output), log_policy, temperature)
        return self._td_target(reward, discount, expected)

    def _td_target(self, reward, discount, expected):
        of_one = discount.shape.rank == 1
        return (losses.td_target if of_one else losses.mixed_target)(reward, discount, expected)

    def loss(self, output, action, target):
        td_error = losses.masked_value(self.values(output), action) - target
        return self._loss(td_error), td_error


class CategoricalHead(Head):
    """Probabilities of evenly spaced returns (C51, Bellemare et al. 2017), learnt by cross-entropy.

    Where most returns are near one end and the rare others decide, as in a game that is about not dying, this tells one
    death in a thousand from one in a hundred: a squared error does not, both are small to it. With two atoms it is a
    logistic regression of the return between `value_min` and `value_max`.

    Args:
      atoms: K, at least 2.
      value_min, value_max: returns of the first and the last atom; what lies outside is clipped.
    """

    def __init__(
        self,
        num_actions: int,
        dueling: bool,
        atoms: int,
        value_min: float,
        value_max: float,
        target_epsilon: float = 0.0,
    ):
        super().__init__(num_actions, dueling, target_epsilon)
        if atoms < 2 or not value_min < value_max:
            raise ValueError(f"categorical head: {atoms} atoms from {value_min} to {value_max} are no distribution")
        self.numbers, self._low, self._high = atoms, value_min, value_max
        step = (value_max - value_min) / (atoms - 1)
        self._returns = tf.constant([value_min + i * step for i in range(atoms)], tf.float32)  # [K]

    def values(self, output):
        return tf.reduce_sum(tf.nn.softmax(self._per_action(output)) * self._returns, axis=-1)

    def target(self, reward, discount, next_output, choosing_q, legal=None):
        each = tf.nn.softmax(self._per_action(next_output))
        greedy = losses.taken(each, losses.greedy_action(choosing_q, legal))
        expected = losses.expected_over_actions(greedy, each, self._target_epsilon, legal)
        return losses.categorical_target(reward, discount, expected, self._returns)

    def loss(self, output, action, target):
        logits = losses.taken(self._per_action(output), action)
        mean = tf.reduce_sum(tf.nn.softmax(logits) * self._returns, axis=-1)
        td_error = mean - tf.reduce_sum(target * self._returns, axis=-1)
        return tf.nn.softmax_cross_entropy_with_logits(target, logits), td_error


class Samples(NamedTuple):
    """A distribution of returns, as some of them."""

    returns: tf.Tensor  # [B, M] float32
    shares: tf.Tensor  # [B, M] float32, their probabilities


class Quantiles(Head):
    """Quantiles of the return, learnt by quantile regression. No range of returns has to be known.

    An action's value is the mean of its quantiles.

    Args:
      kappa: see `tfdqn.learners.losses.quantile_huber`.
    """

    def __init__(self, num_actions: int, dueling: bool, kappa: float, target_epsilon: float):
        super().__init__(num_actions, dueling, target_epsilon)
        self._kappa = kappa

    @abc.abstractmethod
    def taus(self, output: tf.Tensor) -> tf.Tensor:
        """Which quantiles the output holds, [K] or [B, K]."""

    def values(self, output):
        return tf.reduce_mean(self._per_action(output), axis=-1)

    def target(self, reward, discount, next_output, choosing_q, legal=None):
        each = self._per_action(next_output)
        returns = losses.taken(each, losses.greedy_action(choosing_q, legal))
        shares = tf.ones_like(returns) / float(returns.shape[1])
        if self._target_epsilon:
            returns, shares = self._with_all_actions(returns, shares, each, legal)
        return Samples(losses.td_target(reward[:, tf.newaxis], discount[:, tf.newaxis], returns), shares)

    def _with_all_actions(self, returns, shares, each, legal):
        """The mixture that an epsilon-greedy player draws from, whose samples are those of every action."""
        count, epsilon = each.shape[2], self._target_epsilon
        legal = tf.ones_like(each[:, :, 0], tf.bool) if legal is None else legal
        # Where nothing is legal the game is over, and any action will do.
        drawn = tf.cast(legal | ~tf.reduce_any(legal, axis=1, keepdims=True), tf.float32)
        drawn = tf.repeat(drawn / tf.reduce_sum(drawn, axis=1, keepdims=True), count, axis=1) / float(count)
        others = tf.where(drawn > 0, tf.reshape(each, [-1, self.num_actions * count]), 0.0)
        return tf.concat([returns, others], axis=1), tf.concat([(1.0 - epsilon) * shares, epsilon * drawn], axis=1)

    def soft_target(self, reward, discount, next_output, log_policy, temperature):
        # As in the paper's M-IQN: of each quantile, its mean over the actions.
        returns = losses.soft_expectation(self._per_action(next_output), log_policy, temperature)
        returns = losses.td_target(reward[:, tf.newaxis], discount[:, tf.newaxis], returns)
        return Samples(returns, tf.ones_like(returns) / float(returns.shape[1]))

    def mixed(self, targets):
        returns, shares = zip(*targets, strict=True)
        return Samples(tf.concat(returns, axis=1), tf.concat(shares, axis=1) / float(len(shares)))

    def loss(self, output, action, target):
        quantiles = losses.taken(self._per_action(output), action)
        td_error = tf.reduce_mean(quantiles, axis=1) - tf.reduce_sum(target.shares * target.returns, axis=1)
        loss = losses.quantile_huber(quantiles, self.taus(output), target.returns, target.shares, self._kappa)
        return loss, td_error


class QuantileHead(Quantiles):
    """As many quantiles as the output has numbers for an action (QR-DQN, Dabney et al. 2018a).

    Quantile i of N is that of tau_i = (2 i + 1) / 2 N, the middle of the i-th of N equal shares (lemma 2).

    Args:
      quantiles: N, which is K.
    """

    def __init__(
        self, num_actions: int, dueling: bool, quantiles: int, kappa: float = 1.0, target_epsilon: float = 0.0
    ):
        super().__init__(num_actions, dueling, kappa, target_epsilon)
        self.numbers = quantiles
        self._taus = tf.constant([(2 * i + 1) / (2 * quantiles) for i in range(quantiles)], tf.float32)  # [N]

    def taus(self, output):
        return self._taus


class ImplicitHead(Quantiles):
    """Any quantiles that the network is asked for (IQN, Dabney et al. 2018b).

    The network takes a tau beside the observation, and gives that quantile of each action's return: the body's features
    are multiplied with some of tau. In updates `samples` taus are drawn for each observation, for either network (N and
    N' of the paper are one number here); play asks for `act_samples` evenly spaced ones, where the paper draws them, so
    that what an agent plays is no matter of chance. The output is [B, K, U + 1], with tau behind the numbers.
    """

    draws = True

    def __init__(
        self,
        num_actions: int,
        dueling: bool,
        samples: int,
        act_samples: int,
        kappa: float = 1.0,
        target_epsilon: float = 0.0,
    ):
        super().__init__(num_actions, dueling, kappa, target_epsilon)
        self._samples, self._act_samples = samples, act_samples

    def connect(self, features, hidden, dense):
        cosines, taus = implicit.Cosines(self._samples, self._act_samples)(features)
        joined = implicit.Joined()([features, dense(features.shape[1], 2)(cosines), taus])
        return implicit.WithTaus()([super().connect(joined, hidden, dense), taus])

    def taus(self, output):
        return output[:, :, -1]

    def _per_action(self, output):
        numbers = tf.transpose(output[:, :, :-1], [0, 2, 1])  # [B, U, K]
        return losses.dueling_value(numbers[:, :1], numbers[:, 1:]) if self.dueling else numbers


class Ensemble:
    """Several networks side by side: each learns by itself, from a target in which the values of all are averaged.

    Their errors differ, so that the mean of K values errs less than one of them, in play and in the target
    (Averaged-DQN, Anschel et al. 2017, with networks begun apart, as Osband et al. 2016 do, in place of earlier ones).
    The output is [B, K * U]: one member's after the other's.

    Args:
      head: what each member's output [B, U] means.
      members: K.
    """

    def __init__(self, head: Head, members: int):
        self._head, self._members, self.mixes_returns = head, members, head.mixes_returns

    def _each(self, output: tf.Tensor) -> list[tf.Tensor]:
        return tf.split(output, self._members, axis=-1)

    def _mean(self, parts: list[Any]) -> Any:
        return tf.add_n(parts) / float(self._members)

    def values(self, output: tf.Tensor) -> tf.Tensor:
        """Action values [B, A]: the mean over the members."""
        return self._mean([self._head.values(part) for part in self._each(output)])

    def target(
        self,
        reward: tf.Tensor,
        discount: tf.Tensor,
        next_output: tf.Tensor,
        choosing_q: tf.Tensor,
        legal: tf.Tensor | None = None,
    ) -> Any:
        """The mixture of the members' targets, all at the legal action that `choosing_q` [B, A] takes."""
        parts = self._each(next_output)
        return self._head.mixed([self._head.target(reward, discount, part, choosing_q, legal) for part in parts])

    def soft_target(
        self,
        reward: tf.Tensor,
        discount: tf.Tensor,
        next_output: tf.Tensor,
        log_policy: tf.Tensor,
        temperature: float,
    ) -> Any:
        """The same, all by the policy of their mean."""
        parts = self._each(next_output)
        return self._head.mixed([self._head.soft_target(reward, discount, x, log_policy, temperature) for x in parts])

    def loss(self, output: tf.Tensor, action: tf.Tensor, target: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """The sum of the members' losses, so that each learns as fast as alone, and the mean TD error, both [B]."""
        losses_, td_errors = zip(*(self._head.loss(part, action, target) for part in self._each(output)), strict=True)
        return tf.add_n(losses_), self._mean(list(td_errors))
