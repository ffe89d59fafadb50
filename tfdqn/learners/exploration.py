"""Exploration: how large the share of random actions is, and what an agent does then.

Shapes: N environments, A actions.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

import tensorflow as tf

from tfdqn import seeds
from tfdqn.inputs import as_float32
from tfdqn.learners import losses
from tfdqn.members import Members, members_of

if TYPE_CHECKING:
    from tfdqn.config import Config


class Explore(NamedTuple):
    """How an agent that trains is to explore, which `Agent.act` takes in the place of a share of random actions."""

    epsilon: tf.Tensor  # [] or [N] float32, the share of uniformly random actions
    temperature: (
        tf.Tensor | tuple
    ) = ()  # [] or [N] float32, all others are drawn from softmax(Q / it); (): they are the best
    rests: tf.Tensor | tuple = ()  # [N] bool, where all actions count as worth the same; (): nowhere


@dataclasses.dataclass(frozen=True)
class Linear:
    """A number that changes linearly with the frames played, then stays (Mnih et al. 2015).

    Of a population, each number may be [P].
    """

    start: Any
    end: Any
    decay_env_frames: Any

    def at(self, env_frames: tf.Tensor) -> tf.Tensor:
        """The number float32 after so many frames int64; clipped as an integer, so it stays exact at any age."""
        progress = tf.minimum(env_frames, self.decay_env_frames)
        share = tf.cast(progress, tf.float32) / as_float32(self.decay_env_frames)
        return as_float32(self.start) + as_float32(self.end - self.start) * share


@dataclasses.dataclass(frozen=True)
class EpsilonGreedy:
    """A share of the actions is uniformly random, and the others are the best.

    Attributes:
      epsilon: that share.
      ladder: how far environments differ in it (Horgan et al. 2018, "Distributed prioritized experience replay",
        section 4): environment i of N has epsilon^(1 + ladder i / (N - 1)); 0 for all alike.
      num_envs: N.
      members: who explores.
    """

    epsilon: Linear
    ladder: float
    num_envs: int
    members: Members

    def of_each(self, env_frames: tf.Tensor) -> tf.Tensor:
        """The share of all environments, [], or that of each, [N] float32, after so many frames [] int64.

        Of a population it is [P * N], after frames [P].
        """
        epsilon = self.members.rows_of(self.epsilon.at(env_frames), self.num_envs)
        if not self.ladder:
            return epsilon
        rung = tf.range(self.num_envs, dtype=tf.float32) / float(max(self.num_envs - 1, 1))
        return tf.pow(epsilon, 1.0 + self.ladder * tf.tile(rung, [self.members.count]))

    def epsilon_at(self, env_frames: tf.Tensor) -> tf.Tensor:
        """The mean share [] float32, as a run reports it; of a population, each member's, [P]."""
        return self.members.mean(self.of_each(env_frames))

    def at(self, env_frames: tf.Tensor) -> Explore:
        """What an agent is told."""
        return Explore(self.of_each(env_frames))

    @staticmethod
    def draws(num_actions: int) -> int:
        """Numbers that each environment draws for a decision between so many actions."""
        return 1


@dataclasses.dataclass(frozen=True)
class Boltzmann(EpsilonGreedy):
    """A share of the actions is uniformly random, and the others are drawn from softmax(Q / temperature).

    Attributes:
      temperature: in the units of the action values.
    """

    temperature: Linear

    def at(self, env_frames: tf.Tensor) -> Explore:
        temperature = self.members.rows_of(self.temperature.at(env_frames), self.num_envs)
        return Explore(self.of_each(env_frames), temperature)

    @staticmethod
    def draws(num_actions):
        return num_actions + 1


def _epsilon_greedy(members: Members) -> EpsilonGreedy:
    return EpsilonGreedy(*_shares(members))


def _boltzmann(members: Members) -> Boltzmann:
    return Boltzmann(*_shares(members), _falling(members, "temperature"))


def _shares(members: Members) -> tuple[Linear, float, int, Members]:
    return _falling(members, "epsilon"), members.setting("epsilon_ladder"), members.setting("num_envs"), members


def _falling(members: Members, name: str) -> Linear:
    return Linear(*(members.setting(each) for each in (f"{name}_start", f"{name}_end", "epsilon_decay_env_frames")))


# By `exploration`: of members.
KINDS = {"epsilon_greedy": _epsilon_greedy, "boltzmann": _boltzmann}


def exploration(config: Config, members: Members | None = None) -> EpsilonGreedy:
    """The exploration that a configuration describes, of its `members` where these are made already."""
    return KINDS[config.exploration](members or members_of(config))


def choose(q: tf.Tensor, explore: tf.Tensor | Explore, seed: tf.Tensor, legal: tf.Tensor | None) -> tf.Tensor:
    """Actions [N] int32, by their values q [N, A] and exploration.

    Args:
      q: action values [N, A].
      explore: what `EpsilonGreedy.at` gives, or an epsilon alone, [] or [N] float32.
      seed: [2] int64; of a population, [P, 2], and N is that of all members.
      legal: [N, A] bool, what the rules allow; None: every action.
    """
    epsilon, temperature, rests = explore if isinstance(explore, Explore) else Explore(explore)
    if not isinstance(rests, tuple):
        q = tf.where(rests[:, tf.newaxis], 0.0, q)
    if isinstance(temperature, tuple):
        draws, values = seeds.draw_rows(seed, tf.shape(q)[0]), q
    else:
        # An environment's draws in turn: what decides whether it explores, and one for each action's Gumbel noise, the
        # largest of which with Q / temperature is a draw from the softmax; here all times the temperature, which may be
        # small. Of 23 bits, so that no number rounds to 1, whose noise would be infinite.
        numbers = tf.reshape(seeds.draw_rows(seed, tf.shape(q)[0], Boltzmann.draws(q.shape[1])), [-1, q.shape[1] + 1])
        uniform = (tf.cast(numbers[:, 1:] % 2**23, tf.float32) + 0.5) / 2.0**23
        noise = tf.reshape(temperature, [-1, 1]) * tf.math.log(-tf.math.log(uniform))
        draws, values = numbers[:, 0], q - noise
    # Two independent parts of one draw: 24 bits decide whether to explore, the others which action.
    coin = tf.cast(tf.bitwise.bitwise_and(draws, 2**24 - 1), tf.float32)
    choice = tf.bitwise.bitwise_and(tf.bitwise.right_shift(draws, 24), 2**32 - 1)
    random_action = losses.uniform_action(choice, q.shape[1], legal)
    explores = coin < tf.cast(epsilon, tf.float32) * 2.0**24
    return tf.where(explores, random_action, losses.greedy_action(values, legal))
