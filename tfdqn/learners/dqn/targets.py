"""What DQN bootstraps from: a greedy player's returns, or those of a soft one.

Shapes: B batch, K next observations of each where returns are mixed, A actions.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfdqn.learners import losses
from tfdqn.replay.transitions import Transition


def each_next(following: Any, discount: tf.Tensor) -> Any:
    """What there is of all next observations as rows of one batch: [B, K, ...] as [B * K, ...], else as it is."""
    if following is None or discount.shape.rank == 1:
        return following
    return tf.reshape(following, [-1, *following.shape[2:]])


class TargetRule(abc.ABC):
    """How the target of a transition is made of what the networks say of it."""

    @abc.abstractmethod
    def target(self, head: Any, online: Callable, bootstrap: Callable, transitions: Transition, values: Any) -> Any:
        """What the head is to learn.

        Args:
          head: `tfdqn.learners.dqn.heads.Head`, or an ensemble of such.
          online: the network that learns, from observations to its output.
          bootstrap: the network whose values of the next state are learnt; it may be `online` itself.
          transitions: a batch of B.
          values: [B, A], the online network's action values of the observations.
        """


@dataclasses.dataclass(frozen=True)
class GreedyTarget(TargetRule):
    """The next action is the best one (Mnih et al. 2015), of those that are legal.

    Attributes:
      chooser: which output tells the best one, one of `tfdqn.learners.dqn.rules.CHOOSERS`.
      advantage_alpha: see `tfdqn.learners.losses.advantage_learning`.
    """

    chooser: Callable
    advantage_alpha: float

    def target(self, head, online, bootstrap, transitions, values):
        next_observation = each_next(transitions.next_observation, transitions.discount)
        next_legal = each_next(transitions.next_legal, transitions.discount)
        next_output = bootstrap(next_observation)
        choosing_q = head.values(self.chooser(online, bootstrap, next_observation, next_output))
        reward = losses.advantage_learning(
            transitions.reward, values, transitions.action, self.advantage_alpha, transitions.legal
        )
        return head.target(reward, transitions.discount, next_output, choosing_q, next_legal)


@dataclasses.dataclass(frozen=True)
class MunchausenTarget(TargetRule):
    """The next action is drawn from softmax(Q / temperature) of the target network (Vieillard et al. 2020, eq. 2).

        r + alpha [temperature log pi(a|s)]_clip^0 + discount sum_a' pi(a'|s') (Q(s', a') - temperature log pi(a'|s'))

    Both policies are of the network that is bootstrapped from. No action is chosen, so that there is nothing for Double
    DQN to do. With returns over several decisions the bonus is the first one's alone.
    """

    alpha: float
    temperature: float
    clip: float

    def target(self, head, online, bootstrap, transitions, values):
        next_legal = each_next(transitions.next_legal, transitions.discount)
        next_output = bootstrap(each_next(transitions.next_observation, transitions.discount))
        next_policy = losses.log_policy(head.values(next_output), self.temperature, next_legal)
        if bootstrap is not online:
            values = head.values(bootstrap(transitions.observation))
        policy = losses.log_policy(values, self.temperature, transitions.legal)
        reward = losses.munchausen_reward(
            transitions.reward, policy, transitions.action, self.alpha, self.temperature, self.clip
        )
        return head.soft_target(reward, transitions.discount, next_output, next_policy, self.temperature)
