"""`env`: a game under random actions, its frames written to an array in the loop's carry, or not drawn at all."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from benchmarks import trees
from benchmarks.timing import Bench, WrongResult
from tfdqn.envs import Environment, make
from tfdqn.envs.rollout import select
from tfdqn.runtime import compiled

SEED = 20_260_801
CHECKED_STEPS = 4


class Carry(NamedTuple):
    """What one frame hands to the next."""

    step: tf.Tensor  # [] int64
    state: Any  # the game's NamedTuple, [N, ...]
    frames: tf.Tensor  # [N, H, ...] as the game shows them; [0] where nothing is drawn
    digest: tf.Tensor  # [] int64, of all rewards and of one row of pixels a step


def initial_carry(env: Environment, num_envs: int, draws_frames: bool) -> Carry:
    """Fresh episodes."""
    state = env.reset(env.sample_noise(tf.constant([SEED, -1], tf.int64), num_envs))
    frames = env.observe(state) if draws_frames else tf.zeros([0], tf.uint8)
    return Carry(tf.zeros([], tf.int64), state, frames, tf.zeros([], tf.int64))


def play_random(env: Environment, num_envs: int, draws_frames: bool, carry: Carry, count: tf.Tensor) -> Carry:
    """Play `count` frames of every environment, restarting episodes as they end."""
    end = carry.step + tf.cast(count, tf.int64)

    def body(carry: Carry) -> tuple[Carry]:
        noise = env.sample_noise(tf.stack([tf.constant(SEED, tf.int64), carry.step]), num_envs)
        # What the game draws last is as good as any other draw, and a base that is compared with has it, too.
        action_seed = tf.stack([tf.constant(SEED + 1, tf.int64), carry.step])
        action = tf.cast(env.sample_noise(action_seed, num_envs)[-1] % env.num_actions, tf.int32)
        state, timestep = env.step(carry.state, action, noise)
        state = select(timestep.termination | timestep.truncation, env.reset(noise), state)
        rewards = tf.reduce_sum(tf.cast(timestep.reward, tf.int64))
        # A row of pixels, which one is only known at run time, of the frames that the step before has written: a
        # compiler that leaves out a frame, or a part of it, cannot know the digest.
        digest = carry.digest * 31 + rewards + _some_row(carry.frames, carry.step)
        frames = env.observe(state) if draws_frames else carry.frames
        return (Carry(carry.step + 1, state, frames, digest),)

    return tf.while_loop(lambda carry: carry.step < end, body, (carry,))[0]


def _some_row(frames: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
    """One environment's pixels in one row as a number: a row, as single pixels of catch are nearly all black."""
    if frames.shape.rank < 3:
        return tf.zeros([], tf.int64)
    num_envs, height, *rest = frames.shape
    scattered = step * 2_654_435_761 // 256
    row = tf.reshape(frames[scattered % num_envs, scattered // num_envs % height], [-1])
    return tf.reduce_sum(tf.cast(row, tf.int64) * tf.range(1, math.prod(rest) + 1, dtype=tf.int64))


def require_equal(compiled_result: Any, eager_result: Any, what: str) -> None:
    """Compare two structures: integers in every bit, floats to 1e-5 (XLA may add in another order).

    Raises:
      WrongResult: naming the first tensor that differs.
    """
    pairs = zip(tf.nest.flatten(compiled_result), tf.nest.flatten(eager_result), strict=True)
    for index, (got, wanted) in enumerate(pairs):
        got, wanted = np.asarray(got), np.asarray(wanted)
        same = (
            np.allclose(got, wanted, rtol=1e-5, atol=1e-6)
            if np.issubdtype(wanted.dtype, np.floating)
            else np.array_equal(got, wanted)
        )
        if not same:
            raise WrongResult(f"{what}: tensor {index} of the compiled run differs from the eager run's")


class EnvBench(Bench):
    """Frames of one game, counted over all environments."""

    units = {"env_frames": "env frames/s"}  # noqa: RUF012

    def __init__(self, env: str | Environment, num_envs: int, draws_frames: bool, device: str):
        self._env = make(env) if isinstance(env, str) else env
        self._num_envs, self._draws_frames, self._device = num_envs, draws_frames, device
        self._program = compiled.xla(self._play)
        size = math.prod(self._env.observation_shape) * tf.as_dtype(trees.frame_dtype(self._env)).size
        self.bytes = float(num_envs * size) if draws_frames else 0.0  # written; nothing has to be read
        with tf.device(device):
            self._carry = initial_carry(self._env, num_envs, draws_frames)

    def _play(self, carry: Carry, count: tf.Tensor) -> Carry:
        return play_random(self._env, self._num_envs, self._draws_frames, carry, count)

    def run(self, count: int) -> dict[str, float]:
        with tf.device(self._device):
            self._carry = self._program(self._carry, tf.constant(count))
            self._carry.digest.numpy()
        return {"env_frames": float(count * self._num_envs)}

    def check(self) -> None:
        """The first frames, one by one, states and digest must be the eager run's; and so must several in one call."""
        with tf.device(self._device):
            start = eager = single = initial_carry(self._env, self._num_envs, self._draws_frames)
            for _ in range(CHECKED_STEPS):
                eager, single = self._play(eager, tf.constant(1)), self._program(single, tf.constant(1))
                require_equal(single, eager, f"{self._env.name}, N = {self._num_envs}, step {int(eager.step)}")
            together = self._program(start, tf.constant(CHECKED_STEPS))
            require_equal(together, eager, f"{self._env.name}, N = {self._num_envs}, {CHECKED_STEPS} steps in a loop")
