"""Playing vectorised games: actions held for some frames, frames stacked, scores.

Shapes: N environments, H W rows and columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tfdqn import seeds
from tfdqn.envs import Environment, TimeStep


def select(condition: tf.Tensor, if_true: Any, if_false: Any) -> Any:
    """Choose per environment between two structures of tensors [N, ...]; `condition` is [N] bool."""

    def choose(a, b):
        return tf.where(tf.reshape(condition, [-1] + [1] * (a.shape.rank - 1)), a, b)

    return tf.nest.map_structure(choose, if_true, if_false)


def sample_noise(env: Environment, seed: tf.Tensor, num_envs: int) -> Any:
    """The noise of so many environments; of P seeds [P, 2], each one's of an equal share of them."""
    if seed.shape.rank == 1:
        return env.sample_noise(seed, num_envs)
    each = num_envs // seed.shape[0]
    if env.draws_for_members:
        return env.sample_noise(seed, each)
    parts = [env.sample_noise(one, each) for one in tf.unstack(seed)]
    return tf.nest.map_structure(lambda *part: tf.concat(part, axis=0), *parts)


def training_start(env: Environment, noise: Any, share: Any) -> tuple[Any, tf.Tensor]:
    """`Environment.training_start`, of a population whose members differ in the share with [P] numbers of the host."""
    if not np.ndim(share):
        return env.training_start(noise, share)
    # A game need not know of members: each one's difficulties are drawn as if it were alone.
    parts = [tf.split(each, len(share)) for each in tf.nest.flatten(noise)]
    each = (tf.nest.pack_sequence_as(noise, part) for part in zip(*parts, strict=True))
    difficulty = tf.concat([env.difficulties(*given) for given in zip(each, share.tolist(), strict=True)], axis=0)
    return env.reset_at(noise, difficulty), difficulty


def play(
    env: Environment,
    state: Any,
    action: tf.Tensor,
    stream: int | tf.Tensor,
    decision: tf.Tensor,
    repeat: int,
    first: int | tf.Tensor = 0,
) -> tuple[Any, TimeStep, tf.Tensor, tf.Tensor, Any]:
    """Hold an action for `repeat` frames, or until the episode ends.

    Args:
      state: the game's state, [N, ...].
      action: [N] int32.
      stream: names the game's draws (see `tfdqn.seeds`); of a population, those of each member, [P].
      decision: [] int64, its number t; frame j draws at counter t * repeat + j.
      repeat: frames a decision.
      first: number of the first environment, where these are some of many (see `tfdqn.seeds.skip`).

    Returns:
      The state, the time step (rewards summed, the last frame's ends), what these frames add to the score [N] float32,
      frames played [N] int32, and the noise of the first frame, from which an episode that is due may be reset (a
      transition and a reset never both count).
    """
    num_envs = action.shape[0]
    reward = score = tf.zeros([num_envs])
    is_over = truncation = tf.zeros([num_envs], tf.bool)
    frames = tf.zeros([num_envs], tf.int32)
    observation, first_noise = None, None
    for frame in range(repeat):
        seed = seeds.at(stream, decision * repeat + frame)
        if not (isinstance(first, int) and first == 0):
            seed = seeds.skip(seed, first)
        noise = sample_noise(env, seed, num_envs)
        first_noise = noise if first_noise is None else first_noise
        stepped, timestep = env.step(state, action, noise)
        added = env.score(stepped, timestep)
        if frame == 0:
            state, observation, reward, frames = stepped, timestep.observation, timestep.reward, frames + 1
            score = added
            truncation, is_over = timestep.truncation, timestep.truncation | timestep.termination
            continue
        state, observation = select(is_over, (state, observation), (stepped, timestep.observation))
        reward += tf.where(is_over, 0.0, timestep.reward)
        score += tf.where(is_over, 0.0, added)
        frames += tf.cast(~is_over, tf.int32)
        truncation |= ~is_over & timestep.truncation
        is_over |= timestep.truncation | timestep.termination
    return state, TimeStep(observation, reward, is_over & ~truncation, truncation), score, frames, first_noise


def stack_frames(history: tf.Tensor, stride: int) -> tf.Tensor:
    """An observation [N, ...] of several frames, the newest last, from a history [K, N, ...] of single ones.

    Screens become [N, H, W, stack], planes [N, H, W, C * stack], vectors [N, D * stack].
    """
    frames = history[::stride]
    if frames.shape.rank == 4:
        # One transposition, as the replay does it, so that the network's own (see PatchConv2D) can undo it.
        return tf.transpose(frames, [1, 2, 3, 0])
    return tf.concat(tf.unstack(frames), axis=-1)


def push_frame(history: tf.Tensor, frame: tf.Tensor, is_first: tf.Tensor) -> tf.Tensor:
    """Append a frame [N, ...]; where it begins an episode, it stands for all that came before."""
    if history.shape[0] == 1:
        return frame[tf.newaxis]
    begins = tf.reshape(is_first, [1, -1] + [1] * (frame.shape.rank - 1))
    older = tf.where(begins, frame[tf.newaxis], history[1:])
    return tf.concat([older, frame[tf.newaxis]], axis=0)
