"""One iteration of DQN, and the trainer that runs thousands of them in one compiled program.

An iteration is one decision of every environment: act, play, add to the replay, and, when an update is due, sample
and learn. Everything it changes is either in the `Carry`, which enters and leaves as a value, or owned by the agent,
its optimizer and the replay. Shapes: N environments, H W rows and columns, B batch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from tfdqn import seeds
from tfdqn.config import Config
from tfdqn.envs import Environment, make_for
from tfdqn.envs.rollout import play, push_frame, score_of, select, stack_frames
from tfdqn.learners.dqn import rules
from tfdqn.learners.dqn.result import CAUSES
from tfdqn.networks import catalogue
from tfdqn.programs import convolutions
from tfdqn.programs.building import build_learner
from tfdqn.programs.metrics import MAX_REPORTS, SHARED_BIT, Metrics, Reports, note_non_finite
from tfdqn.programs.restarts import Memory, Nothing, Past, Practice
from tfdqn.replay.table import FrameReplay, Row
from tfdqn.runtime import compiled


class Carry(NamedTuple):
    """What one iteration hands to the next."""

    iteration: tf.Tensor  # [] int64, iterations so far: every seed follows from it
    env_frames: tf.Tensor  # [] int64, frames played so far, over all environments
    env_state: Any  # the game's NamedTuple, [N, ...]
    memory: Memory | Nothing  # where players crashed
    history: tf.Tensor  # [(stack - 1) * stride + 1, N, ...] as the game's frames, the newest last
    is_first: tf.Tensor  # [N] bool, the newest frame begins an episode
    is_over: tf.Tensor  # [N] bool, the newest frame is the last of an episode: the next decision is a reset
    is_standard: tf.Tensor  # [N] bool, the episode began at the game's own start
    episode_return: tf.Tensor  # [N] float32
    episode_frames: tf.Tensor  # [N] int32
    metrics: Metrics


NEVER = 2**62  # env frames that no run reaches


def repeat_body(times: int, body: Callable, carry: Any) -> Any:
    """Apply `body` a fixed number of times, as a loop: it compiles once, and a small one runs as one kernel."""
    if times == 1:
        return body(carry)
    return tf.while_loop(lambda i, _: i < times, lambda i, c: (i + 1, body(c)), (tf.constant(0), carry))[1]


class Trainer:
    """Builds a run's environment, agent and replay, and runs its iterations in chunks.

    Args:
      config: the run's configuration.
      device: TensorFlow device that holds everything, such as "/GPU:0".
      env: a game of one's own, in place of the one that the configuration names.

    Attributes:
      config: the run's, with what the device decides.
      exploration: the share of random actions, by the frames played.
    """

    def __init__(self, config: Config, device: str = "/CPU:0", env: Environment | None = None):
        self.device = device
        self.env = make_for(config) if env is None else env
        with tf.device(device):
            self.config = config = convolutions.choose(config, device, lambda each: build_learner(each, self.env))
            self.exploration = rules.exploration(config)
            self._player = rules.PLAYERS[config.play_target]
            self._practice = Practice(config.num_envs, config.num_practisers)
            self.replay = build_replay(config, self.env, device)
            self.agent = build_learner(config, self.env)
        self._chunk = compiled.program(self._run, jit=config.jit, eager=config.eager)

    def initial_carry(self) -> Carry:
        """Fresh episodes in every environment, nothing counted."""
        config = self.config
        with tf.device(self.device):
            start = seeds.at(seeds.stream(config.seed, "start"), 0)
            noise = self.env.sample_noise(start, config.num_envs)
            state = self.env.training_reset(noise, config.start_curriculum)
            frame = self.env.observe(state)
            depth = (config.frame_stack - 1) * config.frame_stride + 1
            history = tf.repeat(frame[tf.newaxis], depth, axis=0)
            return Carry(
                iteration=tf.zeros([], tf.int64),
                env_frames=tf.zeros([], tf.int64),
                env_state=state,
                memory=self._practice.begin(Past.of(state, history)),
                history=history,
                is_first=tf.ones([config.num_envs], tf.bool),
                is_over=tf.zeros([config.num_envs], tf.bool),
                is_standard=self._is_standard(noise),
                episode_return=tf.zeros([config.num_envs]),
                episode_frames=tf.zeros([config.num_envs], tf.int32),
                metrics=Metrics.zeros(),
            )

    def run_chunk(self, carry: Carry, max_rounds: int, stop_env_frames: int) -> Carry:
        """Run rounds of iterations and updates until a count of rounds or of frames is reached; report nothing.

        Args:
          carry: from `initial_carry` or the last chunk.
          max_rounds: rounds to run at most; a round is `iterations_per_update` iterations and the updates then due.
          stop_env_frames: return after the first round in which the run's frames reach this count.
        """
        return self.run_reporting_chunk(carry, max_rounds, stop_env_frames, NEVER)[0]

    def run_reporting_chunk(
        self, carry: Carry, max_rounds: int, stop_env_frames: int, next_report: int
    ) -> tuple[Carry, Reports]:
        """The same program, which also closes the sums of `Carry.metrics` whenever a report is due, and goes on.

        Starting a program costs more than a report, and one of a quick run's reports is due every few milliseconds.

        Args:
          carry, max_rounds, stop_env_frames: as of `run_chunk`; it also returns once it has `MAX_REPORTS` reports.
          next_report: env frames from which the next report is due; those after it are `log_every_frames` apart.
        """
        counts = (tf.constant(count, tf.int64) for count in (max_rounds, stop_env_frames, next_report))
        with tf.device(self.device):
            return self._chunk(carry, *counts)

    def player(self) -> contextlib.AbstractContextManager:
        """Meanwhile the agent is the one that the run is to give."""
        return self._player(self.agent)

    @property
    def variables(self) -> dict[str, tf.Variable]:
        """All that a run changes besides its carry, by stable names."""
        agent = self.agent
        groups = {
            "agent/online": agent.online.variables,
            "agent/target": agent.target.variables,
            "optimizer": agent.optimizer.variables,
        }
        # Numbered: Keras numbers its names through a whole process, so a second agent has others.
        named = {
            f"{group}/{i}": variable for group, variables in groups.items() for i, variable in enumerate(variables)
        }
        return named | {f"replay/{name}": variable for name, variable in self.replay.state.items()}

    @property
    def guarded(self) -> list[str]:
        """What the bits of `Metrics.non_finite_tensors` stand for, causes before their effects."""
        weights = [f"the weights {v.name.removesuffix(':0')}" for v in self.agent.online.trainable_variables]
        names = [*CAUSES, *weights]
        shared = names[SHARED_BIT:]
        return names if len(shared) < 2 else [*names[:SHARED_BIT], f"one of {len(shared)} more weights"]

    @property
    def trace_count(self) -> int:
        """How often the chunk was traced: 1 in a whole run."""
        return self._chunk.experimental_get_tracing_count() if hasattr(self._chunk, "get_concrete_function") else 0

    def _run(
        self, carry: Carry, max_rounds: tf.Tensor, stop_env_frames: tf.Tensor, next_report: tf.Tensor
    ) -> tuple[Carry, Reports]:
        config = self.config

        def one_round(rounds, carry):
            carry = repeat_body(config.iterations_per_update, self._interact, carry)
            return rounds + 1, carry._replace(metrics=self._learn_if_ready(carry.metrics))

        def until_report(rounds, carry, reports):
            stop = tf.minimum(stop_env_frames, reports.next_env_frames)
            rounds, carry = tf.while_loop(
                lambda rounds, carry: (rounds < max_rounds) & (carry.env_frames < stop), one_round, (rounds, carry)
            )
            reports, metrics = reports.close_if_due(
                carry.env_frames, self.agent.optimizer.iterations, carry.metrics, config.log_every_frames
            )
            return rounds, carry._replace(metrics=metrics), reports

        def goes_on(rounds, carry, reports):
            return (rounds < max_rounds) & (carry.env_frames < stop_env_frames) & (reports.count < MAX_REPORTS)

        start = (tf.zeros([], tf.int64), carry, Reports.none(next_report))
        _, carry, reports = tf.while_loop(goes_on, until_report, start)
        return carry._replace(metrics=self._guard_weights(carry.metrics)), reports

    def _guard_weights(self, metrics: Metrics) -> Metrics:
        """Once a chunk: an update with finite gradients can still overflow."""
        weights = self.agent.online.trainable_variables
        flags = tf.stack([~tf.reduce_all(tf.math.is_finite(variable)) for variable in weights])
        # Their bits come after those of the causes, which `DQN.learn` reports.
        flags = tf.concat([tf.zeros([len(CAUSES)], tf.bool), flags], axis=0)
        return note_non_finite(metrics, flags, self.agent.optimizer.iterations, 0)

    def _interact(self, carry: Carry) -> Carry:
        """One decision of every environment, and its row in the replay."""
        config, env = self.config, self.env
        legal = env.legal_actions(carry.env_state)
        action = self._decide(carry, carry.history, legal)

        stream = seeds.stream(config.seed, "env")
        state, timestep, frames, noise = play(
            env, carry.env_state, action, stream, carry.iteration, config.action_repeat
        )
        # Where the newest frame was an episode's last, nothing is played: the row only holds that frame, and the
        # environment starts afresh (Gymnasium calls this next-step autoreset). Nor while rows are to hold the frames
        # before a start: they are the past of the decisions that follow, and no transitions themselves.
        is_over = carry.is_over
        is_idle = is_over | self._practice.is_leading_in(carry.memory)
        episode_frames = tf.where(carry.is_first, 0, carry.episode_frames) + tf.where(is_idle, 0, frames)
        timestep = self._practice.truncate(timestep, -(-episode_frames // config.action_repeat))
        self.replay.add(
            Row(
                frame=carry.history[-1],
                action=action,
                reward=timestep.reward,
                discount=tf.cast(~timestep.termination, tf.float32),
                is_first=carry.is_first,
                is_boundary=is_idle,
                legal=legal,
            )
        )
        ended = ~is_idle & (timestep.termination | timestep.truncation)
        frames = tf.where(is_idle, 0, frames)
        episode_return = tf.where(carry.is_first, 0.0, carry.episode_return) + tf.where(is_idle, 0.0, timestep.reward)
        restart_seed = seeds.at(seeds.stream(config.seed, "restart"), carry.iteration)
        fresh = env.training_reset(noise, config.start_curriculum)
        idle_state, past = self._practice.go_back(carry.memory, carry.env_state, fresh, is_over, restart_seed)
        state = select(is_idle, idle_state, state)
        pushed = push_frame(carry.history, env.observe(state), is_over)
        history = self._practice.lead_in(carry.memory, carry.history, pushed, past, is_over)
        counts = ended & carry.is_standard

        def total_of_ended(values):
            return tf.reduce_sum(tf.where(counts, values, tf.zeros_like(values)))

        # Each number is widened before it is summed: what fits for one environment need not for all of them.
        metrics = carry.metrics._replace(
            episodes=carry.metrics.episodes + tf.reduce_sum(tf.cast(counts, tf.int64)),
            score=carry.metrics.score + total_of_ended(score_of(env, episode_return, episode_frames)),
            episode_frames=carry.metrics.episode_frames + total_of_ended(tf.cast(episode_frames, tf.int64)),
        )
        return Carry(
            iteration=carry.iteration + 1,
            env_frames=carry.env_frames + tf.reduce_sum(tf.cast(frames, tf.int64)),
            env_state=state,
            memory=self._practice.remember(
                carry.memory, Past.of(state, history), ended & timestep.termination, is_over, carry.iteration
            ),
            history=history,
            is_first=is_over,
            is_over=ended,
            is_standard=tf.where(is_over, self._is_standard(noise), carry.is_standard),
            episode_return=episode_return,
            episode_frames=episode_frames,
            metrics=metrics,
        )

    def _decide(self, carry: Carry, history: tf.Tensor, legal: tf.Tensor | None) -> tf.Tensor:
        """What each environment does next, [N] int32, seeing a history."""
        observation = stack_frames(history, self.config.frame_stride)
        explore_seed = seeds.at(seeds.stream(self.config.seed, "explore"), carry.iteration)
        action, _ = self.agent.act(observation, (), self.exploration.epsilon_at(carry.env_frames), explore_seed, legal)
        return action

    def _is_standard(self, noise: Any) -> tf.Tensor:
        """Which episodes that begin now do so as in an evaluation, [N] bool: only their scores are reported."""
        is_moved = self.env.is_moved_start(noise, self.config.start_curriculum)
        return self._practice.is_player & ~is_moved

    def _learn_if_ready(self, metrics: Metrics) -> Metrics:
        """The updates that are due, none while the replay is filled to its minimum."""
        ready = self.replay.can_sample() & (self.replay.num_rows >= self.config.replay_min_rows)
        due = tf.where(ready, self.config.updates_per_iteration, 0)
        # A loop, not a condition: XLA passes the replay by without a copy, and the same code serves any count.
        return tf.while_loop(lambda i, _: i < due, lambda i, m: (i + 1, self._learn(m)), (tf.constant(0), metrics))[1]

    def _learn(self, metrics: Metrics) -> Metrics:
        """One update."""
        config = self.config
        updates = self.agent.optimizer.iterations.read_value()  # a number now: the variable moves on below
        seed = seeds.at(seeds.stream(config.seed, "replay"), updates)
        transitions, weights, index = self.replay.sample(seed, config.batch_size)
        result = self.agent.learn(transitions, weights)
        self.replay.update(index, tf.abs(result.td_error))
        metrics = note_non_finite(metrics, ~result.is_finite, updates + 1, 1)
        return metrics.with_update(result.reported())


def build_replay(config: Config, env: Environment, device: str) -> FrameReplay:
    """The replay that a configuration describes."""
    return rules.SAMPLERS[config.prioritized](
        config,
        frame=env.observation_spec,
        num_envs=config.num_envs,
        capacity=config.replay_capacity,
        stack=config.frame_stack,
        stride=config.frame_stride,
        n_step=config.n_step,
        discount=config.discount,
        device=device,
        column_major=catalogue.body_of(config.network).prefers_columns,
        legal_actions=env.num_actions if env.limits_actions else None,
    )
