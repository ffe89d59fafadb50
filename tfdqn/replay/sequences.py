"""Replay of windows: runs of rows of one environment, with what a recurrent agent carried when each began.

Kapturowski et al. 2019, "Recurrent experience replay in distributed reinforcement learning". Rows lie as in
`FrameReplay`. Window k begins at step k * period, spans `window` rows, and overlaps the next where the period is
shorter; only there the agent's state is kept, one a window and not one a row. Priorities belong to windows; they are
drawn as those of `PrioritizedReplay`.

    row            p       2p       3p       4p       5p         period p
    state          s1      s2       s3       s4       s5
    window 1       |burn-in |learnt           |n_step|
    window 2               |burn-in |learnt           |n_step|
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfdqn.inputs import as_tensor
from tfdqn.replay.prioritized import Priorities
from tfdqn.replay.table import FrameReplay, Row, RowTable, remainder
from tfdqn.runtime import loops


class Windows(NamedTuple):
    """B windows of T rows. An episode may end within one: after its boundary row the next begins, `is_first`."""

    observation: tf.Tensor  # [T, B, ...], frames stacked, of one episode only
    action: tf.Tensor  # [T, B] int32
    reward: tf.Tensor  # [T, B] float32
    discount: tf.Tensor  # [T, B] float32, 0 where the episode terminated, else 1
    is_first: tf.Tensor  # [T, B] bool
    is_boundary: tf.Tensor  # [T, B] bool, nothing was played
    state: Any  # what the agent carried at the first row, a NamedTuple of [B, ...]
    legal: tf.Tensor | tuple = ()  # [T, B, A] bool


class SequenceReplay(FrameReplay):
    """A replay of windows that compiles.

    Args:
      *args, **kwargs: as for `FrameReplay`; its n_step and discount have no meaning here.
      window: rows of a window, T.
      period: rows from one window's start to the next's.
      state: what the agent carries, a NamedTuple of tensors [1, ...] as of one environment.
      alpha, beta, beta_updates: see `tfdqn.replay.prioritized.Priorities`.
    """

    def __init__(
        self,
        *args: Any,
        window: int,
        period: int,
        state: Any,
        capacity: int,
        num_envs: int,
        alpha: float = 0.9,
        beta: float = 0.6,
        beta_updates: int = 100_000,
        **kwargs: Any,
    ):
        capacity = capacity // num_envs // period * period * num_envs  # the ring closes where a window begins
        super().__init__(*args, capacity=capacity, num_envs=num_envs, n_step=1, discount=1.0, **kwargs)
        least = self.lookback + window + period - 1
        if self.length < least:
            raise ValueError(
                f"replay capacity {self.requested_capacity} is too small: {num_envs} environments x {least} rows are "
                f"needed to hold a window of {window} at any time"
            )
        self.window, self.period = window, period
        self._num_slots = self.length // period
        with tf.device(self._device):
            specs = {name: tf.TensorSpec(each.shape[1:], each.dtype, name) for name, each in state._asdict().items()}
            self._state_type, self._states = type(state), RowTable(specs, self._num_slots, self.num_envs)
            self._priorities = Priorities(self._num_slots, self.num_envs, self.members, alpha, beta, beta_updates)

    @property
    def state(self) -> dict[str, tf.Variable]:
        return {
            **super().state,
            **{f"state_{name}": variable for name, variable in self._states.fields.items()},
            **self._priorities.state,
        }

    def steps_to_sample(self, num_rows: int) -> int:
        first = -(-self.lookback // self.period)
        return max(first * self.period + self.window, -(-num_rows // self.envs_of_one))

    def can_sample(self) -> tf.Tensor:
        """Whether a whole window is held, [] bool."""
        return self._windows_held()[1] > 0

    def _windows_held(self) -> tuple[tf.Tensor, tf.Tensor]:
        """The first window held whole, with the rows that its first stack reaches, and how many are, [] int64."""
        newest = self._get_last_id()
        oldest = newest + 1 - tf.minimum(newest + 1, self.length)
        first = -(-(oldest + self.lookback) // self.period)
        return first, (newest + 1 - self.window) // self.period - first + 1

    def add_with_state(self, row: Row, agent_state: Any) -> None:
        """Write one row for every environment, and what the agent carried at it, [N, ...]."""
        self.add_batch(row)
        step = self._get_last_id()
        begins, slot = step % self.period == 0, step // self.period % self._num_slots
        # Written at every step, in place, and as it was where no window begins: a condition would copy the table.
        envs = slot * self.num_envs + tf.range(self.num_envs, dtype=tf.int64)
        values = {
            name: tf.where(begins, value, self._states.read(name, envs))
            for name, value in agent_state._asdict().items()
        }
        self._states.write(slot, values)
        priorities = self._priorities
        held = priorities.table.sparse_read(slot[None])[0]
        loops.put_into(
            priorities.table, slot, tf.where(begins, tf.broadcast_to(priorities.of_the_new(), held.shape), held)
        )

    def sample_windows(self, seed: tf.Tensor, batch_size: int) -> tuple[Windows, tf.Tensor, tf.Tensor]:
        """Draw windows, in proportion to their priorities.

        Args:
          seed: [2] int64; the same seed and contents give the same batch. Of a population, [P, 2].
          batch_size: B, of each: of a population there are P * B windows, the first member's first.

        Returns:
          The windows, their weights [B] float32 (0 for what does not count, where none is held), and index [B] int64
          (number * num_envs + environment) for `update`.
        """
        seed = as_tensor(seed, tf.int64, [2] if np.ndim(seed) == 1 else [self.members, 2], "replay: seed")
        first, count = self._windows_held()
        age = (tf.range(self._num_slots, dtype=tf.int64) - first) % self._num_slots
        mass = tf.where((age < count)[:, None], self._priorities.table, 0.0)
        place, weights = self._priorities.draw(mass, seed, batch_size)
        place = tf.reshape(self._among_all(place), [-1])
        slot, env = place // self.num_envs, place % self.num_envs
        number = first + (slot - first) % self._num_slots
        state = self._state_type(*(self._states.read(name, place) for name in self._state_type._fields))
        return self._windows(number * self.period, env, state), weights, number * self.num_envs + env

    def _windows(self, start: tf.Tensor, env: tf.Tensor, state: Any) -> Windows:
        """The windows whose first rows are of these steps and environments, [B] each."""
        held = tf.maximum(self.num_rows, self.num_envs)
        # From the oldest row that the first stack reaches; the steps before the first one ever do not count.
        steps = tf.maximum(start + tf.range(-self.lookback, self.window, dtype=tf.int64)[:, None], 0)
        rows = remainder(steps * self.num_envs + env, held)  # [lookback + T, B]

        def read(name):
            return self._data_table.read(name, rows[self.lookback :])

        return Windows(
            observation=self._stacks(rows),
            action=read("action"),
            reward=read("reward"),
            discount=read("discount"),
            is_first=read("is_first"),
            is_boundary=read("is_boundary"),
            state=state,
            legal=read("legal") if "legal" in self._field_specs else (),
        )

    def _stacks(self, rows: tf.Tensor) -> tf.Tensor:
        """Observations [T, B, ...], from the table's rows [lookback + T, B]."""
        if self.stack == 1:
            frames = self._data_table.read("frame", rows)[:, :, tf.newaxis]  # [T, B, 1, ...]
        else:
            place = tf.range(self.window)[:, None]  # of each row of the window, [T, 1]
            back = tf.range(self.lookback + 1)[None, :]
            reach = self.lookback + place - back  # [T, lookback + 1], the rows that a stack may reach
            begins = tf.gather(self._data_table.read("is_first", rows), reach)  # [T, lookback + 1, B]
            # How far back the episode's first row is; out of reach, nothing is clipped.
            far = tf.reduce_min(tf.where(begins, back[..., None], self.lookback), axis=1)  # [T, B]
            lags = tf.range(self.lookback, -1, -self.stride)
            source = self.lookback + place[..., None] - tf.minimum(lags, far[..., None])  # [T, B, stack]
            rows = tf.gather(tf.transpose(rows), tf.transpose(source, [1, 0, 2]), axis=1, batch_dims=1)
            frames = self._data_table.read("frame", tf.transpose(rows, [1, 0, 2]))  # [T, B, stack, ...]
        if len(self.frame.shape) == 2:
            return tf.transpose(frames, [0, 1, 3, 4, 2])
        return tf.concat(tf.unstack(frames, axis=2), axis=-1)

    def update(self, index: tf.Tensor, priority: tf.Tensor) -> None:
        """Set the priorities of windows that were just learnt from.

        Args:
          index: [B] int64, as `sample_windows` returned it, with nothing added since.
          priority: [B] float32, from 0.
        """
        number, env = index // self.num_envs, index % self.num_envs
        place = tf.stack([number % self._num_slots, env], axis=-1)
        first, count = self._windows_held()
        self._priorities.update(place, priority, (number >= first) & (number < first + count))

    def continue_from(self, updates: int) -> None:
        """Learning goes on after so many updates with an empty buffer: beta goes on from there."""
        self._priorities.num_updates.assign(updates)

    def sample(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("SequenceReplay holds windows, no transitions: use sample_windows(...).")
