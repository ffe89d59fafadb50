"""What is played of a game to check it: a few moves op by op, and thousands of frames in one compiled loop."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfdqn import seeds
from tfdqn.envs import Environment, TimeStep, rollout
from tfdqn.envs.check.nests import arrays, tensors
from tfdqn.envs.spec import ObservationSpec
from tfdqn.runtime import compiled

LONG_PLAY_FRAMES = (1_000, 10_000)  # of the compiled loop, at least and at most; twice the time limit between these
NOISE, STEP, PLAY, ACTION = 1, 2, 3, 4  # streams of draws, of one seed


class Move(NamedTuple):
    """One move of all environments, op by op, as arrays [N, ...]."""

    seed: tf.Tensor  # [2] int64
    state: Any
    action: np.ndarray  # [N] int32
    outcome: Outcome


class Outcome(NamedTuple):
    """All that a game says in one move."""

    noise: Any
    fresh: Any  # the state of a reset with this noise
    stepped: Any  # the state after the move
    timestep: TimeStep
    observation: Any  # of that state
    legal: Any  # of that state; () for all
    score: Any  # what the move adds to it


class Totals(NamedTuple):
    """What the compiled loop has seen. Scalars but for the first two."""

    frames: tf.Tensor  # [N] int32, of the episode so far
    episode_score: tf.Tensor  # [N] float32, of the episode so far
    episodes: tf.Tensor  # int32, ended
    cut: tf.Tensor  # int32, of these by the time limit
    episode_frames: tf.Tensor  # float32, of ended episodes together
    score: tf.Tensor  # float32, of ended episodes together
    best: tf.Tensor  # float32, the highest score
    longest: tf.Tensor  # int32, frames of the longest episode, ended or not
    early: tf.Tensor  # int32, frame of a truncation before its time; 0: none
    late: tf.Tensor  # int32, frames played by episodes that should have been cut off
    both: tf.Tensor  # int32, ends that are both
    outside: tf.Tensor  # int32, numbers of observations out of bounds
    unpayable: tf.Tensor  # int32, rewards that are not finite


class Game:
    """A game and what was played of it, each kind of play on first use."""

    def __init__(self, env: Environment, num_envs: int, steps: int, seed: int):
        self.env, self.num_envs, self.steps, self.seed = env, num_envs, steps, seed

    def at(self, stream: int, counter: int) -> tf.Tensor:
        return seeds.at(stream + 8 * self.seed, counter)

    @functools.cached_property
    def first(self) -> tuple[Any, Any]:
        """The noise and the state of the first reset, as arrays."""
        noise = self.env.sample_noise(self.at(STEP, 0), self.num_envs)
        return arrays(noise), arrays(self.env.reset(noise))

    @functools.cached_property
    def moves(self) -> list[Move]:
        (_, state), moves = self.first, []
        legal = self._legal(tensors(state))
        for t in range(1, self.steps + 1):
            action = self._random_action(t, legal)
            at = self.at(STEP, t)
            outcome = arrays(self.outcome(tensors(state), tf.constant(action), at))
            moves.append(Move(at, state, action, outcome))
            is_over = self.is_over(outcome.timestep)

            def choose(new, old, is_over=is_over):
                return np.where(is_over.reshape([-1] + [1] * (old.ndim - 1)), new, old)

            tf.nest.assert_same_structure(outcome.fresh, outcome.stepped)
            state = tf.nest.map_structure(choose, outcome.fresh, outcome.stepped)
            legal = self._legal(tensors(state))
        return moves

    def outcome(self, state: Any, action: tf.Tensor, at: tf.Tensor) -> Outcome:
        """Everything that a game does, once; op by op or traced."""
        noise = self.env.sample_noise(at, self.num_envs)
        return self.answer(state, action, noise)

    def answer(self, state: Any, action: tf.Tensor, noise: Any) -> Outcome:
        stepped, timestep = self.env.step(state, action, noise)
        fresh, observation = self.env.reset(noise), self.env.observe(stepped)
        score = self.env.score(stepped, timestep)
        return Outcome(noise, fresh, stepped, timestep, observation, self._legal(stepped), score)

    @functools.cached_property
    def compiled_outcome(self) -> Callable:
        return compiled.xla(self.outcome)

    def _legal(self, state: Any) -> Any:
        legal = self.env.legal_actions(state)
        return () if legal is None else legal

    def _random_action(self, move: int, legal: Any) -> np.ndarray:
        size = (self.num_envs, self.env.num_actions)
        draws = seeds.draw(self.at(ACTION, move), size[0] * size[1]).numpy()
        choice = draws.reshape(size) / 2.0**63
        legal = np.asarray(legal)
        if legal.shape == choice.shape and legal.dtype == bool:
            choice = np.where(legal, choice, -1.0)
        return choice.argmax(1).astype(np.int32)

    def is_over(self, timestep: Any) -> np.ndarray:
        flags = [np.asarray(flag) for flag in timestep[2:]]
        if any(flag.shape != (self.num_envs,) or flag.dtype != bool for flag in flags):
            return np.zeros(self.num_envs, bool)  # another check tells
        return flags[0] | flags[1]

    # The compiled loop.

    @property
    def long_play_frames(self) -> int:
        low, high = LONG_PLAY_FRAMES
        return min(max(2 * (self.env.time_limit + 1), low), high)

    @functools.cached_property
    def compiled_play(self) -> Callable:
        return compiled.xla(self._play)

    @functools.cached_property
    def totals(self) -> Totals:
        """Of random play."""
        return self.play(-1)

    def play(self, held: int) -> Totals:
        """Play one action wherever it is legal, or at random for -1."""
        return arrays(self.compiled_play(tf.constant(self.long_play_frames), tf.constant(held)))

    def _play(self, frames: tf.Tensor, held: tf.Tensor) -> Totals:
        env, zero = self.env, tf.constant(0)
        state = env.reset(env.sample_noise(self.at(PLAY, 0), self.num_envs))
        none, nothing = tf.zeros([self.num_envs], tf.int32), tf.zeros([self.num_envs])
        totals = Totals(none, nothing, zero, zero, 0.0, 0.0, -math.inf, *[zero] * 6)
        totals = tf.nest.map_structure(tf.convert_to_tensor, totals)

        def one_frame(t, state, totals):
            at = self.at(PLAY, 2 * tf.cast(t, tf.int64))
            rank = tf.cast(seeds.draw(at, self.num_envs) % 2**31, tf.int32)
            noise = env.sample_noise(at + tf.constant([0, 1], tf.int64), self.num_envs)
            stepped, timestep = env.step(state, self._pick(state, rank, held), noise)
            totals = self._counted(totals, timestep, env.score(stepped, timestep))
            is_over = timestep.termination | timestep.truncation
            stay = [tf.where(is_over, tf.zeros_like(sums), sums) for sums in totals[:2]]
            return t + 1, rollout.select(is_over, env.reset(noise), stepped), Totals(*stay, *totals[2:])

        return tf.while_loop(lambda t, *_: t <= frames, one_frame, (tf.constant(1), state, totals))[2]

    def _pick(self, state: Any, rank: tf.Tensor, held: tf.Tensor) -> tf.Tensor:
        legal = self.env.legal_actions(state)
        if legal is None:
            return tf.where(held < 0, rank % self.env.num_actions, held)
        number = tf.cast(legal, tf.int32)
        is_picked = tf.cumsum(number, axis=1) > (rank % tf.maximum(tf.reduce_sum(number, axis=1), 1))[:, tf.newaxis]
        random = tf.argmax(is_picked, axis=1, output_type=tf.int32)
        is_legal = tf.gather(legal, tf.maximum(held, 0), axis=1)
        return tf.where((held >= 0) & is_legal, held, random)

    def _counted(self, totals: Totals, timestep: TimeStep, added: tf.Tensor) -> Totals:
        def count(mask):
            return tf.reduce_sum(tf.cast(mask, tf.int32))

        spec, last = self.env.observation_spec, self.env.time_limit + 1
        observation, reward, death, cut = timestep
        frames, score, is_over = totals.frames + 1, totals.episode_score + added, death | cut
        return Totals(
            frames=frames,
            episode_score=score,
            episodes=totals.episodes + count(is_over),
            cut=totals.cut + count(cut),
            episode_frames=totals.episode_frames + tf.reduce_sum(tf.cast(tf.where(is_over, frames, 0), tf.float32)),
            score=totals.score + tf.reduce_sum(tf.where(is_over, score, 0.0)),
            best=tf.maximum(totals.best, tf.reduce_max(tf.where(is_over, score, -math.inf))),
            longest=tf.maximum(totals.longest, tf.reduce_max(frames)),
            early=tf.maximum(totals.early, tf.reduce_max(tf.where(cut & (frames < last), frames, 0))),
            late=totals.late + count((frames >= last) & ~is_over),
            both=totals.both + count(death & cut),
            outside=totals.outside + count(~is_within(observation, spec)),
            unpayable=totals.unpayable + count(~tf.math.is_finite(reward)),
        )


def is_within(observation: tf.Tensor, spec: ObservationSpec) -> tf.Tensor:
    """Which numbers are finite and within the bounds, bool of the same shape."""
    number = tf.cast(observation, tf.float32)
    return tf.math.is_finite(number) & (number >= spec.low) & (number <= spec.high)
