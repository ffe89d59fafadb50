"""Prioritized replay on the device: transitions that surprised the learner are drawn more often.

Schaul et al. 2016, proportional variant. Transition i is drawn with P(i) = p_i / sum_k p_k, where
p_i = (|TD error| + PRIORITY_FLOOR) ** alpha, and counts in the loss by (P(i) K) ** -beta over the largest of
the batch, K transitions being drawn from. beta rises linearly to 1. What is new has the largest priority seen so far.

In place of the paper's sum tree, which is a chain of dependent reads and writes, priorities lie in one flat table and
their sums over runs and over runs of runs are taken afresh for each batch: one pass over 4 bytes a row, in which rows
that are no anchors now count as 0, and nothing that could drift.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tfdqn import seeds
from tfdqn.inputs import as_float32, as_tensor
from tfdqn.replay.table import FrameReplay, Row
from tfdqn.runtime import loops

PRIORITY_FLOOR = 1e-3  # of |TD error|: what has no error now must be drawn again some day


class Priorities:
    """How likely things in a table [S, N] are to be drawn, of N environments of all members.

    Args:
      length: S.
      num_envs, members: N, and P of a population, each of which draws from its own N / P environments alone.
      alpha: 0 draws uniformly, 1 in proportion to the TD error.
      beta: at first; how far the weights undo the bias of the draws.
      beta_updates: updates over which beta rises to 1. Of a population whose members differ in one of the three, [P].

    Attributes:
      table: [S, N] float32; 0: never drawn.
      state: all that a checkpoint needs, by stable names.

    Raises:
      ValueError: a number is out of range.
    """

    def __init__(self, length: int, num_envs: int, members: int, alpha: Any, beta: Any, beta_updates: Any):
        for name, number in {"alpha": alpha, "beta": beta}.items():
            if not np.all((0 <= np.asarray(number)) & (np.asarray(number) <= 1)):
                raise ValueError(f"replay: {name} is {number}, but must lie between 0 and 1.")
        if np.any(np.asarray(beta_updates) < 1):
            raise ValueError(f"replay: beta_updates is {beta_updates}, but must be at least 1.")
        self._members, self._num_envs = members, num_envs
        self._alpha, self._beta, self._beta_updates = alpha, beta, beta_updates
        self.table = tf.Variable(tf.zeros([length, num_envs]), trainable=False, name="priority")
        largest = tf.ones([] if members == 1 else [members])
        self._largest = tf.Variable(largest, trainable=False, name="max_priority")
        self.num_updates = tf.Variable(0, trainable=False, dtype=tf.int64, name="num_updates")

    @property
    def state(self) -> dict[str, tf.Variable]:
        return {"priority": self.table, "max_priority": self._largest, "num_updates": self.num_updates}

    def of_the_new(self) -> tf.Tensor:
        """What something new has, [N] or [] float32."""
        return self._of_rows(self._largest, self._num_envs)

    def draw(self, mass: tf.Tensor, seed: tf.Tensor, batch_size: int) -> tuple[tf.Tensor, tf.Tensor]:
        """Places in a table [S, N] of masses, one from each of B equal parts of their sum.

        Args:
          mass: what there is of `table` to be drawn now.
          seed: [2] int64; of a population, [P, 2].
          batch_size: B.

        Returns:
          Places [B] int64; of a population [P, B], each in the table of that member alone, [S, N / P]. And weights [B]
          float32, or [P * B].
        """
        beta = risen(self._beta, self.num_updates, self._beta_updates)
        if self._members == 1:
            place, share = draw_in_proportion(tf.reshape(mass, [-1]), seed, batch_size)
            return place, importance(share, beta)
        # One member's after the other's: their masses are no longer than a batch's frames by far.
        each = [tf.reshape(part, [-1]) for part in tf.split(mass, self._members, axis=1)]
        drawn = [draw_in_proportion(*given, batch_size) for given in zip(each, tf.unstack(seed), strict=True)]
        beta = tf.broadcast_to(beta, [self._members])
        weights = tf.concat([importance(share, beta[i]) for i, (_, share) in enumerate(drawn)], axis=0)
        return tf.stack([place for place, _ in drawn]), weights

    def update(self, place: tf.Tensor, priority: tf.Tensor, is_held: tf.Tensor) -> None:
        """Set the priorities of what was just learnt from.

        Args:
          place: [B, 2] int64, in `table`; of a population, B is that of all members, the first member's first.
          priority: [B] float32, absolute TD errors; `PRIORITY_FLOOR` is added, and the sum raised to alpha.
          is_held: [B] bool; what is not keeps what it has. Nor does that change which has 0.
        """
        held = tf.gather_nd(self.table.read_value(), place)
        is_held &= held > 0
        value = tf.where(is_held, (priority + PRIORITY_FLOOR) ** self._of_rows(self._alpha, place.shape[0]), 0.0)
        apart = tf.reshape(value, [-1] if self._members == 1 else [self._members, -1])
        self._largest.assign(tf.maximum(self._largest, tf.reduce_max(apart, axis=-1)))
        self.table.scatter_nd_update(place, tf.where(is_held, value, held))
        self.num_updates.assign_add(1)

    def _of_rows(self, each: Any, count: int) -> Any:
        """What there may be one of for each member, for each of so many rows of all."""
        if not len(np.shape(each)):
            return each
        return tf.repeat(as_float32(each), count // self._members)


class PrioritizedReplay(FrameReplay):
    """A `FrameReplay` that draws in proportion to priorities.

    Args:
      *args, **kwargs: as for `FrameReplay`.
      alpha, beta, beta_updates: see `Priorities`.
    """

    def __init__(self, *args: Any, alpha: float = 0.6, beta: float = 0.4, beta_updates: int = 100_000, **kwargs: Any):
        super().__init__(*args, **kwargs)
        with tf.device(self._device):
            self._priorities = Priorities(self.length, self.num_envs, self.members, alpha, beta, beta_updates)

    @property
    def state(self) -> dict[str, tf.Variable]:
        return {**super().state, **self._priorities.state}

    def _add_batch(self, items: Row):
        super()._add_batch(items)
        slot = self._get_last_id() % self.length
        is_boundary = as_tensor(items.is_boundary, tf.bool, [self.num_envs], "replay: row.is_boundary")
        priority = tf.where(is_boundary, 0.0, self._priorities.of_the_new())  # a boundary is no anchor
        loops.put_into(self._priorities.table, slot, priority)

    def update(self, index: tf.Tensor, priority: tf.Tensor) -> None:
        """Set the priorities of transitions that were just learnt from.

        Args:
          index: [B] int64, as `sample` returned it, with nothing added since.
          priority: [B] float32, absolute TD errors.
        """
        index = as_tensor(index, tf.int64, [None], "replay: index")
        priority = as_tensor(priority, tf.float32, index.shape, "replay: priority")
        place = tf.stack([index // self.num_envs % self.length, index % self.num_envs], axis=-1)
        first, num_anchors = self._anchor_range()
        # A draw of weight 0 may name a boundary or a row whose window is not held: its error means nothing.
        is_anchor = (index >= first * self.num_envs) & (index < (first + num_anchors) * self.num_envs)
        self._priorities.update(place, priority, is_anchor)

    def continue_from(self, updates: int) -> None:
        """Learning goes on after so many updates with an empty buffer: beta goes on from there."""
        self._priorities.num_updates.assign(updates)

    def _draw(self, seed, batch_size, first, num_anchors):
        """Anchors by the inverse of the cumulated priorities, one from each of B equal parts of their sum."""
        age = (tf.range(self.length, dtype=tf.int64) - first) % self.length
        mass = tf.where((age < num_anchors)[:, None], self._priorities.table, 0.0)
        row, weights = self._priorities.draw(mass, seed, batch_size)
        # The table's row as a number from the first anchor on, as for the uniform draw.
        slot, env = row // self.envs_of_one, row % self.envs_of_one
        anchor = self._among_all((slot - first) % self.length * self.envs_of_one + env)
        return tf.reshape(anchor, [-1]), weights


def draw_in_proportion(mass: tf.Tensor, seed: tf.Tensor, batch_size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Places of masses [R], one from each of B equal parts of their sum, [B] int64; and each one's share of that sum.

    Rounding may lead past the last mass, and there may be none: such a place has the share 0, and does not count.
    """
    # Three levels, each of runs of as many parts: masses, sums of these, sums of those.
    size, width = mass.shape[0], 1
    while width**3 < size:
        width += 1
    leaves = tf.reshape(tf.pad(mass, [[0, width**3 - size]]), [width**2, width])
    branches = tf.reshape(tf.reduce_sum(leaves, axis=1), [width, width])
    trunk = tf.reduce_sum(branches, axis=1)
    total = tf.reduce_sum(trunk)

    bits = seeds.draw(seed, batch_size) % 2**24
    share = (tf.range(batch_size, dtype=tf.float32) + tf.cast(bits, tf.float32) / 2.0**24) / batch_size
    place, rest = _descend(tf.broadcast_to(trunk, [batch_size, width]), share * total)
    for level in (branches, leaves):
        part, rest = _descend(tf.gather(level, place), rest)
        place = place * width + part
    place = tf.minimum(place, size - 1)
    drawn = tf.gather(mass, place)
    return place, tf.where(drawn > 0, drawn / total, 0.0)


