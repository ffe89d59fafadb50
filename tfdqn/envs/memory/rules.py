"""Memory: a cue is shown in the first frame only, and asked for `delay` decisions later. Who forgets can but guess.

A T-maze without its corridor (Bakker 2001, "Reinforcement learning with long short-term memory"): what is seen between
the cue and the question tells nothing, and no action there changes anything.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from tfdqn import seeds
from tfdqn.envs.base import Environment, TimeStep
from tfdqn.envs.spec import ObservationSpec

CUES = 4
CUE_ROW, QUESTION_ROW = 0, 1  # of the screen
LEVEL = 255


class Noise(NamedTuple):
    """The draws of one reset; a transition needs none."""

    cue: tf.Tensor  # [N] int32, 0..CUES-1
    delay_rank: tf.Tensor  # [N] int32 >= 0; modulo the number of delays, it picks one


class State(NamedTuple):
    time: tf.Tensor  # [N] int32, frames since reset
    cue: tf.Tensor  # [N] int32
    delay: tf.Tensor  # [N] int32, the time at which the question is seen


class Memory(Environment):
    """Reward 1 for the cue's own action when it is asked for, 0 for another; either ends the episode.

    Args:
      delay_min, delay_max: decisions from the cue to the question; each number between is as likely.

    Raises:
      ValueError: no delay is possible.
    """

    name = "memory"
    version = 1
    action_names = tuple(f"cue {number}" for number in range(CUES))
    frames_per_second = 5.0
    best_score = 1.0
    observation_spec = ObservationSpec((2, CUES))  # the cue above; below, all is lit when it is asked for

    def __init__(self, delay_min: int = 10, delay_max: int = 40):
        if not 1 <= delay_min <= delay_max:
            raise ValueError(f"memory: delay_min {delay_min} and delay_max {delay_max}: must be 1 <= min <= max")
        self._delay_min, self._num_delays = delay_min, delay_max - delay_min + 1
        self.time_limit = delay_max + 1

    def sample_noise(self, seed: tf.Tensor, num_envs: int) -> Noise:
        draw = seeds.draw(seed, num_envs)
        rank = tf.bitwise.bitwise_and(draw // CUES, tf.constant(tf.int32.max, tf.int64))
        return Noise(tf.cast(draw % CUES, tf.int32), tf.cast(rank, tf.int32))

    def reset(self, noise: Noise) -> State:
        noise = self.checked_noise(noise)
        delay = self._delay_min + noise.delay_rank % self._num_delays
        return State(time=tf.zeros_like(noise.cue), cue=noise.cue, delay=delay)

    def step(self, state: State, action: tf.Tensor, noise: Noise) -> tuple[State, TimeStep]:
        state, action, noise = self.checked(state, action, noise)
        is_asked = state.time == state.delay
        after = state._replace(time=state.time + 1)
        timestep = TimeStep(
            observation=self.observe(after),
            reward=tf.cast(is_asked & (action == state.cue), tf.float32),
            termination=is_asked,
            truncation=(after.time > self.time_limit) & ~is_asked,  # the question comes before
        )
        return after, timestep

    def observe(self, state: State) -> tf.Tensor:
        is_cue = (tf.range(CUES) == state.cue[:, tf.newaxis]) & (state.time == 0)[:, tf.newaxis]
        is_asked = tf.broadcast_to((state.time == state.delay)[:, tf.newaxis], tf.shape(is_cue))
        lit = tf.stack([is_cue, is_asked], axis=1)  # by CUE_ROW and QUESTION_ROW
        return tf.where(lit, tf.constant(LEVEL, tf.uint8), tf.constant(0, tf.uint8))
