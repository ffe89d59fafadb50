"""Replay on the device: every frame is stored once; stacks and n-step returns are rebuilt when a batch is drawn.

`FrameReplay` is TF-Agents' `TFUniformReplayBuffer` made safe for XLA: no lock, no hidden random state, no row ids in a
table of their own, and every write is one slice. The same methods run op by op, in a `tf.function` and under
`jit_compile=True`, and agree.

How rows lie. All environments step together, so time is the slow axis: environment e's row of step t is row
`(t mod length) * num_envs + e` of each table. A step is then one slice of `num_envs` neighbouring rows, which XLA
writes in place. (The stock buffer keeps a block for each environment: a step is `num_envs` scattered rows.)

What a sampled window is. The *anchor* is the row whose action the transition is about:

    row      a-6  a-5  a-4  a-3  a-2  a-1   a   a+1  a+2  a+3        stack 4, stride 2, n_step 3
    stack     x         x         x         x                        observation
                             x         x         x         x         next observation
    rewards                                 x    x    x

Rows of an episode: first frame (`is_first`), ..., last decision, then a boundary row that holds the last frame. The
row after a boundary begins the next episode, so a window reads nothing behind the first boundary after its anchor.
An episode that goes on from an earlier one begins with boundary rows, too: they hold the frames before its first
decision, which its stacks reach, and are no transitions (see `tfdqn.programs.restarts`).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfdqn import seeds
from tfdqn.dependencies import require_tf_agents
from tfdqn.envs.spec import ObservationSpec
from tfdqn.inputs import as_float32, as_tensor
from tfdqn.replay import returns
from tfdqn.replay.transitions import Row, Transition
from tfdqn.runtime import loops

require_tf_agents()
from tf_agents.replay_buffers import tf_uniform_replay_buffer  # noqa: E402

# Candidate anchors drawn for one transition. A boundary is no anchor; if all candidates are boundaries the transition
# gets weight 0. At one boundary in nine rows (catch8) that is one transition in 40 million, and one in 256 at the
# worst, when every episode is one decision long.
CANDIDATES = 8


# A GPU keeps int32 variables on the host, and outside XLA it cannot look up rows of bool variables.
STORED_TYPE = {tf.int32: tf.int64, tf.bool: tf.uint8}


PLACES = np.arange(8, dtype=np.uint8)  # of the flags that share a byte, the first in the lowest bit


def _pack(flags: tf.Tensor) -> tf.Tensor:
    """Flags [N, ...] bool, eight a byte: [N, K] uint8."""
    flat = tf.cast(tf.reshape(flags, [flags.shape[0], -1]), tf.uint8)
    flat = tf.reshape(tf.pad(flat, [[0, 0], [0, -flat.shape[1] % 8]]), [flat.shape[0], -1, 8])
    return tf.reduce_sum(tf.bitwise.left_shift(flat, tf.broadcast_to(PLACES, flat.shape)), axis=-1)


def _unpack(packed: tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
    """Its inverse on rows of any shape, [..., K] uint8: [..., *shape] bool."""
    bits = tf.bitwise.bitwise_and(tf.bitwise.right_shift(packed[..., tf.newaxis], PLACES), np.uint8(1))
    rows = packed.shape[:-1]
    flags = tf.reshape(bits, [*rows, -1])[..., : math.prod(shape)]
    return tf.cast(tf.reshape(flags, [*rows, *shape]), tf.bool)


def remainder(numbers: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """`numbers` modulo `size`, for numbers from 0 on: the cheaper of two operations where XLA compiles it.

    Outside XLA it is the one that a GPU has for int64, too.
    """
    return tf.truncatemod(numbers, size) if loops.is_in_xla() else numbers % size


def _fold(numbers: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """`numbers` modulo `size`, for numbers below 2 * size."""
    return tf.where(numbers >= size, numbers - size, numbers)


class RowTable(tf.Module):
    """One variable [length, N, ...] for each field of a row: a step of all environments is one slice.

    Frames of flags lie there as bits: a batch copies an eighth as much, which is quicker (docs/performance.md).
    """

    def __init__(self, specs: dict[str, tf.TensorSpec], length: int, num_envs: int):
        super().__init__(name="row_table")
        self.num_envs = num_envs
        self._packed = {name: spec for name, spec in specs.items() if name == "frame" and spec.dtype == tf.bool}
        stored = {
            name: tf.TensorSpec([-(-spec.shape.num_elements() // 8)], tf.uint8) for name, spec in self._packed.items()
        }
        # The zeros become the variable's own buffer, so building needs the memory of the table once.
        self.fields = {
            name: tf.Variable(
                tf.zeros([length, num_envs, *spec.shape], STORED_TYPE.get(spec.dtype, spec.dtype)),
                trainable=False,
                name=name,
            )
            for name, spec in (specs | stored).items()
        }
        self._specs = specs

    def variables(self) -> list[tf.Variable]:
        """The variables in the order of the fields (a method, as in TF-Agents' `Table`)."""
        return list(self.fields.values())

    def read(self, field: str, rows: tf.Tensor) -> tf.Tensor:
        """`field` of row `slot * num_envs + environment`, for rows of any shape; copies those rows only."""
        variable = self.fields[field]
        if loops.is_in_xla():
            values = tf.gather(tf.reshape(variable, [-1, *variable.shape[2:]]), rows)  # the reshape is free here
        else:
            # Outside XLA a variable that has been scattered to is copied whole when it is read as a tensor. This
            # operation looks into it instead, and is the one that XLA does not know.
            values = variable.gather_nd(tf.stack([rows // self.num_envs, rows % self.num_envs], axis=-1))
        if field in self._packed:
            return _unpack(values, self._packed[field].shape)
        return tf.cast(values, self._specs[field].dtype)

    def write(self, slot: tf.Tensor, values: dict[str, tf.Tensor]) -> None:
        """Overwrite one step of all environments, in place."""
        for name, variable in self.fields.items():
            value = _pack(values[name]) if name in self._packed else tf.cast(values[name], variable.dtype)
            loops.put_into(variable, slot, value)


class FrameReplay(tf_uniform_replay_buffer.TFUniformReplayBuffer):
    """A uniform replay buffer of single frames that compiles.

    Args:
      frame: shape and type of one frame: a screen (H, W), planes (H, W, C) or a vector (D,); a shape alone is of uint8.
      num_envs: environments that step together, N.
      capacity: rows over all environments; rounded down to a multiple of `num_envs` (`capacity` is the number kept,
        `requested_capacity` the number asked for).
      stack: frames in an observation.
      stride: rows between two frames of a stack.
      n_step: decisions in a return; a truncation inside the window ends the return early.
      discount: of one decision, gamma; of a population whose members differ in it, [P].
      device: where the tables live; None leaves the choice to TensorFlow.
      column_major: keep each frame column by column. What goes in and comes out is the same; a network that reads whole
        columns (`tfdqn.networks.layers.ColumnDense`) then takes them without moving a byte.
      legal_actions: A, of a game whose rules do not always allow every action: rows and transitions then say which.
      return_lambda: below 1, returns are the mix of those over 1 to `n_step` decisions (see
        `tfdqn.replay.returns.Lambda`), and transitions have `n_step` next observations.
      members: P, of a population, each of which has `num_envs` environments and `capacity` rows, and draws from its own
        alone. Rows are then those of all P * N environments, and batches of all members, [P * B].

    Raises:
      ValueError: where the capacity does not hold one window for every environment, or a number is out of range.
    """

    def __init__(
        self,
        frame: ObservationSpec | tuple[int, ...],
        num_envs: int,
        capacity: int,
        stack: int,
        stride: int,
        n_step: int,
        discount: float,
        device: str | None = None,
        column_major: bool = False,
        legal_actions: int | None = None,
        members: int = 1,
        return_lambda: float = 1.0,
    ):
        for name, number in {"num_envs": num_envs, "stack": stack, "stride": stride, "n_step": n_step}.items():
            if operator.index(number) < 1:
                raise ValueError(f"replay: {name} is {number}, but must be at least 1.")
        if not np.all((0 <= np.asarray(discount)) & (np.asarray(discount) <= 1)):
            raise ValueError(f"replay: discount is {discount}, but must lie between 0 and 1.")
        if not 0 <= return_lambda <= 1:
            raise ValueError(f"replay: return_lambda is {return_lambda}, but must lie between 0 and 1.")
        self._returns = returns.NStep() if return_lambda == 1 else returns.Lambda(return_lambda)
        self.envs_of_one, self.members = num_envs, members
        num_envs, capacity = num_envs * self.members, capacity * self.members
        self.num_envs, self.stack, self.stride, self.n_step, self.discount = num_envs, stack, stride, n_step, discount
        self.frame = frame if isinstance(frame, ObservationSpec) else ObservationSpec(frame)
        self.column_major = column_major and len(self.frame.shape) == 2
        self.lookback = (stack - 1) * stride  # rows before the anchor that its stack may reach
        self.length = capacity // num_envs  # steps kept
        self.requested_capacity = capacity
        window = self.lookback + 1 + n_step
        if self.length < window:
            raise ValueError(
                f"replay capacity {capacity} is too small: {num_envs} environments x a window of {window} rows "
                f"(stack {stack}, stride {stride}, {n_step}-step) need at least {num_envs * window}."
            )
        spec = Row(
            frame=tf.TensorSpec(self.frame.shape, self.frame.dtype, "frame"),
            action=tf.TensorSpec([], tf.int32, "action"),
            reward=tf.TensorSpec([], tf.float32, "reward"),
            discount=tf.TensorSpec([], tf.float32, "discount"),
            is_first=tf.TensorSpec([], tf.bool, "is_first"),
            is_boundary=tf.TensorSpec([], tf.bool, "is_boundary"),
            legal=() if legal_actions is None else tf.TensorSpec([legal_actions], tf.bool, "legal"),
        )
        self._field_specs = {name: each for name, each in spec._asdict().items() if each != ()}
        super().__init__(spec, num_envs, self.length, scope="FrameReplay", device=device, table_fn=self._make_table)

    def _make_table(self, spec, num_rows) -> RowTable:
        # The base class asks for a table of rows and one of row ids; ids follow from `last_id`, so the second is empty.
        is_id_table = isinstance(spec, tf.TypeSpec)
        shape = self.frame.shape[::-1] if self.column_major else self.frame.shape
        specs = {**self._field_specs, "frame": tf.TensorSpec(shape, self.frame.dtype, "frame")}
        return RowTable({} if is_id_table else specs, self.length, self.num_envs)

    # What the buffer holds.

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """The shape of one frame."""
        return self.frame.shape

    @property
    def capacity(self) -> int:
        """Rows over all environments that the buffer keeps."""
        return self.length * self.num_envs

    @property
    def state(self) -> dict[str, tf.Variable]:
        """Everything that a checkpoint needs, by stable names."""
        return {**self._data_table.fields, "last_id": self._last_id}

    @property
    def num_rows(self) -> tf.Tensor:
        """Rows held now, over all environments, [] int64 (the same as `num_frames()`)."""
        return self.num_frames()

    @property
    def num_steps(self) -> tf.Tensor:
        """Rows ever written for each environment, [] int64."""
        return self._get_last_id() + 1

    def steps_to_sample(self, num_rows: int) -> int:
        """How many rows must have been written for each environment to hold a window, and `num_rows` of one agent."""
        return max(self.lookback + self.n_step + 1, -(-num_rows // self.envs_of_one))

    def holds(self, num_rows: int) -> tf.Tensor:
        """Whether there are so many rows of each agent and one can draw from them, [] bool."""
        return self.can_sample() & (self.num_rows // self.members >= num_rows)

    def can_sample(self) -> tf.Tensor:
        """Whether the rows held span at least one window, [] bool."""
        _, num_anchors = self._anchor_range()
        return num_anchors > 0

    def _anchor_range(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Step of the first possible anchor and the number of steps that can be one (below 1: none), [] int64.

        An anchor has `lookback` stored steps before it and `n_step` stored steps after it, so no window touches a step
        that is not written yet or has been overwritten.
        """
        newest = self._get_last_id()
        held = tf.minimum(newest + 1, self.length)
        first = newest + 1 - held + self.lookback
        return first, held - self.lookback - self.n_step

    # Writing.

    def add(self, row: Row):
        """Write one row for every environment."""
        return self.add_batch(row)

    def _add_batch(self, items: Row):
        values = {}
        for name, spec in self._field_specs.items():
            values[name] = as_tensor(
                getattr(items, name), spec.dtype, [self.num_envs, *spec.shape], f"replay: row.{name}"
            )
        if self.column_major:
            columns = tf.linalg.matrix_transpose(values["frame"])
            # On a GPU an update that is not in a loop could become one with the next decision: XLA would put the frames
            # of both behind one another, and turn the whole table to where frames need not be transposed to be written.
            flat = tf.reshape(columns, [self.num_envs, -1])
            flat, values["action"] = loops.at_once([flat, values["action"]])
            values["frame"] = tf.reshape(flat, columns.shape)
        slot = self._increment_last_id() % self.length
        self._data_table.write(slot, values)

    def update(self, index: tf.Tensor, priority: tf.Tensor) -> None:
        """Take note of new priorities [B]: nothing to do in a uniform buffer."""

    def continue_from(self, updates: int) -> None:
        """Learning goes on after so many updates with an empty buffer: nothing to do in a uniform one."""

    # Sampling.

    def sample(self, seed: tf.Tensor, batch_size: int) -> tuple[Transition, tf.Tensor, tf.Tensor]:
        """Draw transitions uniformly, with replacement, from all anchors whose window is held.

        Args:
          seed: [2] int64; the same seed and contents give the same batch. Of a population, [P, 2].
          batch_size: B, of each.

        Returns:
          The transitions, their weights [B] float32 and index [B] int64 (step * num_envs + environment, counted from
          the first row ever written). A weight is 1, or 0 for an entry that is no transition and must not count:
          where all candidates were boundaries, or no window is held yet. Given weight 1 an entry is exactly uniform.

        Raises:
          ValueError: if no window is held. Only outside a `tf.function`; compiled code returns weights of 0.
            A batch size below 1, or a seed of another shape.
        """
        if operator.index(batch_size) < 1:
            raise ValueError(f"replay: batch_size is {batch_size}, but must be at least 1.")
        seed = as_tensor(seed, tf.int64, [2] if np.ndim(seed) == 1 else [self.members, 2], "replay: seed")
        first, num_anchors = self._anchor_range()
        if tf.executing_eagerly() and num_anchors < 1:
            raise ValueError(
                f"replay holds {int(self.num_rows)} rows, too few to sample: {self.num_envs} environments x a window "
                f"of {self.lookback + 1 + self.n_step} rows are needed."
            )
        anchor, weights = self._draw(seed, batch_size, first, num_anchors)
        held = tf.maximum(self.num_rows, self.num_envs)
        # The ring closes at `capacity`, and so at the rows held, whether it is full or has not begun to wrap.
        row = remainder(first % self.length * self.num_envs + anchor, held)
        return self._transition(row, held), weights, first * self.num_envs + anchor

    def _draw(
        self, seed: tf.Tensor, batch_size: int, first: tf.Tensor, num_anchors: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Choose anchors: their numbers from step `first` on, [B] int64, and weights [B] float32.

        Of a population, each member's from the rows of its own environments, [P * B].
        """
        # Row `first * num_envs + draw` of all rows ever written is the anchor: one integer for step and environment.
        # (The modulus of 63 random bits: a bias below 1e-11 up to 16 million rows.) Where it is a boundary the next
        # candidate lies a random shift further. The batch shares the shifts: few draws, and each entry still uniform.
        num_draws = tf.maximum(num_anchors, 1) * self.envs_of_one
        randoms = seeds.draw(seed, batch_size + CANDIDATES - 1) % num_draws
        if self.members > 1:
            randoms = tf.reshape(randoms, [self.members, -1])
        draw, shift = randoms[..., :batch_size], randoms[..., batch_size:]
        shift = tf.concat([tf.zeros_like(shift[..., :1]), shift], axis=-1)  # [CANDIDATES], or [P, CANDIDATES]
        origin = first % self.length * self.num_envs
        held = tf.maximum(self.num_rows, self.num_envs)
        candidates = _fold(draw + tf.transpose(shift)[..., None], num_draws)  # [CANDIDATES, B]
        is_boundary = self._data_table.read("is_boundary", _fold(origin + self._among_all(candidates), held))
        number = tf.reshape(tf.range(CANDIDATES, dtype=tf.int64), [-1] + [1] * len(draw.shape))
        chosen = tf.reduce_min(tf.where(is_boundary, tf.constant(CANDIDATES, tf.int64), number), axis=0)  # [B]
        is_anchor = (chosen < CANDIDATES) & (num_anchors > 0)
        steps = tf.gather(shift, tf.minimum(chosen, CANDIDATES - 1), axis=-1, batch_dims=len(shift.shape) - 1)
        anchor = self._among_all(_fold(draw + steps, num_draws))
        return tf.reshape(anchor, [-1]), tf.reshape(tf.cast(is_anchor, tf.float32), [-1])

    def _among_all(self, numbers: tf.Tensor) -> tf.Tensor:
        """Numbers [..., P, B] of rows of each member alone, as those among all members' rows; alone as they are."""
        if self.members == 1:
            return numbers
        step, env = numbers // self.envs_of_one, numbers % self.envs_of_one
        first = tf.range(self.members, dtype=tf.int64)[:, None] * self.envs_of_one
        return step * self.num_envs + first + env

    def _transition(self, anchor: tf.Tensor, held: tf.Tensor) -> Transition:
        """The transitions whose anchors are at the table's rows `anchor` [B]."""

        def wrap(rows):
            # A true remainder, by a number known only at run time: XLA takes it for expensive, so where it has two
            # users it is computed once and kept. Cheaper arithmetic would be repeated for every byte of every frame
            # gathered: catch8, batch 32, 64 environments took 158 us in place of 10.
            return remainder(rows + held, held)

        def read(field, offsets):  # offsets in steps from the anchor, [K, 1]
            return self._data_table.read(field, wrap(anchor + offsets * self.num_envs))

        ahead = tf.range(self.n_step, dtype=tf.int64)[:, None]
        rewards, discounts = read("reward", ahead), read("discount", ahead)  # [n, B]
        is_boundary = read("is_boundary", ahead)
        gamma = self.discount
        if len(np.shape(gamma)):
            gamma = tf.repeat(as_float32(gamma), anchor.shape[0] // self.members)
        reward, discount, ends = self._returns.of(rewards, discounts, is_boundary, gamma)

        # The episode's first row as steps from the anchor; where it is out of reach there is nothing to clip.
        back = tf.range(-self.lookback, 1, dtype=tf.int64)[:, None]
        start = tf.reduce_max(tf.where(read("is_first", back), back, back[0]), axis=0)  # [B]

        # All stacks, the anchor's and each end's, channel by channel, as table rows.
        lags = tf.range(self.lookback, -1, -self.stride, dtype=tf.int64)[:, None]
        offsets = tf.stack([tf.zeros_like(ends[0]), *ends])[:, None, :] - lags  # [1 + K, stack, B]
        rows, *end_rows = tf.unstack(wrap(anchor + tf.maximum(offsets, start) * self.num_envs))

        def frames(rows):  # [stack, B]
            held = self._data_table.read("frame", tf.transpose(rows))  # [B, stack, ...]
            if len(self.frame.shape) == 2:
                return tf.transpose(held, [0, 3, 2, 1] if self.column_major else [0, 2, 3, 1])
            return tf.concat(tf.unstack(held, axis=1), axis=-1)

        transition = Transition(
            observation=frames(rows),
            action=self._data_table.read("action", anchor),
            reward=reward,
            discount=discount,
            next_observation=self._returns.at_ends(end_rows, frames),
        )
        if "legal" not in self._field_specs:
            return transition

        def legal(rows):
            return self._data_table.read("legal", rows)

        following = [wrap(anchor + end * self.num_envs) for end in ends]
        return transition._replace(legal=legal(anchor), next_legal=self._returns.at_ends(following, legal))

    # What a TF-Agents user may call, and what would be wrong here.

    def _gather_all(self) -> Row:
        """All rows held, oldest first, [N, T, ...]: a copy of the whole buffer."""
        newest = self._get_last_id()
        steps = tf.range(newest + 1 - tf.minimum(newest + 1, self.length), newest + 1)
        rows = (steps % self.length)[None, :] * self.num_envs + tf.range(self.num_envs, dtype=tf.int64)[:, None]
        fields = {name: self._data_table.read(name, rows) for name in self._field_specs}
        if self.column_major:
            fields["frame"] = tf.linalg.matrix_transpose(fields["frame"])
        return Row(**fields)

    def _clear(self):
        return self._last_id.assign(-1)

    def _refuse(self, *args, **kwargs):
        raise RuntimeError("FrameReplay has no get_next or as_dataset (raw rows are no transitions): use sample(...).")

    _get_next = _as_dataset = _single_deterministic_pass_dataset = _refuse

    # The base class takes a lock around its counter; XLA has none and needs none, the program runs in order.

    def _increment_last_id(self, increment=1):
        return self._last_id.assign_add(increment, read_value=True)

    def _get_last_id(self):
        return self._last_id.read_value()
