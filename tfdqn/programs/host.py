"""Training and evaluation around games that step on the host.

A decision is a step of the games in Python and one compiled call, which writes the last decision's row, takes in the
frames that followed and chooses the next actions; the updates of a round are another. Each action is chosen before the
updates of the round in which it is played: one round of lag, for one call in place of two.

What a checkpoint holds is what a compiled game's holds, but for the games: they begin new episodes when a run goes on.
Shapes: N environments.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfdqn import cli, seeds
from tfdqn.config import Config
from tfdqn.envs.host import HostEnvironment, HostGames, HostStep
from tfdqn.envs.rollout import push_frame, select, stack_frames
from tfdqn.errors import UserError
from tfdqn.learners.base import Agent, Decision
from tfdqn.learners.metrics import MAX_REPORTS, Metrics, Reports
from tfdqn.programs.evaluation import BLOCK_DECISIONS, FILM_DECISIONS, Evaluator, Stopped
from tfdqn.programs.restarts import Nothing
from tfdqn.programs.training import Carry, Trainer
from tfdqn.replay.transitions import Row
from tfdqn.runtime import compiled


class Elsewhere(NamedTuple):
    """The state of games that keep it themselves."""


def seeds_of(seed: int, start: int, count: int, first: int = 0) -> list[int]:
    """A seed below 2^31 for each of `count` environments: it follows from a seed, the start and its number alone."""
    return [seeds.stream(seed, "env", start, first + i) % 2**31 for i in range(count)]


class HostTrainer(Trainer):
    """A `Trainer` of a `HostEnvironment`; the same calls mean the same.

    Raises:
      UserError: settings that need a game's state.
    """

    def __init__(self, config: Config, device: str, env: HostEnvironment):
        _check(config, env)
        self._games: HostGames | None = None
        self._action: np.ndarray | None = None  # [N] int32, chosen and not yet played
        self._agent_state: Any = None  # what the agent carries on from that
        self._gathered: Any = None  # by the learner, in the round under way
        self._iteration = -1  # of the carry that it was chosen for
        self._is_over: np.ndarray | None = None  # [N] bool, as in that carry
        super().__init__(config, device, env)
        programs = (self._note, self._choose, self._update, self._guarded_metrics)
        programs = [compiled.program(each, jit=config.jit, eager=config.eager) for each in programs]
        self._note_program, self._choose_program, self._update_program, self._guard_program = programs
        self._is_warm = False

    @property
    def trace_count(self) -> int:
        """How often the program of a decision was traced: 1 in a whole run."""
        program = self._note_program
        return program.experimental_get_tracing_count() if hasattr(program, "get_concrete_function") else 0

    def initial_carry(self) -> Carry:
        """Fresh episodes in every environment, nothing counted."""
        config = self.config
        frame = self._begin_games(0)
        with tf.device(self.device):
            depth = (config.frame_stack - 1) * config.frame_stride + 1
            return Carry(
                iteration=tf.zeros([], tf.int64),
                env_frames=tf.zeros([], tf.int64),
                env_state=Elsewhere(),
                agent_state=self.agent.initial_state(config.num_envs),
                memory=Nothing(),
                history=tf.repeat(tf.constant(frame)[tf.newaxis], depth, axis=0),
                is_first=tf.ones([config.num_envs], tf.bool),
                is_over=tf.zeros([config.num_envs], tf.bool),
                is_standard=tf.ones([config.num_envs], tf.bool),
                episode_score=tf.zeros([config.num_envs]),
                episode_frames=tf.zeros([config.num_envs], tf.int32),
                metrics=self.learner.sums().zeros(),
            )

    def _begin_games(self, iteration: int) -> np.ndarray:
        """New episodes, other ones than those that began at an earlier iteration; their first frames."""
        if self._games is None:
            self._games = self.env.begin(self.config.num_envs)
        self._action = None
        return self._games.reset(seeds_of(self.config.seed, iteration, self.config.num_envs))

    def run_reporting_chunk(
        self, carry: Carry, max_rounds: int, stop_env_frames: int, next_report: int
    ) -> tuple[Carry, Reports]:
        """As the base class's; the loop is Python's."""
        config, rounds, frames = self.config, 0, int(carry.env_frames)
        with tf.device(self.device):
            self._warm(carry)
            reports = Reports.none(tf.constant(next_report, tf.int64), self.learner.sums())
            num_reports = 0
            if max_rounds and frames < stop_env_frames:
                carry = self._go_on(carry)
            while rounds < max_rounds and frames < stop_env_frames and num_reports < MAX_REPORTS:
                self._gathered = self.learner.begin_round()
                for number in range(self.learner.iterations_per_round):
                    carry, played = self._interact_once(carry, number)
                    frames += played
                rounds += 1
                carry = carry._replace(metrics=self._update_program(carry, self._gathered, tf.constant(1)))
                if frames >= next_report:
                    reports, metrics = reports.close_if_due(
                        carry.env_frames, self.agent.optimizer.iterations, carry.metrics, config.log_every_frames
                    )
                    carry, next_report = carry._replace(metrics=metrics), int(reports.next_env_frames)
                    num_reports += 1
            return carry._replace(metrics=self._guard_program(carry.metrics)), reports

    def _warm(self, carry: Carry) -> None:
        """Compile all programs before anything is timed; nothing is written or learnt."""
        if self._is_warm:
            return
        nothing, gathered = tf.constant(0), self.learner.begin_round()
        frame = carry.history[-1]
        ended = tf.zeros([self.config.num_envs], tf.bool)
        step = HostStep(frame, tf.zeros([self.config.num_envs]), ended, ended, frame)
        action, agent_state = self._choose_program(carry)
        self._note_program(carry, gathered, nothing, action, agent_state, step, tf.constant(False), nothing)
        self._update_program(carry, gathered, nothing)
        self._guard_program(carry.metrics)
        self._is_warm = True

    def _go_on(self, carry: Carry) -> Carry:
        """Have an action ready for where the games are."""
        iteration, num_envs = int(carry.iteration), self.config.num_envs
        if self._action is not None and self._iteration == iteration:
            return carry
        if iteration:
            # These games know nothing of the carry's episodes. To learning, they were cut off.
            cli.say(f"{self.env.name} steps on the host: {num_envs} new episodes begin")
            frame = self._begin_games(iteration)
            ended, zeros = np.zeros(num_envs, bool), np.zeros(num_envs, np.float32)
            carry = carry._replace(is_over=tf.ones([num_envs], tf.bool))
            step = HostStep(frame, zeros, ended, ended, frame)
            carry, self._gathered, _, _ = self._note_program(
                carry,
                self.learner.begin_round(),
                tf.constant(0),
                tf.zeros([num_envs], tf.int32),
                carry.agent_state,
                _tensors(step),
                tf.constant(True),
                tf.constant(1),
            )
        action, self._agent_state = self._choose_program(carry)
        self._action, self._iteration = action.numpy(), int(carry.iteration)
        self._is_over = np.zeros(num_envs, bool)
        return carry

    def _interact_once(self, carry: Carry, number: int) -> tuple[Carry, int]:
        """The round's decision of that number, told to the learner, and the next action; with the frames played."""
        skips_resets = self._games.skips_resets
        step = self._games.step(self._action)
        carry, self._gathered, action, self._agent_state = self._note_program(
            carry,
            self._gathered,
            tf.constant(number),
            tf.constant(self._action),
            self._agent_state,
            _tensors(step),
            tf.constant(skips_resets),
            tf.constant(1),
        )
        is_played = ~self._is_over | (not skips_resets)
        self._action, self._is_over = action.numpy(), is_played & (step.termination | step.truncation)
        self._iteration += 1
        return carry, int(is_played.sum())

    def _note(
        self,
        carry: Carry,
        gathered: Any,
        number: tf.Tensor,
        action: tf.Tensor,
        agent_state: Any,
        step: HostStep,
        skips_resets: tf.Tensor,
        times: tf.Tensor,
    ) -> tuple[Carry, Any, tf.Tensor, Any]:
        """Take in a step of the games, `times` 0 or 1.

        Returns:
          The carry after it, what the learner has gathered, what to do next, [N] int32, and what the agent carries on.
        """
        # A loop, not a condition: XLA passes the replay by without a copy.
        _, carry, gathered = tf.while_loop(
            lambda i, *_: i < times,
            lambda i, *held: (i + 1, *self._noted(*held, number, action, agent_state, step, skips_resets)),
            (tf.constant(0), carry, gathered),
        )
        # Where an episode is over and the next has begun, the action answers to the new one's first frame.
        older = tf.concat([carry.history[:1], carry.history[:-1]], axis=0)
        begun = push_frame(older, step.shown, carry.is_over)
        history = tf.where(skips_resets, carry.history, begun)
        action, agent_state = self._decide(carry, stack_frames(history, self.config.frame_stride), None)
        return carry, gathered, action, agent_state

    def _noted(
        self,
        carry: Carry,
        gathered: Any,
        number: tf.Tensor,
        action: tf.Tensor,
        agent_state: Any,
        step: HostStep,
        skips_resets: tf.Tensor,
    ) -> tuple[Carry, Any]:
        """The carry after a decision, of which the learner knows then."""
        # Where the newest frame was an episode's last, the row only holds that frame. A game that plays on in the same
        # step has its first action in no row; the next row begins the episode for learning.
        is_over = carry.is_over
        is_played = ~(is_over & skips_resets)
        row = Row(
            frame=carry.history[-1],
            action=action,
            reward=step.reward,
            discount=tf.cast(~step.termination, tf.float32),
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
        ended_state = tf.where(skips_resets, is_over, ended)
        carry = carry._replace(
            iteration=carry.iteration + 1,
            agent_state=select(
                ended_state,
                self.agent.initial_state(self.config.num_envs),
                self.agent.rewarded(agent_state, step.reward),
            ),
            env_frames=carry.env_frames + tf.reduce_sum(tf.cast(is_played, tf.int64)),
            history=push_frame(carry.history, step.frame, is_over),
            is_first=is_over,
            is_over=ended,
            episode_score=episode_score,
            episode_frames=episode_frames,
            metrics=metrics,
        )
        return carry, gathered

    def _choose(self, carry: Carry) -> tuple[tf.Tensor, Any]:
        """What to do first, [N] int32, and what the agent carries on."""
        return self._decide(carry, stack_frames(carry.history, self.config.frame_stride), None)

    def _update(self, carry: Carry, gathered: Any, times: tf.Tensor) -> Metrics:
        """What is learnt at a round's end, `times` 0 or 1: the sums after it."""
        observation = stack_frames(carry.history, self.config.frame_stride)

        def update(i, sums):
            return i + 1, self.learner.update(gathered, observation, carry.agent_state, sums)

        return tf.while_loop(lambda i, _: i < times, update, (tf.constant(0), carry.metrics))[1]

    def _guarded_metrics(self, metrics: Metrics) -> Metrics:
        return self._guard_weights(metrics)


def _tensors(step: HostStep) -> HostStep:
    """One conversion each, of the dtypes that the program was traced for."""
    return HostStep(*(tf.constant(value) for value in step))


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


def film(config: Config, env: HostEnvironment, agent: Agent, seed: int, max_frames: int) -> np.ndarray:
    """The pictures of one greedy episode, [T, H, W, 3] uint8, T at most `max_frames`.

    Raises:
      UserError: the game has no pictures.
    """
    act = compiled.xla(
        lambda history, state: agent.act(stack_frames(history, config.frame_stride), state, 0.0, [0, 0], None)
    )
    games = env.begin(1, with_pictures=True)
    history = tf.constant(games.reset(seeds_of(seed, 0, 1)))[tf.newaxis]
    history = tf.repeat(history, (config.frame_stack - 1) * config.frame_stride + 1, axis=0)
    pictures, is_over, state = [games.render()], False, agent.initial_state(1)
    if pictures[0] is None:
        raise UserError(f"{env.name} has no pictures")
    while len(pictures) < max_frames and not is_over:
        action, state = act(history, state)
        step = games.step(action.numpy())
        state = agent.rewarded(state, tf.constant(step.reward))
        is_over = bool(step.termination[0] | step.truncation[0])
        history = push_frame(history, tf.constant(step.frame), tf.zeros([1], tf.bool))
        pictures.append(games.render())
    games.close()
    return np.stack(pictures)
