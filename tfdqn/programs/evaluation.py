"""How good is the player? The first episode of each of many environments, on draws never trained on.

Counting the first E episodes to finish instead would favour short ones. Episode i's draws follow from the seed and i
alone, so it is the same episode however many are played at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfdqn import seeds
from tfdqn.config import Config
from tfdqn.envs import Environment
from tfdqn.envs.rollout import play, push_frame, select, stack_frames
from tfdqn.learners.base import Agent
from tfdqn.metric import Metric
from tfdqn.programs import blame
from tfdqn.runtime import compiled

FILM_DECISIONS = 600  # of the first episode that an evaluation keeps, from its start, a frame each
BLOCK_DECISIONS = 250  # in one call of the program: how often an evaluation can be stopped
MAX_EPISODES = 1_000_000
STRIP_FRAMES = 12  # of these, evenly spaced, shown in TensorBoard
MOVIE_FRAMES = 150  # of these, from the start, shown there one after the other


_STATISTICS = {"mean": np.mean, "std": np.std, "median": np.median, "min": np.min, "max": np.max}
_SCORES = tuple(
    Metric(f"eval/score_{name}", name, "score of the greedy policy", over="episodes", unit="score")
    for name in _STATISTICS
)
_FRAMES = Metric("eval/episode_frames", "mean", "length of these episodes", over="episodes", unit="frames")
PLAYER = Metric(
    "eval/player",
    "pictures",
    f"{STRIP_FRAMES} evenly spaced frames of the first episode (of its first {FILM_DECISIONS} decisions at most)",
)
MOVIE = Metric("eval/film", "pictures", f"the first episode as it was played, {MOVIE_FRAMES} decisions at most")
ACTIONS = Metric("eval/actions", "histogram", "the actions of the highest values in that episode", over="decisions")
Q_VALUES = Metric(
    "eval/q_values",
    "histogram",
    "action values in that episode, as the agent has them: returns, R2D2's rescaled, or A2C's log-probabilities",
    over="decisions and actions",
)
SCORES = Metric("eval/scores", "histogram", "scores of all episodes", over="episodes", unit="score")
WEIGHTS = Metric("eval/weights", "histogram", "the network's weights, all together", over="weights")
REPORTED = (*_SCORES, _FRAMES, PLAYER, MOVIE, ACTIONS, Q_VALUES, SCORES, WEIGHTS)


class Stopped(Exception):
    """An evaluation was given up."""


class Scores(NamedTuple):
    """Scores of E episodes, on the host."""

    scores: np.ndarray  # [E] float32
    frames: np.ndarray  # [E] int32, lengths of the episodes
    strip: np.ndarray  # [STRIP_FRAMES, ...] as the game's frames, evenly spaced frames of the first episode
    movie: np.ndarray  # [F, ...] its first frames, at most MOVIE_FRAMES
    q_values: np.ndarray  # [F, A] float32, action values in the first episode's decisions, at most FILM_DECISIONS

    def summary(self) -> dict[str, float]:
        """The score fields that commands report."""
        return summary_of(self.scores)

    def values(self) -> dict[str, float]:
        """What a report of an evaluation says, by tag."""
        summary = self.summary()
        return {metric.tag: summary[metric.name] for metric in _SCORES} | {_FRAMES.tag: float(self.frames.mean())}


def summary_of(scores: np.ndarray) -> dict[str, float]:
    """What commands report of scores [E]."""
    scores = scores.astype(np.float64)
    found = {metric.name: float(_STATISTICS[metric.reduction](scores)) for metric in _SCORES}
    return {"episodes": len(scores), **found}


class _Carry(NamedTuple):
    step: tf.Tensor  # [] int64, number of the decision to make, from 1
    env_state: Any
    agent_state: Any
    history: tf.Tensor  # [K, E, ...] as the game's frames
    is_done: tf.Tensor  # [E] bool
    episode_score: tf.Tensor  # [E] float32
    episode_frames: tf.Tensor  # [E] int32
    film: tf.Tensor  # [FILM_DECISIONS + 1, ...], frames of the first episode; what comes later goes to the last place
    q_values: tf.Tensor  # [FILM_DECISIONS + 1, A] float32, likewise


class Evaluator:
    """Plays E episodes at a time in one compiled program.

    Args:
      config: the run's configuration; `eval_episodes` is the program's E.
      env: the game.
      agent: the player; its current weights are read at each call.
      device: TensorFlow device.
      should_stop: whether to give up; asked between calls of the program.
    """

    def __init__(
        self,
        config: Config,
        env: Environment,
        agent: Agent,
        device: str = "/CPU:0",
        should_stop: Callable[[], bool] = lambda: False,
    ):
        self.config, self.env, self.agent, self.device, self.should_stop = config, env, agent, device, should_stop
        self._begin = compiled.program(self._start, jit=config.jit, eager=config.eager)
        self._block = compiled.program(self._play_block, jit=config.jit, eager=config.eager)

    @property
    def trace_count(self) -> int:
        """How often the program was traced: 1 in a whole run."""
        return self._block.experimental_get_tracing_count() if hasattr(self._block, "get_concrete_function") else 0

    def evaluate(
        self,
        episodes: int,
        seed: int = 0,
        *,
        stream: str = "final_evaluation",
        max_frames: int | None = None,
        epsilon: float = 0.0,
    ) -> Scores:
        """Play `episodes` episodes from the game's own start.

        Args:
          episodes: 1 to `MAX_EPISODES`; the program plays `config.eval_episodes` at a time.
          seed: with `stream` and an episode's number, decides every draw.
          max_frames: cut episodes after this many frames; the game's limit if None.
          epsilon: share of random actions.

        Raises:
          ValueError: a number out of range.
          Stopped: `should_stop` said so.
        """
        if not 1 <= episodes <= MAX_EPISODES:
            raise ValueError(f"episodes is {episodes}, but must be between 1 and {MAX_EPISODES}")
        if max_frames is not None and max_frames < 1:
            raise ValueError(f"max_frames is {max_frames}, but must be at least 1, or None")
        if not 0 <= epsilon <= 1:
            raise ValueError(f"epsilon is {epsilon}, but must be between 0 and 1")
        limit = self.env.time_limit + 1 if max_frames is None else max_frames
        # The games' draws and the player's.
        streams = tf.constant([seeds.stream(seed, stream, 0, who) for who in (0, 1)], tf.int64)
        with tf.device(self.device), blame.own_code(self.config):
            parts = [
                self._play_episodes(first, streams, limit, epsilon)
                for first in range(0, episodes, self.config.eval_episodes)
            ]
        scores, frames = (np.concatenate([part[i] for part in parts])[:episodes] for i in (0, 1))
        filmed = min(-(-int(frames[0]) // self.config.action_repeat), FILM_DECISIONS)
        picks = np.linspace(0, filmed - 1, STRIP_FRAMES).round().astype(int)
        film, q_values = parts[0][2:]
        return Scores(scores, frames, film[picks], film[: min(filmed, MOVIE_FRAMES)], q_values[:filmed])

    def _play_episodes(
        self, first: int, streams: tf.Tensor, max_frames: int, epsilon: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Play `eval_episodes` episodes, numbered from `first`: scores and frames [E], film and action values."""
        number = tf.constant(first, tf.int64)
        carry, is_over = self._begin(streams, number), False
        while not is_over:
            if self.should_stop():
                raise Stopped
            carry = self._block(
                carry, streams, number, tf.constant(max_frames, tf.int32), tf.constant(epsilon, tf.float32)
            )
            is_over = bool(tf.reduce_all(carry.is_done))
        return tuple(each.numpy() for each in (carry.episode_score, carry.episode_frames, carry.film, carry.q_values))

    def _start(self, streams, first):
        config, env = self.config, self.env
        size = config.eval_episodes
        depth = (config.frame_stack - 1) * config.frame_stride + 1

        # Counter 0 of each stream is the reset, 1 the first decision or frame.
        state = env.reset(env.sample_noise(seeds.skip(seeds.at(streams[0], 0), first), size))
        frame = env.observe(state)
        return _Carry(
            step=tf.ones([], tf.int64),
            env_state=state,
            agent_state=self.agent.initial_state(size),
            history=tf.repeat(frame[tf.newaxis], depth, axis=0),
            is_done=tf.zeros([size], tf.bool),
            episode_score=tf.zeros([size]),
            episode_frames=tf.zeros([size], tf.int32),
            film=tf.zeros([FILM_DECISIONS + 1, *env.observation_shape], frame.dtype),
            q_values=tf.zeros([FILM_DECISIONS + 1, env.num_actions]),
        )

    def _play_block(self, carry, streams, first, max_frames, epsilon):
        """Up to `BLOCK_DECISIONS` more of each episode."""
        config, env, agent = self.config, self.env, self.agent
        size, repeat = config.eval_episodes, config.action_repeat
        end = carry.step + BLOCK_DECISIONS

        def body(carry):
            place = tf.where(
                carry.is_done[0], FILM_DECISIONS, tf.cast(tf.minimum(carry.step - 1, FILM_DECISIONS), tf.int32)
            )
            place = tf.reshape(place, [1, 1])
            observation = stack_frames(carry.history, config.frame_stride)
            # What `act` computes too: the compiler makes one of both.
            q_values = agent.action_values(observation, carry.agent_state)
            draws, legal = seeds.skip(seeds.at(streams[1], carry.step), first), env.legal_actions(carry.env_state)
            action, agent_state = agent.act(observation, carry.agent_state, epsilon, draws, legal)
            state, timestep, score, frames, _ = play(
                env, carry.env_state, action, streams[0], carry.step, repeat, first
            )
            frames = tf.where(carry.is_done, 0, frames)
            episode_frames = carry.episode_frames + frames
            ended = timestep.termination | timestep.truncation | (episode_frames >= max_frames)
            return _Carry(
                step=carry.step + 1,
                env_state=select(carry.is_done, carry.env_state, state),
                agent_state=agent.rewarded(agent_state, timestep.reward),
                history=push_frame(carry.history, timestep.observation, tf.zeros([size], tf.bool)),
                is_done=carry.is_done | ended,
                episode_score=carry.episode_score + tf.where(carry.is_done, 0.0, score),
                episode_frames=episode_frames,
                film=tf.tensor_scatter_nd_update(carry.film, place, carry.history[-1, :1]),
                q_values=tf.tensor_scatter_nd_update(carry.q_values, place, q_values[:1]),
            )

        def is_going_on(carry):
            return ~tf.reduce_all(carry.is_done) & (carry.step < end)

        carry = tf.while_loop(is_going_on, lambda c: (body(c),), (carry,))[0]
        return carry
