"""Finite games whose action values are known: played through the public contract, solved in float64.

Shapes: S states, A actions, K equally likely outcomes of an action, N environments, H W rows and columns of a frame.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfdqn import config as configuration
from tfdqn.envs import Environment, TimeStep
from tfdqn.learners.dqn import building
from tfdqn.learners.dqn.learner import DQNLearner
from tfdqn.programs import training

STATES, ACTIONS, OUTCOMES, SCREEN = 16, 2, 16, (4, 4)
NEVER = 2**30  # decisions, more than any test makes: no time limit
WRONG = -1000.0  # what a step after an episode's end pays: nobody may learn from one
DISCOUNT = 0.9


class Rules(NamedTuple):
    """A game, as arrays. Fewer than S states are enough; `rules` fills up what is left out."""

    reward: np.ndarray  # [S, A]
    successor: np.ndarray  # [S, A, K] state after each outcome
    terminates: np.ndarray  # [S, A] bool
    frames: np.ndarray  # [S, H, W] uint8, what each state shows
    older: np.ndarray  # [S] the state before, or the state itself where an episode begins
    starts: np.ndarray  # [K] states an episode begins in
    decisions: np.ndarray  # [] an episode is truncated after so many
    num_states: int  # the first so many are what can be met; the others are padding


def rules(reward, successor, terminates, frames=None, older=None, starts=(0,), decisions=NEVER) -> Rules:
    """Rules from arrays that name no more states and outcomes than they need; by default a state lights one pixel."""
    states = len(reward)
    successor = np.asarray(successor).reshape(states, ACTIONS, -1)
    full = Rules(
        reward=np.zeros([STATES, ACTIONS], np.float32),
        successor=np.zeros([STATES, ACTIONS, OUTCOMES], np.int32),
        terminates=np.ones([STATES, ACTIONS], bool),
        frames=np.eye(STATES, dtype=np.uint8).reshape(STATES, *SCREEN) * 255,
        older=np.arange(STATES),
        starts=np.resize(starts, OUTCOMES).astype(np.int32),
        decisions=np.array(decisions, np.int32),
        num_states=states,
    )
    full.reward[:states], full.terminates[:states] = reward, terminates
    full.successor[:states] = np.tile(successor, OUTCOMES // successor.shape[-1])
    if frames is not None:
        full.frames[:states] = frames
    if older is not None:
        full.older[:states] = older
    return full


def known_q(game: Rules, discount: float) -> np.ndarray:
    """Optimal action values [S, A] float64 by value iteration. A time limit does not count: the game goes on."""
    reward, q = game.reward.astype(np.float64), np.zeros([STATES, ACTIONS])
    while True:
        better = reward + discount * ~game.terminates * q.max(1)[game.successor].mean(-1)
        if np.abs(better - q).max() < 1e-12:
            return better[: game.num_states]
        q = better


class Noise(NamedTuple):
    outcome: tf.Tensor  # [N] int32, 0..K-1
    start: tf.Tensor  # [N] int32, 0..K-1


class State(NamedTuple):
    place: tf.Tensor  # [N] int32, 0..S-1
    time: tf.Tensor  # [N] int32, decisions since reset
    is_over: tf.Tensor  # [N] bool, the episode has ended; whoever steps on is paid WRONG
    is_dead: tf.Tensor  # [N] bool, it has terminated: the screen is white


class FiniteGame(Environment):
    """A game that is told its rules. They are variables, so that one compiled program plays any number of games."""

    name, version, frames_per_second = "finite", 1, 1.0
    time_limit, best_score = NEVER, float("inf")
    action_names = ("first", "second")
    observation_shape = SCREEN
    palette = {0: (0, 0, 0), 255: (255, 255, 255)}  # noqa: RUF012

    def __init__(self):
        blank = rules([[0, 0]], [[0, 0]], [[True, True]])
        kept = ("reward", "successor", "terminates", "frames", "starts", "decisions")
        self._tables = {name: tf.Variable(getattr(blank, name), trainable=False) for name in kept}

    def load(self, game: Rules) -> None:
        """Play this game from now on."""
        for name, variable in self._tables.items():
            variable.assign(getattr(game, name))

    def sample_noise(self, seed, num_envs):
        draw = tf.random.stateless_uniform([num_envs], seed, None, None, tf.int64)
        parts = (tf.bitwise.bitwise_and(tf.bitwise.right_shift(draw, shift), OUTCOMES - 1) for shift in (0, 32))
        return Noise(*(tf.cast(part, tf.int32) for part in parts))

    def reset(self, noise):
        place = self._look_up("starts", noise.start)
        no = tf.zeros_like(place, tf.bool)
        return State(place, tf.zeros_like(place), no, no)

    def step(self, state, action, noise):
        here = tf.stack([state.place, action], axis=-1)
        place = self._look_up("successor", tf.concat([here, noise.outcome[:, None]], axis=-1))
        reward = tf.where(state.is_over, WRONG, self._look_up("reward", here))
        termination = self._look_up("terminates", here)
        time = state.time + 1
        truncation = (time >= self._tables["decisions"]) & ~termination
        state = State(place, time, state.is_over | termination | truncation, termination)
        return state, TimeStep(self.observe(state), reward, termination, truncation)

    def observe(self, state):
        screen = self._look_up("frames", state.place)
        return tf.where(state.is_dead[:, None, None], tf.constant(255, tf.uint8), screen)

    def _look_up(self, table, index):
        table = tf.convert_to_tensor(self._tables[table])
        return tf.gather(table, index) if index.shape.rank == 1 else tf.gather_nd(table, index)


MODES = {"eager": {"eager": True}, "graph": {"jit": False}, "xla": {}}
SETTINGS = {
    **{"num_envs": 32, "batch_size": 64, "replay_capacity": 200_000, "replay_min_rows": 200, "device": "cpu"},
    **{"optimizer": "adam", "optimizer_epsilon": 1e-6, "learning_rate": 5e-3, "learning_rate_end": 2e-5},
    **{"discount": DISCOUNT, "target_update_period_updates": 25},
    # Learning plays at random, a player that is shown what it can plays greedily: see `Lab`.
    **{"epsilon_start": 1.0, "epsilon_end": 0.0, "epsilon_decay_env_frames": 2**62},
}
LATE = 2**62  # env frames, when epsilon is 0


class Lab:
    """One trainer that learns game after game, each from nothing.

    Args:
      iterations: of learning, over which the learning rate falls.
      game: another kind of finite game.
      **given: settings that differ from `SETTINGS`.
    """

    def __init__(self, iterations: int, game: FiniteGame | None = None, **given):
        self.iterations, self.game = iterations, FiniteGame() if game is None else game
        settings = {**SETTINGS, "learning_rate_decay_updates": iterations, **given}
        self.config = configuration.resolve(settings)
        self.trainer = training.Trainer(self.config, env=self.game)
        self._fresh = [variable.numpy() for variable in self.trainer.agent.optimizer.variables]

    def learn(self, game: Rules, seed: int) -> np.ndarray:
        """Learn a game by random play and return Q, [S, A]; a seed stands for first weights and for all draws."""
        trainer = self.trainer
        self._rules = game
        self.game.load(game)
        agent = building.build_agent(self.config.replace(seed=seed), self.game)
        trainer.agent.set_weights(agent.get_weights())
        for variable, value in zip(trainer.agent.optimizer.variables, self._fresh, strict=True):
            variable.assign(value)
        trainer.replay.clear()
        # All draws follow from the count of iterations: another start, and they are others.
        carry = trainer.initial_carry()._replace(iteration=tf.constant(seed * 2**33, tf.int64))
        self._carry = trainer.run_chunk(carry, self.iterations, 2**62)
        seen = np.stack([game.frames[game.older], game.frames][-self.config.frame_stack :], axis=-1)
        return trainer.agent(tf.constant(seen[: game.num_states])).numpy()

    def error(self, game: Rules, seed: int) -> float:
        """The largest |Q - Q*| after learning."""
        return float(np.abs(self.learn(game, seed) - known_q(game, self.config.discount)).max())

    def greedy_score(self) -> float:
        """The mean score of greedy episodes in the training loop itself, after learning."""
        carry = self._carry._replace(env_frames=tf.constant(LATE, tf.int64))
        carry = self.trainer.run_chunk(carry, 20, 2**63 - 1)  # ends the episodes that began at random
        carry = self.trainer.run_chunk(carry._replace(metrics=DQNLearner.sums().zeros()), 50, 2**63 - 1)
        return float(carry.metrics.score) / int(carry.metrics.episodes)
