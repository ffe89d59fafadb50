"""Rounds of decisions and learning, and the trainer that runs thousands of them in one compiled program.

An iteration is one decision of every environment: act, play, tell the learner; at a round's end the learner learns.
Everything that changes is either in the `Carry`, which enters and leaves as a value, or owned by the learner: the
agent, its optimizer, a replay. Shapes: N environments, H W rows and columns, B batch. Of a population, N is that of all
members, the first member's first (see `tfdqn.members`).
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfdqn import learners, seeds
from tfdqn.config import Config
from tfdqn.envs import Environment, make_for
from tfdqn.envs.rollout import play, push_frame, sample_noise, select, stack_frames, training_start
from tfdqn.learners.base import Agent, Decision
from tfdqn.learners.metrics import MAX_REPORTS, SHARED_BIT, Metrics, Reports, has_ended, note_non_finite
from tfdqn.members import members_of
from tfdqn.programs.restarts import Memory, Nothing, Past, Practice
from tfdqn.replay.transitions import Row
from tfdqn.runtime import compiled, exchange, loops


class Carry(NamedTuple):
    """What one iteration hands to the next."""

    iteration: tf.Tensor  # [] int64, iterations so far: every seed follows from it
    env_frames: tf.Tensor  # [] int64, frames played so far, over all environments; of a population [P]
    env_state: Any  # the game's NamedTuple, [N, ...]
    agent_state: Any  # what the agent carries, a NamedTuple of [N, ...]
    memory: Memory | Nothing  # where players crashed
    history: tf.Tensor  # [(stack - 1) * stride + 1, N, ...] as the game's frames, the newest last
    is_first: tf.Tensor  # [N] bool, the newest frame begins an episode
    is_over: tf.Tensor  # [N] bool, the newest frame is the last of an episode: the next decision is a reset
    is_standard: tf.Tensor  # [N] bool, the episode began at the game's own start
    episode_score: tf.Tensor  # [N] float32
    episode_frames: tf.Tensor  # [N] int32
    metrics: Metrics


NEVER = 2**62  # env frames that no run reaches


@dataclasses.dataclass(frozen=True)
class Share:
    """Which of a run's environments a trainer plays: all of them, if not said.

    Attributes:
      seed: the run's, on which hang what is played and how it is explored, by environment; that of the trainer's own
        configuration decides the rest. None: they are one.
      first: number of its first environment in the run.
      count: R, how many trainers share the run; as much as this one has played, they all have.
      exchange: by which they come to the same gradients; None where each has its own.
    """

    seed: int | None = None
    first: int = 0
    count: int = 1
    exchange: exchange.Exchange | None = None


class Trainer:
    """Builds a run's environment and learner, and runs its iterations in chunks.

    Args:
      config: the run's configuration.
      device: TensorFlow device that holds everything, such as "/GPU:0".
      env: a game of one's own, in place of the one that the configuration names.
      share: which of the run's environments these are.

    Attributes:
      config: the run's, with what the device decides.
      learner: what learns.
    """

    def __init__(
        self,
        config: Config,
        device: str = "/CPU:0",
        env: Environment | None = None,
        share: Share = Share(),
    ):
        self.device, self._share = device, share
        self.env = make_for(config) if env is None else env
        with tf.device(device):
            self.learner = learners.learner_of(config.learner)(config, self.env, device)
            self.config = config = self.learner.config
            self._members = members_of(config)
            self._num_envs = config.num_envs * self._members.count
            practisers = [each.num_practisers for each in self._members.configs]
            self._practice = Practice(config.num_envs, practisers, device)
            never = tf.constant(NEVER, tf.int64)
            self._no_reports = Reports.none(never, self.learner.sums(), self._members.shape)
        self._chunk = compiled.program(self._run, jit=config.jit, eager=config.eager)
        # A GPU would wait for the host before each turn of a loop whose turns hang on what the replay holds: there,
        # rounds without updates are a program of their own.
        self._fill, self.learner.is_filled_first = None, not loops.is_cpu(device)
        if self.learner.is_filled_first:
            self._fill = compiled.program(self._run_without_updates, jit=config.jit, eager=config.eager)

    @property
    def agent(self) -> Agent:
        """What plays, and learns."""
        return self.learner.agent

    @property
    def replay(self) -> Any:
        """Where the learner keeps rows; None where it does not."""
        return self.learner.replay

    def initial_carry(self) -> Carry:
        """Fresh episodes in every environment, nothing counted."""
        config = self.config
        with tf.device(self.device):
            start = self._skipping(seeds.at(self._stream("start"), 0))
            noise = sample_noise(self.env, start, self._num_envs)
            state, difficulty = training_start(self.env, noise, self._members.setting("start_curriculum"))
            frame = self.env.observe(state)
            depth = (config.frame_stack - 1) * config.frame_stride + 1
            history = tf.repeat(frame[tf.newaxis], depth, axis=0)
            agent_state, num_envs = self.agent.initial_state(self._num_envs), self._num_envs
            return Carry(
                iteration=tf.zeros([], tf.int64),
                env_frames=tf.zeros(self._members.shape, tf.int64),
                env_state=state,
                agent_state=agent_state,
                memory=self._practice.begin(Past.of(state, history, agent_state)),
                history=history,
                is_first=tf.ones([num_envs], tf.bool),
                is_over=tf.zeros([num_envs], tf.bool),
                is_standard=self._is_standard(difficulty),
                episode_score=tf.zeros([num_envs]),
                episode_frames=tf.zeros([num_envs], tf.int32),
                metrics=self.learner.sums().zeros(self._members.shape),
            )

    def counted(self, carry: Carry) -> Metrics:
        """The sums of the whole run since the last report."""
        return carry.metrics

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
        with tf.device(self.device):
            reports = self._no_reports._replace(next_env_frames=tf.constant(next_report, tf.int64))
            stop = tf.constant(stop_env_frames, tf.int64)
            missing = self.learner.rounds_to_fill() if self._fill else 0
            to_fill = min(missing, max_rounds)
            if missing:  # also for no rounds, to compile it; if it ends before, the other has nothing left to do
                carry, reports = self._fill(carry, reports, tf.constant(to_fill, tf.int64), stop)
            return self._chunk(carry, reports, tf.constant(max_rounds - to_fill, tf.int64), stop)

    @property
    def guarded(self) -> list[str]:
        """What the bits of `Metrics.non_finite_tensors` stand for, causes before their effects."""
        weights = [f"the weights {v.name.removesuffix(':0')}" for v in self.agent.online.trainable_variables]
        names = [*self.learner.CAUSES, *weights]
        shared = names[SHARED_BIT:]
        return names if len(shared) < 2 else [*names[:SHARED_BIT], f"one of {len(shared)} more weights"]

    def cleared(self, carry: Carry, ended: np.ndarray) -> Carry:
        """Let nothing that is not finite stay: members that have `ended` [P] bool are made all zeros."""
        for name, variable in self.learner.variables.items():
            if not variable.dtype.is_floating or name.startswith("settings/"):
                continue
            if not name.startswith("agent/"):  # the optimizer's and the replay's
                variable.assign(tf.where(tf.math.is_finite(variable), variable, 0.0))
            else:
                variable.assign(tf.where(self._members.over(tf.constant(ended), variable), 0.0, variable))
        metrics = tf.nest.map_structure(
            lambda value: tf.where(tf.math.is_nan(value), 0.0, value) if value.dtype.is_floating else value,
            carry.metrics,
        )
        # What is carried goes on from itself: whoever takes over an agent within an episode would diverge again.
        agent_state = tf.nest.map_structure(
            lambda value: tf.where(tf.math.is_finite(value), value, 0.0) if value.dtype.is_floating else value,
            carry.agent_state,
        )
        return carry._replace(agent_state=agent_state, metrics=metrics)

    def revived(self, carry: Carry, members: np.ndarray) -> Carry:
        """Let `members` [P] bool that had ended count anew."""
        old = carry.metrics
        new = old.zeros(old.updates.shape)
        return carry._replace(metrics=tf.nest.map_structure(lambda *pair: tf.where(members, *pair), new, old))

    @property
    def trace_count(self) -> int:
        """How often the chunk was traced: 1 in a whole run."""
        return self._chunk.experimental_get_tracing_count() if hasattr(self._chunk, "get_concrete_function") else 0

    def _run(
        self, carry: Carry, reports: Reports, max_rounds: tf.Tensor, stop_env_frames: tf.Tensor
    ) -> tuple[Carry, Reports]:
        with loops.made_for(self.device):
            return self._rounds(carry, reports, max_rounds, stop_env_frames, learns=True)

    def _run_without_updates(
        self, carry: Carry, reports: Reports, max_rounds: tf.Tensor, stop_env_frames: tf.Tensor
    ) -> tuple[Carry, Reports]:
        with loops.made_for(self.device):
            return self._rounds(carry, reports, max_rounds, stop_env_frames, learns=False)

    def _rounds(
        self, carry: Carry, reports: Reports, max_rounds: tf.Tensor, stop_env_frames: tf.Tensor, learns: bool
    ) -> tuple[Carry, Reports]:
        least = self._members.least

        def one_round(rounds, carry):
            return rounds + 1, self._round(carry, learns)

        def turn(rounds, carry, reports):
            # To look for a report costs a CPU a tenth of the shortest round, and a loop in the loop nothing. A GPU
            # looks at its kernels' leisure, but before each turn of a loop it waits for the host.
            if loops.is_cpu(self.device):
                stop = tf.minimum(stop_env_frames, reports.next_env_frames)
                rounds, carry = tf.while_loop(
                    lambda rounds, carry: self._goes_on(
                        (rounds < max_rounds) & (least(carry.env_frames) < stop), carry
                    ),
                    one_round,
                    (rounds, carry),
                )
            else:
                rounds, carry = one_round(rounds, carry)
            reports, metrics = reports.close_if_due(
                carry.env_frames,
                self.agent.optimizer.iterations,
                carry.metrics,
                self.config.log_every_frames,
                least(carry.env_frames),
            )
            return rounds, carry._replace(metrics=metrics), reports

        def goes_on(rounds, carry, reports):
            is_short = least(carry.env_frames) < stop_env_frames
            return self._goes_on((rounds < max_rounds) & is_short & (reports.count < MAX_REPORTS), carry)

        start = (tf.zeros([], tf.int64), carry, reports)
        written, stacks = self._written(learns), [carry.history]
        _, carry, reports = loops.while_loop(goes_on, turn, start, self.device, written, stacks)
        return carry._replace(metrics=self._guard_weights(carry.metrics)), reports

    def _goes_on(self, is_wanted: tf.Tensor, carry: Carry) -> tf.Tensor:
        """Whether there is another round, or decision, where counts leave room for it."""
        return is_wanted

    def _written(self, learns: bool) -> list[tf.Variable]:
        """What a round writes."""
        named = self.learner.variables.items()
        return [variable for name, variable in named if learns or name.startswith("replay/")]

    def _guard_weights(self, metrics: Metrics) -> Metrics:
        """Once a chunk: an update with finite gradients can still overflow."""
        weights = self.agent.online.trainable_variables
        flags = tf.stack([~self._members.all(tf.math.is_finite(each), each) for each in weights], axis=-1)
        # Their bits come after those of the causes, which updates report.
        flags = tf.concat([tf.zeros([*flags.shape[:-1], len(self.learner.CAUSES)], tf.bool), flags], axis=-1)
        return note_non_finite(metrics, flags, self.agent.optimizer.iterations, 0)

    def _round(self, carry: Carry, learns: bool) -> Carry:
        """The decisions of a round, and what is learnt then."""
        wanted = self.learner.iterations_per_round
        state = (tf.constant(0), carry, self.learner.begin_round())
        if wanted == 1:
            _, carry, gathered = self._once(*state)
        else:  # as a loop: it compiles once, and a small one runs as one kernel
            written = self._written(learns=False)
            _, carry, gathered = loops.while_loop(
                lambda number, *_: number < wanted, self._once, state, self.device, written, [carry.history]
            )
        return carry._replace(metrics=self._learn(carry, gathered)) if learns else carry

    def _once(self, number: tf.Tensor, carry: Carry, gathered: Any) -> tuple[tf.Tensor, Carry, Any]:
        """The round's decision of that number, told to the learner."""
        carry, decision = self._interact(carry)
        return number + 1, carry, self.learner.take(gathered, number, decision)

    def _learn(self, carry: Carry, gathered: Any) -> Metrics:
        """What is learnt at a round's end: the sums after it."""
        observation = stack_frames(carry.history, self.config.frame_stride)
        legal = self.env.legal_actions(carry.env_state)
        with exchange.within(self._share.exchange):
            return self.learner.update(gathered, observation, carry.agent_state, carry.metrics, legal)

    def _interact(self, carry: Carry) -> tuple[Carry, Decision]:
        """One decision of every environment."""
        config, env = self.config, self.env
        if self._members.shape:
            # Those that have ended carry nothing: what their networks make of it hangs on when the host clears them,
            # and a replay may hold it.
            initial = self.agent.initial_state(self._num_envs)
            carry = carry._replace(agent_state=select(self._rests(carry), initial, carry.agent_state))
        legal = env.legal_actions(carry.env_state)
        observation = stack_frames(carry.history, config.frame_stride)
        action, agent_state = self._decide(carry, observation, legal)

        stream = self._stream("env")
        state, timestep, score, frames, noise = play(
            env, carry.env_state, action, stream, carry.iteration, config.action_repeat, self._share.first
        )
        agent_state = self.agent.rewarded(agent_state, timestep.reward)
        # Where the newest frame was an episode's last, nothing is played: the row only holds that frame, and the
        # environment starts afresh (Gymnasium calls this next-step autoreset). Nor while rows are to hold the frames
        # before a start: they are the past of the decisions that follow, and no transitions themselves.
        is_over = carry.is_over
        is_idle = is_over | self._practice.is_leading_in(carry.memory)
        episode_frames = tf.where(carry.is_first, 0, carry.episode_frames) + tf.where(is_idle, 0, frames)
        timestep = self._practice.truncate(timestep, -(-episode_frames // config.action_repeat))
        row = Row(
            frame=carry.history[-1],
            action=action,
            reward=timestep.reward,
            discount=tf.cast(~timestep.termination, tf.float32),
            is_first=carry.is_first,
            is_boundary=is_idle,
            legal=() if legal is None else legal,
        )
        ended = ~is_idle & (timestep.termination | timestep.truncation)
        frames = tf.where(is_idle, 0, frames)
        episode_score = tf.where(carry.is_first, 0.0, carry.episode_score) + tf.where(is_idle, 0.0, score)
        restart_seed = seeds.at(self._members.stream("restart"), carry.iteration)
        fresh, difficulty = training_start(env, noise, self._members.setting("start_curriculum"))
        idle_state, past = self._practice.go_back(carry.memory, carry.env_state, fresh, is_over, restart_seed)
        initial = self._practice.state_of(past, self.agent.initial_state(self._num_envs))
        agent_state = select(is_over, initial, agent_state)
        state = select(is_idle, idle_state, state)
        pushed = push_frame(carry.history, env.observe(state), is_over)
        history = loops.made_once(self._practice.lead_in(carry.memory, carry.history, pushed, past, is_over))
        counts = ended & carry.is_standard

        def total_of_ended(values):
            return self._members.sum(tf.where(counts, values, tf.zeros_like(values)))

        # Each number is widened before it is summed: what fits for one environment need not for all of them.
        metrics = carry.metrics._replace(
            episodes=carry.metrics.episodes + self._members.sum(tf.cast(counts, tf.int64)),
            score=carry.metrics.score + total_of_ended(episode_score),
            episode_frames=carry.metrics.episode_frames + total_of_ended(tf.cast(episode_frames, tf.int64)),
        )
        decision = Decision(observation, carry.agent_state, row)
        carry = Carry(
            iteration=carry.iteration + 1,
            env_frames=carry.env_frames + self._members.sum(tf.cast(frames, tf.int64)),
            env_state=state,
            agent_state=agent_state,
            memory=self._practice.remember(
                carry.memory,
                Past.of(state, history, agent_state),
                ended & timestep.termination,
                is_over,
                carry.iteration,
            ),
            history=history,
            is_first=is_over,
            is_over=ended,
            is_standard=tf.where(is_over, self._is_standard(difficulty), carry.is_standard),
            episode_score=episode_score,
            episode_frames=episode_frames,
            metrics=metrics,
        )
        return carry, decision

    def _decide(self, carry: Carry, observation: tf.Tensor, legal: tf.Tensor | None) -> tuple[tf.Tensor, Any]:
        """What each environment does next, [N] int32, and what the agent carries on."""
        exploration, share = self.learner.exploration, self._share
        explore_seed = seeds.at(self._stream("explore"), carry.iteration)
        if share.first:
            explore_seed = self._skipping(explore_seed, exploration.draws(self.env.num_actions))
        explore = exploration.at(carry.env_frames if share.count == 1 else carry.env_frames * share.count)
        if self._members.shape:
            explore = explore._replace(rests=self._rests(carry))
        return self.agent.act(observation, carry.agent_state, explore, explore_seed, legal)

    def _rests(self, carry: Carry) -> tf.Tensor:
        """Which environments are of a member that has ended, [P * N] bool."""
        return self._members.rows_of(has_ended(carry.metrics), self.config.num_envs)

    def _stream(self, name: str) -> int | list[int]:
        """What names a stream of draws of the run's environments."""
        return self._members.stream(name) if self._share.seed is None else seeds.stream(self._share.seed, name)

    def _skipping(self, seed: tf.Tensor, draws: int = 1) -> tf.Tensor:
        """The seed of this trainer's environments, each of which draws so many numbers of one of the whole run's."""
        return seeds.skip(seed, self._share.first * draws) if self._share.first else seed

    def _is_standard(self, difficulty: tf.Tensor) -> tf.Tensor:
        """Which episodes that begin now do so as in an evaluation, [N] bool: only their scores are reported."""
        return self._practice.is_player & (difficulty == 0)
