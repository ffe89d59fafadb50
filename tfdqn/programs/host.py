"""Training and evaluation around games that step on the host.

A chunk is one program, as it is of compiled games, in which a step of the games is a call of their Python
(`tfdqn.runtime.python_calls`). Each action is chosen before the updates of the round in which it is played: one round
of lag, so that the games' next step hangs on no update, and can run beside it. Where no program can call Python, on a
GPU, without XLA, and for games that call TensorFlow themselves, a chunk is several programs (`Pieces`).

What a checkpoint holds is what a compiled game's holds, but for the games: they begin new episodes when a run goes on.
Shapes: N environments.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tfdqn import cli, seeds
from tfdqn.config import Config
from tfdqn.envs.host import HostEnvironment, HostGames, HostStep
from tfdqn.envs.rollout import push_frame, select, stack_frames
from tfdqn.errors import UserError
from tfdqn.learners.base import Agent, Decision
from tfdqn.learners.metrics import Reports
from tfdqn.programs.evaluation import BLOCK_DECISIONS, FILM_DECISIONS, Evaluator, Stopped
from tfdqn.programs.pieces import Pieces
from tfdqn.programs.restarts import Nothing
from tfdqn.programs.stage import Pending, Played, Stage, seeds_of
from tfdqn.programs.training import Carry, Trainer
from tfdqn.replay.transitions import Row
from tfdqn.runtime import compiled, loops, python_calls


class HostTrainer(Trainer):
    """A `Trainer` of a `HostEnvironment`; the same calls mean the same. The games are one step ahead of the carry.

    Raises:
      UserError: settings that need a game's state.
    """

    def __init__(self, config: Config, device: str, env: HostEnvironment):
        _check(config, env)
        super().__init__(config, device, env)
        self.stage = Stage(env.begin(config.num_envs))
        self._iteration = -1  # of the carry that the games belong to
        self._fill, self.learner.is_filled_first = None, False  # updates may look whether there is enough to learn from
        self._choose_program = compiled.program(self._choose, jit=config.jit, eager=config.eager)
        self._pieces: Pieces | None = None
        if config.jit and not config.eager and loops.is_cpu(device) and python_calls.are_possible():
            frames = tf.TensorSpec([config.num_envs, *env.observation_shape], env.observation_spec.dtype)
            numbers = tf.TensorSpec([3, config.num_envs], tf.float32)
            specs = [frames, numbers] if self.stage.games.skips_resets else [frames, numbers, frames]
            self._play = python_calls.PythonCall(self.stage.fill, specs)
        else:
            self._fall_to_pieces()

    def _fall_to_pieces(self) -> None:
        """Have a chunk be several programs from now on."""
        self._pieces = Pieces(self)
        self._chunk = compiled.program(self._pieces.run, jit=False, eager=self.config.eager)

    def initial_carry(self) -> Carry:
        """Fresh episodes in every environment, nothing counted."""
        config = self.config
        with self.stage.watched():
            frame = self._begin_games(0)
        with tf.device(self.device):
            depth = (config.frame_stack - 1) * config.frame_stride + 1
            agent_state = self.agent.initial_state(config.num_envs)
            carry = Carry(
                iteration=tf.zeros([], tf.int64),
                env_frames=tf.zeros([], tf.int64),
                env_state=(),
                agent_state=agent_state,
                memory=Nothing(),
                history=tf.repeat(tf.constant(frame)[tf.newaxis], depth, axis=0),
                is_first=tf.ones([config.num_envs], tf.bool),
                is_over=tf.zeros([config.num_envs], tf.bool),
                is_standard=tf.ones([config.num_envs], tf.bool),
                episode_score=tf.zeros([config.num_envs]),
                episode_frames=tf.zeros([config.num_envs], tf.int32),
                metrics=self.learner.sums().zeros(),
            )
            return self._started(carry)

    def _started(self, carry: Carry) -> Carry:
        """With the first decision played."""
        pending = self._choose_program(carry)
        action = pending.action.numpy()
        with self.stage.watched():
            played = self.stage.step(action)
        if self.stage.calls_tensorflow and not self._pieces:
            self._fall_to_pieces()
        played = [tf.constant(value) for value in played]
        return carry._replace(env_state=pending._replace(played=Played.of(played)))

    def _begin_games(self, iteration: int) -> np.ndarray:
        """New episodes, other ones than those that began at an earlier iteration; their first frames."""
        self._iteration = iteration
        return self.stage.games.reset(seeds_of(self.config.seed, iteration, self.config.num_envs))

    def run_reporting_chunk(
        self, carry: Carry, max_rounds: int, stop_env_frames: int, next_report: int
    ) -> tuple[Carry, Reports]:
        with tf.device(self.device):
            plays = max_rounds and int(carry.env_frames) < stop_env_frames
            if plays and int(carry.iteration) != self._iteration:
                carry = self._begin_again(carry)
            if self._pieces:
                self._pieces.warm(carry)
            if not plays:
                return super().run_reporting_chunk(carry, max_rounds, stop_env_frames, next_report)
        self.stage.failure = None
        try:
            carry, reports = super().run_reporting_chunk(carry, max_rounds, stop_env_frames, next_report)
            if self.stage.failure is not None:
                raise self.stage.failure  # which ended the program
        except BaseException:
            self._iteration = -1  # the games have gone on, and nobody knows how far
            if self.stage.failure is None:
                raise
            if self.stage.calls_tensorflow and not self._pieces:
                message = f"{self.env.name}: calls TensorFlow, as it did not in its first step; use --no-jit"
                raise UserError(message) from self.stage.failure
            raise self.stage.failure from None
        self._iteration = int(carry.iteration)
        return carry, reports

    def _begin_again(self, carry: Carry) -> Carry:
        """New episodes: these games know nothing of the carry's. To learning, those were cut off."""
        num_envs = self.config.num_envs
        cli.say(f"{self.env.name} steps on the host: {num_envs} new episodes begin")
        frame, ended = self._begin_games(int(carry.iteration)), np.zeros(num_envs, bool)
        pending = Pending(tf.zeros([num_envs], tf.int32), carry.agent_state, ())
        carry = carry._replace(is_over=tf.ones([num_envs], tf.bool), env_state=pending)
        step = HostStep(frame, tf.zeros([num_envs]), ended, ended, frame)
        return self._started(self.noted(carry, self.learner.begin_round(), tf.constant(0), step, skips_resets=True)[0])

    # One program.

    def _goes_on(self, is_wanted: tf.Tensor, carry: Carry) -> tf.Tensor:
        return is_wanted & ~carry.env_state.played.is_lost

    def _round(self, carry: Carry, learns: bool) -> Carry:
        wanted = self.learner.iterations_per_round
        state = (tf.constant(0), carry, self.learner.begin_round())
        if wanted == 1:
            _, carry, gathered = self._once(*state)
            return carry._replace(metrics=self._learn(carry, gathered))
        number, carry, gathered = tf.while_loop(
            lambda number, carry, _: self._goes_on(number < wanted, carry), self._once, state
        )
        # Nothing is learnt from a round in the middle of which the games were lost.
        _, sums = tf.while_loop(
            lambda i, _: i < number // wanted,
            lambda i, sums: (i + 1, self._learn(carry._replace(metrics=sums), gathered)),
            (tf.constant(0), carry.metrics),
        )
        return carry._replace(metrics=sums)

    def _once(self, number: tf.Tensor, carry: Carry, gathered: Any) -> tuple[tf.Tensor, Carry, Any]:
        step = carry.env_state.played.step()
        carry, gathered = self.noted(carry, gathered, number, step)
        pending = self.answered(carry, step)
        played = Played.of(self._play(pending.action))
        return number + 1, carry._replace(env_state=pending._replace(played=played)), gathered

    # What all programs are made of.

    def noted(
        self, carry: Carry, gathered: Any, number: tf.Tensor, step: HostStep, skips_resets: bool | None = None
    ) -> tuple[Carry, Any]:
        """Take in the decision under way, of which the learner knows then; the next one is not made yet.

        Args:
          carry: in which that decision is.
          gathered: in the round so far.
          number: of the decision in its round.
          step: what the games show for it.
          skips_resets: as of the games, if not said.

        Returns:
          The carry and what is gathered.
        """
        skips_resets = self.stage.games.skips_resets if skips_resets is None else skips_resets
        # Where the newest frame was an episode's last, the row only holds that frame. A game that plays on in the same
        # step has its first action in no row; the next row begins the episode for learning.
        is_over = carry.is_over
        is_played = ~is_over if skips_resets else tf.ones_like(is_over)
        row = Row(
            frame=carry.history[-1],
            action=carry.env_state.action,
            reward=tf.convert_to_tensor(step.reward),
            discount=tf.cast(~tf.convert_to_tensor(step.termination), tf.float32),
            is_first=carry.is_first,
            is_boundary=is_over,
        )
        observation = stack_frames(carry.history, self.config.frame_stride)
        gathered = self.learner.take(gathered, number, Decision(observation, carry.agent_state, row))
        ended = is_played & (step.termination | step.truncation)
        episode_score = tf.where(is_over, 0.0, carry.episode_score) + tf.where(is_played, step.reward, 0.0)
        episode_frames = tf.where(is_over, 0, carry.episode_frames) + tf.cast(is_played, tf.int32)
        metrics = carry.metrics._replace(
            episodes=carry.metrics.episodes + tf.reduce_sum(tf.cast(ended, tf.int64)),
            score=carry.metrics.score + tf.reduce_sum(tf.where(ended, episode_score, 0.0)),
            episode_frames=carry.metrics.episode_frames
            + tf.reduce_sum(tf.where(ended, tf.cast(episode_frames, tf.int64), 0)),
        )
        # A game that begins its next episode in the step of an end is answered from a fresh state there.
        fresh = self.agent.initial_state(self.config.num_envs)
        remembered = self.agent.rewarded(carry.env_state.agent_state, tf.convert_to_tensor(step.reward))
        carry = carry._replace(
            iteration=carry.iteration + 1,
            agent_state=select(is_over if skips_resets else ended, fresh, remembered),
            env_frames=carry.env_frames + tf.reduce_sum(tf.cast(is_played, tf.int64)),
            history=push_frame(carry.history, tf.convert_to_tensor(step.frame), is_over),
            is_first=is_over,
            is_over=ended,
            episode_score=episode_score,
            episode_frames=episode_frames,
            metrics=metrics,
        )
        return carry, gathered

    def _choose(self, carry: Carry) -> Pending:
        """What to do first."""
        return self._decided(carry, carry.history)

    def answered(self, carry: Carry, step: HostStep) -> Pending:
        """The next decision: what to do about what a step has shown that is taken in."""
        history = carry.history
        if not self.stage.games.skips_resets:
            # Where an episode is over the next has begun, and the action answers to that one's first frame.
            history = push_frame(tf.concat([history[:1], history[:-1]], axis=0), step.shown, carry.is_over)
        return self._decided(carry, history)

    def _decided(self, carry: Carry, history: tf.Tensor) -> Pending:
        return Pending(*self._decide(carry, stack_frames(history, self.config.frame_stride), None), played=())


