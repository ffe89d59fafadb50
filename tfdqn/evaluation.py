"""How good is the player? The first episode of each of many environments, on draws never trained on.

Counting the first E episodes to finish instead would favour short ones.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfdqn import compiled
from tfdqn.agent import DQN
from tfdqn.config import Config
from tfdqn.envs import Environment
from tfdqn.training import play, push_frame, score_of, select, stack_frames, stream_seed

FILM_FRAMES = 600  # frames of the first episode that an evaluation keeps, from its start
STRIP_FRAMES = 12  # of these, evenly spaced, shown in TensorBoard


class Scores(NamedTuple):
    """Scores of E episodes, on the host."""

    scores: np.ndarray  # [E] float32
    frames: np.ndarray  # [E] int32, lengths of the episodes
    strip: np.ndarray  # [STRIP_FRAMES, H, W] uint8, evenly spaced frames of the first episode
    q_values: np.ndarray  # [F, A] float32, action values in the first episode's decisions, at most FILM_FRAMES

    def summary(self) -> dict[str, float]:
        """The score fields that commands report."""
        scores = self.scores.astype(np.float64)
        return {
            "episodes": len(scores),
            "score_mean": float(scores.mean()),
            "score_std": float(scores.std()),
            "score_median": float(np.median(scores)),
            "score_min": float(scores.min()),
            "score_max": float(scores.max()),
        }


class _Carry(NamedTuple):
    step: tf.Tensor  # [] int64, decisions so far
    env_state: Any
    history: tf.Tensor  # [K, E, H, W] uint8
    is_done: tf.Tensor  # [E] bool
    episode_return: tf.Tensor  # [E] float32
    episode_frames: tf.Tensor  # [E] int32
    film: tf.Tensor  # [FILM_FRAMES + 1, H, W] uint8, the first episode; what comes later goes to the last place
    q_values: tf.Tensor  # [FILM_FRAMES + 1, A] float32, likewise


class Evaluator:
    """Plays E episodes at a time in one compiled program.

    Args:
      config: the run's configuration; `eval_episodes` is the program's E.
      env: the game.
      agent: the player; its current weights are read at each call.
      device: TensorFlow device.
    """

    def __init__(self, config: Config, env: Environment, agent: DQN, device: str = "/CPU:0"):
        self.config, self.env, self.agent, self.device = config, env, agent, device
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
          seed: with `stream`, decides every draw.
          max_frames: cut episodes after this many frames; the game's limit if None.
          epsilon: share of random actions.
        """
        size = self.config.eval_episodes
        limit = self.env.time_limit + 1 if max_frames is None else max_frames
        parts = []
        with tf.device(self.device):
            for block in range(-(-episodes // size)):
                parts.append(
                    self._block(
                        tf.constant([stream_seed(seed, stream), block], tf.int64),
                        tf.constant(limit, tf.int32),
                        tf.constant(epsilon, tf.float32),
                    )
                )
        scores, frames = (np.concatenate([part[i].numpy() for part in parts])[:episodes] for i in (0, 1))
        filmed = min(-(-int(frames[0]) // self.config.action_repeat), FILM_FRAMES)
        picks = np.linspace(0, filmed - 1, STRIP_FRAMES).round().astype(int)
        film, q_values = (parts[0][i].numpy() for i in (2, 3))
        return Scores(scores, frames, film[picks], q_values[:filmed])

    def _play_block(self, seed, max_frames, epsilon):
        config, env, agent = self.config, self.env, self.agent
        size, repeat = config.eval_episodes, config.action_repeat
        depth = (config.frame_stack - 1) * config.frame_stride + 1

        def seed_at(counter, explore=False):
            # Each block of episodes has counters of its own; exploration has a stream of its own (see STREAMS).
            return tf.stack([seed[0] + (8 if explore else 0), seed[1] * 2**40 + counter])

        state = env.reset(env.sample_noise(seed_at(tf.constant(-1, tf.int64)), size))
        frame = env.observe(state)
        carry = _Carry(
            step=tf.zeros([], tf.int64),
            env_state=state,
            history=tf.tile(frame[tf.newaxis], [depth, 1, 1, 1]),
            is_done=tf.zeros([size], tf.bool),
            episode_return=tf.zeros([size]),
            episode_frames=tf.zeros([size], tf.int32),
            film=tf.zeros([FILM_FRAMES + 1, *env.observation_shape], tf.uint8),
            q_values=tf.zeros([FILM_FRAMES + 1, env.num_actions]),
        )

        def body(carry):
            place = tf.where(carry.is_done[0], FILM_FRAMES, tf.cast(tf.minimum(carry.step, FILM_FRAMES), tf.int32))
            place = tf.reshape(place, [1, 1])
            observation = stack_frames(carry.history, config.frame_stride)
            q_values = agent(observation)  # what `act` computes too; the compiler makes one of both
            action, _ = agent.act(observation, (), epsilon, seed_at(carry.step, explore=True))
            state, timestep, frames, _ = play(env, carry.env_state, action, seed_at(carry.step), repeat)
            frames = tf.where(carry.is_done, 0, frames)
            episode_frames = carry.episode_frames + frames
            ended = timestep.termination | timestep.truncation | (episode_frames >= max_frames)
            return _Carry(
                step=carry.step + 1,
                env_state=select(carry.is_done, carry.env_state, state),
                history=push_frame(carry.history, timestep.observation, tf.zeros([size], tf.bool)),
                is_done=carry.is_done | ended,
                episode_return=carry.episode_return + tf.where(carry.is_done, 0.0, timestep.reward),
                episode_frames=episode_frames,
                film=tf.tensor_scatter_nd_update(carry.film, place, carry.history[-1, :1]),
                q_values=tf.tensor_scatter_nd_update(carry.q_values, place, q_values[:1]),
            )

        carry = tf.while_loop(lambda c: ~tf.reduce_all(c.is_done), lambda c: (body(c),), (carry,))[0]
        score = score_of(env, carry.episode_return, tf.minimum(carry.episode_frames, max_frames))
        return score, carry.episode_frames, carry.film, carry.q_values
