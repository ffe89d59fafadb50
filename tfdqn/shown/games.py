"""One game frame by frame, on the compiled step of training, and an agent that plays it."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import tensorflow as tf

from tfdqn import seeds
from tfdqn.config import Config
from tfdqn.envs import Environment
from tfdqn.envs.rollout import push_frame, stack_frames
from tfdqn.learners.base import Agent
from tfdqn.programs import blame, stage
from tfdqn.runtime import compiled


class OneGame:
    """An episode under way.

    Args:
      config: says how the game is named where it fails.
      env: the game.
      seed: with an episode's number, decides all draws; episode 0's are those of a film with that seed.
      episode: the number of the first.

    Attributes:
      frame: [1, ...] what the game shows, a tensor.
      frames, score: played and reached so far.
      reward: of the last frame, [1] float32.
      is_over: whether the episode has ended.
    """

    def __init__(self, config: Config, env: Environment, seed: int, episode: int = 0):
        self.env, self._config, self._seed = env, config, seed
        self._games = env.begin(1, with_pictures=True) if env.steps_on_host else None
        self.begin(episode)

    def begin(self, episode: int) -> None:
        """Begin an episode, numbered from 0."""
        self._stream = seeds.stream(self._seed, "record", *([episode] if episode else []))
        self.frames, self.score, self.is_over, self.reward = 0, 0.0, False, tf.zeros([1])
        if self._games is not None:
            first = stage.seeds_of(self._seed if not episode else self._stream, 0, 1)
            self.frame = tf.constant(self._games.reset(first).copy())  # the game may write the next one there
            return
        with blame.own_code(self._config):
            self._state = self.env.reset(self.env.sample_noise(seeds.at(self._stream, 0), 1))
            self.frame = self.env.observe(self._state)

    def step(self, action: tf.Tensor) -> None:
        """Play one frame of an episode that is not over; `action` is [1] int32."""
        self.frames += 1
        if self._games is not None:
            played = self._games.step(np.asarray(action))
            self.frame, self.reward = tf.constant(played.frame.copy()), tf.constant(played.reward)
            self.score += float(played.reward[0])
            self.is_over = bool(played.termination[0] | played.truncation[0])
            return
        with blame.own_code(self._config):
            noise = self.env.sample_noise(seeds.at(self._stream, self.frames), 1)
            self._state, timestep = self.env.compiled_step(self._state, action, noise)
            self.frame, self.reward = timestep.observation, timestep.reward
            self.score += float(self.env.score(self._state, timestep)[0])
            self.is_over = bool(timestep.termination[0] | timestep.truncation[0])

    def picture(self) -> np.ndarray | None:
        """What people see, [H, W, 3] uint8; None where there is nothing to draw."""
        if self._games is not None:
            return self._games.render()
        with blame.own_code(self._config):
            drawn = self.env.render(self._state)
        return None if drawn is None else drawn.numpy()[0]

    def levels(self) -> np.ndarray:
        """The frame itself, [H, W] uint8, of a game that shows its palette."""
        return self.frame.numpy()[0]

    def legal_actions(self) -> tf.Tensor | None:
        """[1, A] bool; None: every action."""
        return None if self._games is not None else self.env.legal_actions(self._state)

    def close(self) -> None:
        """Free what it holds."""
        if self._games is not None:
            self._games.close()


class AgentPlayer:
    """A trained agent that plays one game, greedily, an action for `action_repeat` frames.

    Attributes:
      action: the number of the action that it holds now.
      values: [A] float32, what it took each to be worth when it chose.
    """

    def __init__(self, config: Config, agent: Agent):
        self._config, self._agent = config, agent

        def decide(history, agent_state, legal):
            observation = stack_frames(history, config.frame_stride)
            values = agent.action_values(observation, agent_state)
            action, agent_state = agent.act(observation, agent_state, 0.0, [0, 0], legal)
            return action, agent_state, values

        self._decide = compiled.xla(decide)

    def another(self) -> AgentPlayer:
        """The same agent for another game, compiled once for both."""
        return copy.copy(self)

    def begin(self, game: OneGame) -> None:
        """An episode of a game has begun."""
        depth = (self._config.frame_stack - 1) * self._config.frame_stride + 1
        self._history = tf.repeat(game.frame[tf.newaxis], depth, axis=0)
        self._state: Any = self._agent.initial_state(1)
        self._paid = tf.zeros([1])

    def play(self, game: OneGame) -> None:
        """Play one frame of a game that is not over."""
        if game.frames % self._config.action_repeat == 0:
            self._action, self._state, values = self._decide(self._history, self._state, game.legal_actions())
            self.action, self.values = int(self._action[0]), values.numpy()[0]
            self._paid = tf.zeros([1])
        game.step(self._action)
        self._paid += game.reward
        if game.frames % self._config.action_repeat == 0:
            self._state = self._agent.rewarded(self._state, self._paid)
            self._history = push_frame(self._history, game.frame, tf.zeros([1], tf.bool))