def importance(share: tf.Tensor, beta: tf.Tensor) -> tf.Tensor:
    """Weights [B] of what was drawn with such probabilities [B], the largest 1; 0 where the share is."""
    is_drawn = share > 0
    weights = tf.where(is_drawn, tf.where(is_drawn, share, 1.0) ** -beta, 0.0)
    return tf.math.divide_no_nan(weights, tf.reduce_max(weights))


def risen(beta: float, num_updates: tf.Tensor, beta_updates: int) -> tf.Tensor:
    """beta after so many updates [] int64, on its way to 1 after `beta_updates`, [] float32."""
    progress = tf.cast(tf.minimum(num_updates, beta_updates), tf.float32) / as_float32(beta_updates)
    return as_float32(beta) + as_float32(1.0 - beta) * progress


def _descend(masses: tf.Tensor, rest: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """In each row of masses [B, K], the first place [B] int64 whose cumulated mass exceeds `rest` [B], and what of
    `rest` reaches into that place."""
    ends = tf.cumsum(masses, axis=1)
    place = tf.minimum(tf.reduce_sum(tf.cast(ends <= rest[:, None], tf.int64), axis=1), masses.shape[1] - 1)
    starts = tf.gather(ends - masses, place, axis=1, batch_dims=1)
    return place, tf.maximum(rest - starts, 0.0)