def _check(config: Config, env: HostEnvironment) -> None:
    """Refuse what needs a game's state, or its frames between decisions."""
    for name, neutral in (("start_curriculum", 0.0), ("restart_share", 0.0), ("action_repeat", 1)):
        if getattr(config, name) != neutral:
            flag = name.replace("_", "-")
            raise UserError(
                f"--{flag} {getattr(config, name)}: {env.name} steps on the host, which has no such thing; use "
                f"{neutral:g}"
            )


class HostEvaluator(Evaluator):
    """An `Evaluator` of a `HostEnvironment`; the same calls mean the same."""

    def __init__(self, config: Config, env: HostEnvironment, agent: Agent, *more: Any):
        super().__init__(config, env, agent, *more)
        self._games: HostGames | None = None
        self._act = compiled.program(self._act_once, jit=config.jit, eager=config.eager)

    def _act_once(
        self, history: tf.Tensor, agent_state: Any, frame: tf.Tensor, epsilon: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, Any, tf.Tensor, tf.Tensor]:
        """The history with a frame more, what the agent carries on, the actions [E] and the first one's values [A]."""
        history = push_frame(history, frame, tf.zeros([frame.shape[0]], tf.bool))
        observation = stack_frames(history, self.config.frame_stride)
        values = self.agent.action_values(observation, agent_state)[0]
        action, agent_state = self.agent.act(observation, agent_state, epsilon, seed, None)
        return history, agent_state, action, values

    def _play_episodes(self, first, streams, max_frames, epsilon):
        config, env, size = self.config, self.env, self.config.eval_episodes
        if self._games is None:
            self._games = env.begin(size)
        frame = self._games.reset(seeds_of(int(streams[0]), 0, size, first))
        depth = (config.frame_stack - 1) * config.frame_stride + 1
        history = tf.repeat(tf.constant(frame)[tf.newaxis], depth, axis=0)
        agent_state = self.agent.initial_state(size)
        is_done, length = np.zeros(size, bool), np.zeros(size, np.int32)
        total = np.zeros(size, np.float32)
        film = np.zeros([FILM_DECISIONS + 1, *env.observation_shape], frame.dtype)
        q_values = np.zeros([FILM_DECISIONS + 1, env.num_actions], np.float32)
        rate, step = tf.constant(epsilon, tf.float32), 0
        while not is_done.all():
            if step % BLOCK_DECISIONS == 0 and self.should_stop():
                raise Stopped
            step += 1
            draws = seeds.skip(seeds.at(streams[1], tf.constant(step, tf.int64)), tf.constant(first, tf.int64))
            history, agent_state, action, values = self._act(history, agent_state, tf.constant(frame), rate, draws)
            if not is_done[0]:
                place = min(step - 1, FILM_DECISIONS)
                film[place], q_values[place] = frame[0], values.numpy()
            played = self._games.step(action.numpy())
            agent_state = self.agent.rewarded(agent_state, tf.constant(played.reward))
            total += np.where(is_done, 0, played.reward)
            length += ~is_done
            is_done |= played.termination | played.truncation | (length >= max_frames)
            frame = played.frame
        return total, length, film, q_values
