"""What the rewards of a window come to: a sum, and the states that the rest is bootstrapped from.

Shapes: B batch, n rows of a window from its anchor on.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf


class Return(NamedTuple):
    """A return as reward + sum over its ends of discount * V(end); with one end there is no axis of ends."""

    reward: tf.Tensor  # [B] float32
    discount: tf.Tensor  # [B] float32, or [B, K] of K ends
    ends: list[tf.Tensor]  # K of [B] int64, decisions from the anchor to each end


class Returns(abc.ABC):
    """How a window's rows become a return."""

    @abc.abstractmethod
    def of(self, rewards: tf.Tensor, discounts: tf.Tensor, is_boundary: tf.Tensor, gamma: Any) -> Return:
        """The return from the anchor.

        Args:
          rewards, discounts: [n, B] float32; a discount is 0 where the episode terminated, else 1.
          is_boundary: [n, B] bool: nothing was played, and what lies behind is another episode's.
          gamma: the discount of one decision, a number or [B] float32.
        """

    @abc.abstractmethod
    def at_ends(self, rows: Sequence[tf.Tensor], look: Callable) -> tf.Tensor:
        """What there is at the ends, [B, ...], or [B, K, ...] of several.

        Args:
          rows: for each end, rows of the table [..., B].
          look: from such rows, of any B, to what they hold, [B, ...].
        """


@dataclasses.dataclass(frozen=True)
class NStep(Returns):
    """All rewards of the window, bootstrapped from once, at its end or the episode's."""

    def of(self, rewards, discounts, is_boundary, gamma):
        # From the last decision to the anchor: G <- r + gamma * d * G. A boundary row begins anew: what lies behind it
        # (the next episode) is dropped and the return bootstraps from the boundary's frame.
        reward, discount = tf.zeros_like(rewards[0]), tf.ones_like(rewards[0])
        for step in reversed(range(rewards.shape[0])):
            decay = gamma * discounts[step]
            reward = tf.where(is_boundary[step], 0.0, rewards[step] + decay * reward)
            discount = tf.where(is_boundary[step], 1.0, decay * discount)
        return Return(reward, discount, [_decisions(is_boundary)])

    def at_ends(self, rows, look):
        return look(rows[0])


@dataclasses.dataclass(frozen=True)
class Lambda(Returns):
    """The mix of the returns over 1 to n decisions, each with `trace` times the share of the one before.

    It is G_t = r_t + gamma d_t ((1 - trace) V(s_t+1) + trace G_t+1) (Peng and Williams 1996; Sutton and Barto 2018,
    section 12.1), where G at the window's or the episode's end is V, which takes all that is left (with a replay: Daley
    and Amato 2019). Written out it is one sum of rewards, and a discount for the value of each state.

    Attributes:
      trace: lambda, from 0, which is the return over one decision, to below 1.
    """

    trace: float

    def of(self, rewards, discounts, is_boundary, gamma):
        decisions = _decisions(is_boundary)
        reward = tf.zeros_like(rewards[0])
        for step in reversed(range(rewards.shape[0])):
            decay = self.trace * gamma * discounts[step]
            reward = tf.where(is_boundary[step], 0.0, rewards[step] + decay * reward)
        # A value k decisions ahead is discounted k times and has 1 - trace of what k - 1 traces have left. The last one
        # has all of that; behind it no state counts.
        shares, reached = [], tf.ones_like(rewards[0])
        for step in range(rewards.shape[0]):
            reached *= tf.where(is_boundary[step], 0.0, gamma * discounts[step])
            shares.append(reached * tf.where(decisions > step + 1, 1.0 - self.trace, 1.0))
            reached *= self.trace
        ends = [tf.minimum(decisions, step + 1) for step in range(rewards.shape[0])]
        return Return(reward, tf.stack(shares, axis=1), ends)

    def at_ends(self, rows, look):
        together = tf.stack(rows, axis=-1)  # [..., B, K]
        found = look(tf.reshape(together, [*together.shape[:-2], -1]))
        return tf.reshape(found, [-1, len(rows), *found.shape[1:]])


def _decisions(is_boundary: tf.Tensor) -> tf.Tensor:
    """How many decisions of the window are the episode's, [B] int64."""
    size = is_boundary.shape[0]
    ahead = tf.range(size, dtype=tf.int64)[:, tf.newaxis]
    return tf.reduce_min(tf.where(is_boundary, ahead, tf.constant(size, tf.int64)), axis=0)
