"""Practice where others crash: some environments begin their episodes shortly before another's last crash.

An agent that plays well seldom dies, so the positions in which it still goes wrong are rare in what it learns from.
Here most environments play as ever and remember where they were some time before their last crash. The others, the
practisers, start there again and again, with new draws, until the player crashes in another place. Q-learning learns
from any distribution of starts. (Tavakoli et al. 2018, "Exploring restart distributions", arXiv:1811.11298; here a
crash is what makes a state worth a restart.)

Shapes: N environments, of which the first M play and the others practise.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from tfdqn import seeds
from tfdqn.envs import TimeStep

SNAPSHOT_PERIOD = 16  # decisions between two snapshots
NUM_SNAPSHOTS = 3  # the oldest is 33 to 48 decisions old: longer ago than the last moment in which a crash is avoidable
PRACTICE_DECISIONS = 64  # a practiser's episode is truncated after so many: the crash lies behind it


class Memory(NamedTuple):
    """What the players remember."""

    snapshots: Any  # the game's state [NUM_SNAPSHOTS, M, ...], newest first, all of the episode under way
    spots: Any  # the game's state [M, ...], some time before each player's last crash; its first start before any


class Nothing(NamedTuple):
    """What is remembered where nobody practises."""


class Practice:
    """Which environments practise, where they start and when they end.

    Args:
      num_envs: N.
      num_practisers: N - M; with 0 every method leaves things as they are.
    """

    def __init__(self, num_envs: int, num_practisers: int):
        self._num_envs, self._num_practisers, self._num_players = num_envs, num_practisers, num_envs - num_practisers

    @property
    def is_player(self) -> tf.Tensor:
        """Which environments play on, [N] bool."""
        return tf.range(self._num_envs) < self._num_players

    def begin(self, state: Any) -> Memory | Nothing:
        """The memory at a run's start, from the game's first state [N, ...]."""
        if not self._num_practisers:
            return Nothing()
        players = _map(lambda values: values[: self._num_players], state)
        return Memory(_map(lambda values: tf.repeat(values[tf.newaxis], NUM_SNAPSHOTS, axis=0), players), players)

    def truncate(self, timestep: TimeStep, decisions: tf.Tensor) -> TimeStep:
        """End practice after `PRACTICE_DECISIONS`; `decisions` of each episode so far, [N] int32, this one included."""
        if not self._num_practisers:
            return timestep
        is_long = ~self.is_player & (decisions >= PRACTICE_DECISIONS)
        return timestep._replace(truncation=timestep.truncation | (is_long & ~timestep.termination))

    def start(self, memory: Memory | Nothing, fresh: Any, seed: tf.Tensor) -> Any:
        """Starts, the game's state [N, ...]: players take theirs of `fresh`, practisers a spot that `seed` draws."""
        if not self._num_practisers:
            return fresh
        drawn = seeds.draw(seed, self._num_practisers) % self._num_players

        def choose(fresh, spots):
            return tf.concat([fresh[: self._num_players], tf.gather(spots, drawn)], axis=0)

        return _map(choose, fresh, memory.spots)

    def remember(
        self, memory: Memory | Nothing, state: Any, crashed: tf.Tensor, is_fresh: tf.Tensor, decision: tf.Tensor
    ) -> Memory | Nothing:
        """Take note of one decision.

        Args:
          memory: what was remembered before.
          state: the game's state after it, [N, ...].
          crashed: [N] bool, it ended an episode for good.
          is_fresh: [N] bool, the state begins an episode.
          decision: [] int64, its number in the run.
        """
        if not self._num_practisers:
            return memory
        crashed, is_fresh = crashed[: self._num_players], is_fresh[: self._num_players]
        is_due = decision % SNAPSHOT_PERIOD == 0

        def shift(snapshots, state):
            newest = state[tf.newaxis, : self._num_players]
            shifted = tf.where(is_due, tf.concat([newest, snapshots[:-1]], axis=0), snapshots)
            return tf.where(_over(is_fresh, newest[0]), newest, shifted)

        def note(spots, snapshots):
            return tf.where(_over(crashed, spots), snapshots[-1], spots)

        return Memory(_map(shift, memory.snapshots, state), _map(note, memory.spots, memory.snapshots))


def _map(function: Any, *structures: Any) -> Any:
    return tf.nest.map_structure(function, *structures)


def _over(flags: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """Flags [M] with axes added, to choose among values [M, ...]."""
    return tf.reshape(flags, [-1] + [1] * (values.shape.rank - 1))
