"""Practice where others crash: some environments begin their episodes shortly before another's last crash.

An agent that plays well seldom dies, so the positions in which it still goes wrong are rare in what it learns from.
Here most environments play as ever and remember where they were some time before their last crash. The others, the
practisers, start there again and again, with new draws, until the player crashes in another place. Q-learning learns
from any distribution of starts. (Tavakoli et al. 2018, "Exploring restart distributions", arXiv:1811.11298; here a
crash is what makes a state worth a restart.)

What is remembered and put back is a `Past`, whole: the game's state and all that the player carries beside it. A stack
of frames is rebuilt from the replay's rows, so the frames before a start have to be there: after the start is drawn,
the environment waits while they go into the replay, one a row (`lead_in`).

Shapes: N environments, of which the first M play and the others practise; K frames in a history. Of a population of P
members each has N of its own, goes back to its own players' crashes, and N and M are read as those of all; M may differ
among members.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfdqn import seeds
from tfdqn.envs import TimeStep
from tfdqn.runtime import loops

SNAPSHOT_PERIOD = 16  # decisions between two snapshots
NUM_SNAPSHOTS = 3  # the oldest is 33 to 48 decisions old: longer ago than the last moment in which a crash is avoidable
PRACTICE_DECISIONS = 64  # a practiser's episode is truncated after so many: the crash lies behind it


class Past(NamedTuple):
    """All that a player goes on from."""

    env_state: Any  # the game's NamedTuple, [N, ...]
    history: tf.Tensor  # [N, K, ...], the newest frame last: that of `env_state`
    agent_state: Any  # what the agent carries, a NamedTuple of [N, ...]

    @classmethod
    def of(cls, env_state: Any, history: tf.Tensor, agent_state: Any) -> Past:
        """From a history [K, N, ...], as rollouts keep it."""
        return cls(env_state, by_environment(history), agent_state)


def by_environment(history: tf.Tensor) -> tf.Tensor:
    """A history [K, N, ...] as [N, K, ...], and back."""
    return tf.transpose(history, [1, 0, *range(2, history.shape.rank)])


class Memory(NamedTuple):
    """What the players remember, and how far the practisers are in going back to it."""

    snapshots: Past  # [NUM_SNAPSHOTS, M, ...], a ring that is written in place
    newest: tf.Tensor  # [] int32, the place of the newest
    taken: tf.Tensor  # [M] int32, how many before the newest are of the episode under way
    spots: Past  # [M, ...], some time before each player's last crash; its first start before any
    lead_in: tf.Tensor  # [N - M] int32, frames of the past that have yet to go into the replay before the next decision


class Nothing(NamedTuple):
    """What is remembered where nobody practises."""


class Practice:
    """Which environments practise, where they start and when they end.

    Args:
      num_envs: N, of one member.
      num_practisers: N - M, of one or, if several numbers, of each member; with 0 of all, every method leaves things as
        they are.
      device: TensorFlow device.
    """

    def __init__(self, num_envs: int, num_practisers: int | Sequence[int], device: str = "/CPU:0"):
        self._is_on_cpu = loops.is_cpu(device)
        self._of_each = np.array(num_practisers, np.int64).reshape(-1)
        self._members, self._num_envs = len(self._of_each), num_envs
        self._num_practisers = int(self._of_each.sum())
        self._num_players = self._members * num_envs - self._num_practisers
        self._is_player = np.arange(num_envs) < (num_envs - self._of_each)[:, np.newaxis]  # [P, N]
        # Members that are alike are cut apart by slices, which cost nothing; others environment by environment.
        self._are_alike = len(set(self._of_each.tolist())) == 1
        self._players_of_one = num_envs - int(self._of_each[0])
        self._places = [np.flatnonzero(flags) for flags in (self._is_player, ~self._is_player)]

    @property
    def is_player(self) -> tf.Tensor:
        """Which environments play on, [N] bool."""
        if not self._are_alike:
            return tf.constant(self._is_player.reshape(-1))
        of_one = tf.range(self._num_envs) < self._players_of_one
        return of_one if self._members == 1 else tf.tile(of_one, [self._members])

    def _players(self, values: tf.Tensor, axis: int = 0) -> tf.Tensor:
        """The players' part, of what there is one of for each environment along that axis, 0 or 1."""
        if not self._are_alike:
            return tf.gather(values, self._places[0], axis=axis)
        return self._part(values, axis, slice(None, self._players_of_one))

    def _practisers(self, values: tf.Tensor, axis: int = 0) -> tf.Tensor:
        if not self._are_alike:
            return tf.gather(values, self._places[1], axis=axis)
        return self._part(values, axis, slice(self._players_of_one, None))

    def _part(self, values: tf.Tensor, axis: int, which: slice) -> tf.Tensor:
        before = [slice(None)] * axis
        if self._members == 1:
            return values[(*before, which)]
        part = self._apart(values, axis)[(*before, slice(None), which)]
        return _merged(part, axis)

    def _joined(self, players: tf.Tensor, practisers: tf.Tensor, axis: int = 0) -> tf.Tensor:
        """The inverse: of both parts one."""
        if not self._are_alike:
            where = np.argsort(np.concatenate(self._places))
            return tf.gather(tf.concat([players, practisers], axis=axis), where, axis=axis)
        if self._members == 1:
            return tf.concat([players, practisers], axis=axis)
        return _merged(tf.concat([self._apart(each, axis) for each in (players, practisers)], axis=axis + 1), axis)

    def _apart(self, values: tf.Tensor, axis: int) -> tf.Tensor:
        """The axis of environments as one of members and one of each's environments."""
        shape = values.shape
        return tf.reshape(values, [*shape[:axis], self._members, shape[axis] // self._members, *shape[axis + 1 :]])

    def begin(self, past: Past) -> Memory | Nothing:
        """The memory at a run's start, from the first starts [N, ...]."""
        if not self._num_practisers:
            return Nothing()
        players = _map(self._players, past)
        snapshots = _map(lambda values: tf.repeat(values[tf.newaxis], NUM_SNAPSHOTS, axis=0), players)
        newest, taken = tf.zeros([], tf.int32), tf.zeros([self._num_players], tf.int32)
        lead_in = tf.zeros([self._num_practisers], tf.int32)
        return Memory(snapshots, newest, taken, players, lead_in)

    def is_leading_in(self, memory: Memory | Nothing) -> tf.Tensor:
        """Which environments play nothing in this decision, as their past goes into the replay, [N] bool."""
        if not self._num_practisers:
            return tf.zeros([self._members * self._num_envs], tf.bool)
        return self._joined(tf.zeros([self._num_players], tf.bool), memory.lead_in > 0)

    def truncate(self, timestep: TimeStep, decisions: tf.Tensor) -> TimeStep:
        """End practice after `PRACTICE_DECISIONS`; `decisions` of each episode so far, [N] int32, this one included."""
        if not self._num_practisers:
            return timestep
        is_long = ~self.is_player & (decisions >= PRACTICE_DECISIONS)
        return timestep._replace(truncation=timestep.truncation | (is_long & ~timestep.termination))

    def go_back(
        self, memory: Memory | Nothing, env_state: Any, fresh: Any, is_over: tf.Tensor, seed: tf.Tensor
    ) -> tuple[Any, Past | None]:
        """What the idle go on from: those whose episode is over, and those that are leading in.

        Args:
          memory: at this decision.
          env_state: the game's state before it, [N, ...], at which those that are leading in wait.
          fresh: the game's state [N, ...] from which players begin.
          is_over: [N] bool, an episode begins.
          seed: draws the practisers' spots.

        Returns:
          The game's state [N, ...], and the practisers' spots [N - M, ...].
        """
        if not self._num_practisers:
            return fresh, None
        drawn = self._drawn(seed)
        past = _map(lambda values: tf.gather(values, drawn), memory.spots)
        begins = self._practisers(is_over)

        def choose(fresh, held, spot):
            return self._joined(self._players(fresh), tf.where(_over(begins, spot), spot, self._practisers(held)))

        return _map(choose, fresh, env_state, past.env_state), past

    def _drawn(self, seed: tf.Tensor) -> tf.Tensor:
        """Which player's spot each practiser takes, of its own member's, [N - M] int64 among all players."""
        most = int(self._of_each.max())
        drawn = seeds.draw(seed, most)
        if self._are_alike:
            drawn %= self._players_of_one
            if self._members > 1:
                first = tf.range(self._members, dtype=drawn.dtype) * self._players_of_one
                drawn += tf.repeat(first, most)
            return drawn
        # A member's draws are the first of its seed, as many as it has practisers.
        is_drawn = np.arange(most) < self._of_each[:, np.newaxis]
        players = self._num_envs - self._of_each
        first = np.repeat(np.cumsum(players) - players, self._of_each)
        return tf.gather(drawn, np.flatnonzero(is_drawn)) % np.repeat(players, self._of_each) + first

    def state_of(self, past: Past | None, initial: Any) -> Any:
        """What the agent carries where an episode begins, [N, ...]: what it did at a practiser's spot."""
        if not self._num_practisers:
            return initial
        return _map(lambda new, spot: self._joined(self._players(new), spot), initial, past.agent_state)

    def lead_in(
        self, memory: Memory | Nothing, history: tf.Tensor, pushed: tf.Tensor, past: Past | None, begins: tf.Tensor
    ) -> tf.Tensor:
        """Histories [K, N, ...] in which those of practisers who have gone back are on the way to what they were.

        The newest frame goes into the replay with each decision, so it is first the oldest of the past and then each
        after it, while those that are yet to come wait as the older ones of the history and pass in front.

        Args:
          memory: at this decision.
          history: before it, [K, N, ...].
          pushed: the same after the newest frame, which is that of the game's state, was pushed.
          past: from `go_back`.
          begins: [N] bool, an episode begins.
        """
        depth = history.shape[0]
        if not self._num_practisers or depth == 1:
            return pushed
        begins = _over(self._practisers(begins), pushed[0])[tf.newaxis]
        newest, past = self._practisers(pushed[-1:], axis=1), by_environment(past.history)
        if depth > 2:  # else what comes after the oldest is the game's own frame
            waits = _over(memory.lead_in > 1, pushed[0])[tf.newaxis]
            newest = tf.where(waits, self._practisers(history[:1], axis=1), newest)
        newest = self._joined(self._players(pushed[-1:], axis=1), tf.where(begins, past[:1], newest), axis=1)
        if depth == 2:
            return tf.concat([pushed[:1], newest], axis=0)
        older = tf.where(begins, past[1:-1], self._practisers(pushed[:-2], axis=1))
        older = self._joined(self._players(pushed[:-2], axis=1), older, axis=1)
        return tf.concat([older, pushed[-2:-1], newest], axis=0)

    def remember(
        self,
        memory: Memory | Nothing,
        past: Past,
        crashed: tf.Tensor,
        begins: tf.Tensor,
        decision: tf.Tensor,
    ) -> Memory | Nothing:
        """Take note of one decision.

        Args:
          memory: what was remembered before.
          past: what each goes on from after it, [N, ...].
          crashed: [N] bool, it ended an episode for good.
          begins: [N] bool, an episode begins with it.
          decision: [] int64, its number in the run.
        """
        if not self._num_practisers:
            return memory
        going_on = tf.maximum(memory.lead_in - 1, 0)
        lead_in = tf.where(self._practisers(begins), past.history.shape[1] - 1, going_on)
        crashed, begins = self._players(crashed), self._players(begins)
        is_due = decision % SNAPSHOT_PERIOD == 0
        newest = tf.where(is_due, (memory.newest + 1) % NUM_SNAPSHOTS, memory.newest)
        taken = tf.where(begins, 0, tf.minimum(memory.taken + tf.cast(is_due, tf.int32), NUM_SNAPSHOTS - 1))
        oldest = (memory.newest - memory.taken) % NUM_SNAPSHOTS

        def take(snapshots, values):
            written = tf.where(_over(is_due | begins, values), self._players(values), tf.gather(snapshots, newest))
            return loops.put(snapshots, newest, written)

        def note(spots, snapshots):
            return tf.where(_over(crashed, spots), self._one_of_each(snapshots, oldest), spots)

        spots = _map(note, memory.spots, memory.snapshots)
        return Memory(_map(take, memory.snapshots, past), newest, taken, spots, lead_in)

    def _one_of_each(self, snapshots: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
        """Of snapshots [NUM_SNAPSHOTS, M, ...] that of a place [M] for each player, [M, ...]."""
        if self._is_on_cpu:
            rows = place * self._num_players + tf.range(self._num_players)
            return tf.gather(tf.reshape(snapshots, [-1, *snapshots.shape[2:]]), rows)
        # Rows of both axes have to lie behind one another: a GPU would first bring all frames into that order.
        found, *others = tf.unstack(snapshots)
        for number, each in enumerate(others, 1):
            found = tf.where(_over(place == number, each), each, found)
        return found


def _map(function: Any, *structures: Any) -> Any:
    return tf.nest.map_structure(function, *structures)


def _merged(values: tf.Tensor, axis: int) -> tf.Tensor:
    """Two axes, from that one on, as one."""
    shape = values.shape
    return tf.reshape(values, [*shape[:axis], shape[axis] * shape[axis + 1], *shape[axis + 2 :]])


def _over(flags: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """Flags [M] with axes added, to choose among values [M, ...]."""
    return tf.reshape(flags, [-1] + [1] * (values.shape.rank - 1))
