"""`replay`: rows added, and transitions sampled from a full buffer."""

from __future__ import annotations

import tensorflow as tf

from benchmarks import trees
from benchmarks.env_case import require_equal
from benchmarks.timing import Bench, WrongResult
from tfdqn.envs import make
from tfdqn.errors import UserError
from tfdqn.replay.table import FrameReplay, Row
from tfdqn.runtime import compiled

EPISODE_ROWS = 61  # of the made-up episodes in a filled buffer
SEED = 20_260_802


def make_replay(env: str, num_envs: int, settings: dict, device: str) -> FrameReplay:
    """An empty buffer for a game's frames.

    Raises:
      UserError: it does not fit into memory.
    """
    height, width = make(env).observation_shape
    needed = settings["rows"] * (height * width + 14)
    free = trees.available_bytes()
    if "GPU" not in device and needed * 1.2 > free:
        raise UserError(f"a replay of {needed / 1e9:.1f} GB does not fit into the {free / 1e9:.1f} GB that are free")
    with tf.device(device):
        stack, n_step = settings["stack"], settings["n_step"]
        return FrameReplay((height, width), num_envs, settings["rows"], stack, 1, n_step, 0.99, device)


def made_up_row(replay: FrameReplay, step: tf.Tensor) -> Row:
    """Row `step` of every environment: episodes of `EPISODE_ROWS` rows that end at different times."""
    env = tf.range(replay.num_envs, dtype=tf.int64)
    place = (step + 7 * env) % EPISODE_ROWS
    # A byte that differs between rows, so that the pages are really filled and a wrong row is seen.
    byte = tf.cast((step * replay.num_envs + env) % 251, tf.uint8)
    return Row(
        frame=tf.broadcast_to(byte[:, None, None], [replay.num_envs, *replay.frame_shape]),
        action=tf.cast(place % 2, tf.int32),
        reward=tf.cast(place == EPISODE_ROWS - 2, tf.float32),
        discount=tf.cast(place != EPISODE_ROWS - 2, tf.float32),
        is_first=place == 0,
        is_boundary=place == EPISODE_ROWS - 1,
    )


def fill(replay: FrameReplay, rows: int, device: str) -> None:
    """Write `rows` made-up rows, in a loop on the device."""

    def program(steps):
        def body(step):
            replay.add(made_up_row(replay, step))
            return (step + 1,)

        return tf.while_loop(lambda step: step < steps, body, (tf.zeros([], tf.int64),))[0]

    with tf.device(device):
        compiled.xla(program)(tf.constant(rows // replay.num_envs, tf.int64)).numpy()


class AddBench(Bench):
    """Rows written, counted over all environments."""

    units = {"rows": "rows/s"}  # noqa: RUF012

    def __init__(self, env: str, num_envs: int, settings: dict, device: str):
        self._replay, self._device = make_replay(env, num_envs, settings, device), device
        height, width = self._replay.frame_shape
        self.bytes = 2.0 * num_envs * (height * width + 14)  # a row is read and written
        with tf.device(device):
            self._row = made_up_row(self._replay, tf.constant(1, tf.int64))
        self._program = compiled.xla(self._add)

    def _add(self, row: Row, count: tf.Tensor) -> tf.Tensor:
        def body(i):
            # Another action each time: no two rows are the same, and none can be left out.
            self._replay.add(row._replace(action=row.action + i))
            return (i + 1,)

        return tf.while_loop(lambda i: i < count, body, (tf.constant(0),))[0]

    def run(self, count: int) -> dict[str, float]:
        with tf.device(self._device):
            self._program(self._row, tf.constant(count)).numpy()
        return {"rows": float(count * self._replay.num_envs)}

    def check(self) -> None:
        """Every slot of a lap round the buffer must hold what was added."""
        length = self._replay.length
        self.run(length)
        state = self._replay.state
        require_equal(state["frame"][-1], self._row.frame, "replay add, frame")
        last = (int(state["last_id"]) + 1 - length + tf.range(length)) % length
        actions = tf.gather(state["action"][:, 0], last)
        require_equal(actions, tf.cast(self._row.action[0] + tf.range(length), actions.dtype), "replay add, action")


class SampleBench(Bench):
    """Transitions drawn, stacks and returns rebuilt, written to an array in the loop's carry."""

    units = {"transitions": "transitions/s"}  # noqa: RUF012

    def __init__(self, env: str, num_envs: int, batch: int, settings: dict, device: str):
        self._replay, self._batch, self._device = make_replay(env, num_envs, settings, device), batch, device
        fill(self._replay, self._replay.capacity, device)
        height, width = self._replay.frame_shape
        self.bytes = 2.0 * batch * 2 * self._replay.stack * height * width  # two observations, read and written
        with tf.device(device):
            self._batch_at_hand = self._replay.sample(tf.constant([SEED, -1], tf.int64), batch)
        self._program = compiled.xla(self._sample)

    def _sample(self, at_hand, first: tf.Tensor, count: tf.Tensor):
        def body(i, _):
            seed = tf.stack([tf.constant(SEED, tf.int64), first + i])
            return i + 1, self._replay.sample(seed, self._batch)

        count = tf.cast(count, tf.int64)
        return tf.while_loop(lambda i, _: i < count, body, (tf.zeros([], tf.int64), at_hand))[1]

    def run(self, count: int) -> dict[str, float]:
        with tf.device(self._device):
            zero = tf.zeros([], tf.int64)
            _, weights, _ = self._program(self._batch_at_hand, zero, tf.constant(count))
            weights[0].numpy()
        return {"transitions": float(count * self._batch)}

    def check(self) -> None:
        """Batches must be the eager run's, and no entry may be empty."""
        with tf.device(self._device):
            for i in range(3):
                number = tf.constant(i, tf.int64)
                eager = self._replay.sample(tf.constant([SEED, i], tf.int64), self._batch)
                require_equal(self._program(self._batch_at_hand, number, tf.constant(1)), eager, f"replay sample {i}")
                if float(tf.reduce_mean(eager[1])) < 0.99:
                    raise WrongResult("replay sample: more than one entry in a hundred is no transition")
