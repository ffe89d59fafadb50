"""Frames that an agent has played: what it saw, what it took each action to be worth, and what it did."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfdqn import seeds
from tfdqn.config import Config
from tfdqn.envs import Environment
from tfdqn.envs.host import HostEnvironment
from tfdqn.envs.rollout import play, push_frame, select, stack_frames
from tfdqn.learners.base import Agent
from tfdqn.programs import blame, stage
from tfdqn.runtime import compiled

NUM_ENVS = 20
EPSILON = 0.05  # random actions lead to frames that a flawless player never sees


class Played(NamedTuple):
    """K decisions of an agent without state, on the host."""

    observation: np.ndarray  # [K, ...] as the network takes it, frames stacked
    legal: np.ndarray | None  # [K, A] bool, what the rules allowed; None: every action, always
    values: np.ndarray  # [K, A] float32, what the agent takes each action to be worth
    action: np.ndarray  # [K] int32, its choice


def play_frames(config: Config, env: Environment, agent: Agent, frames: int) -> Played:
    """Have an agent play, a few of its actions random ones, and ask it what it would do at each frame.

    Args:
      config: the run's.
      env: its game.
      agent: without a state that it carries on.
      frames: K, a multiple of `NUM_ENVS`.
    """
    with tf.device("/CPU:0"), blame.own_code(config):
        rounds = frames // NUM_ENVS
        seen = _on_host(config, env, agent, rounds) if env.steps_on_host else _on_device(config, env, agent, rounds)
        observation, legal = (None if each[0] is None else tf.concat(each, axis=0) for each in zip(*seen, strict=True))
        state = agent.initial_state(frames)
        values = agent.action_values(observation, state)
        action, _ = agent.act(observation, state, 0.0, tf.zeros([2], tf.int64), legal)
    return Played(observation.numpy(), None if legal is None else legal.numpy(), values.numpy(), action.numpy())


def _on_device(config, env, agent, rounds):
    games, choices = (seeds.stream(0, "export", who) for who in (0, 1))

    def decide(state, history, number):
        observation, legal = stack_frames(history, config.frame_stride), env.legal_actions(state)
        draws = seeds.at(choices, number)
        action, _ = agent.act(observation, agent.initial_state(NUM_ENVS), EPSILON, draws, legal)
        state, timestep, _, _, noise = play(env, state, action, games, number, config.action_repeat)
        is_over, fresh = timestep.termination | timestep.truncation, env.reset(noise)
        state = select(is_over, fresh, state)
        frame = select(is_over, env.observe(fresh), timestep.observation)
        return state, push_frame(history, frame, is_over), observation, legal

    decide = compiled.program(decide, jit=False, eager=False)
    state = env.reset(env.sample_noise(seeds.at(games, 0), NUM_ENVS))
    history = _begun(config, env.observe(state))
    for number in range(1, rounds + 1):
        state, history, observation, legal = decide(state, history, tf.constant(number, tf.int64))
        yield observation, legal


def _on_host(config, env: HostEnvironment, agent, rounds):
    choices, games = seeds.stream(0, "export", 1), env.begin(NUM_ENVS)
    try:
        # Copies, as a game may write the next frame where the last one was.
        frame = tf.constant(games.reset(stage.seeds_of(seeds.stream(0, "export"), 0, NUM_ENVS)).copy())
        history = _begun(config, frame)
        for number in range(1, rounds + 1):
            observation = stack_frames(history, config.frame_stride)
            draws = seeds.at(choices, number)
            action, _ = agent.act(observation, agent.initial_state(NUM_ENVS), EPSILON, draws, None)
            step = games.step(action.numpy())
            history = push_frame(
                history, tf.constant(step.shown.copy()), tf.constant(step.termination | step.truncation)
            )
            yield observation, None
    finally:
        games.close()


def _begun(config, frame):
    return tf.repeat(frame[tf.newaxis], (config.frame_stack - 1) * config.frame_stride + 1, axis=0)
