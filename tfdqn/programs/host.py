"""Training and evaluation around games that step on the host.

A decision is a step of the games in Python and one program of XLA, which writes the last decision's row, takes in the
frames that followed and chooses the next actions; the updates of a round are another. Each action is chosen before the
updates of the round in which it is played: one round of lag, for one program in place of two.

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
from tfdqn.learners.metrics import Metrics, Reports
from tfdqn.programs.evaluation import BLOCK_DECISIONS, FILM_DECISIONS, Evaluator, Stopped
from tfdqn.programs.restarts import Nothing
from tfdqn.programs.training import Carry, Trainer
from tfdqn.replay.transitions import Row
from tfdqn.runtime import compiled

PLAYED = ("episodes", "score", "episode_frames")  # the sums of `Metrics` that playing adds to


class Pending(NamedTuple):
    """The decision under way, which nobody has learnt of yet: all the state there is here of games that keep theirs."""

    action: tf.Tensor  # [N] int32
    agent_state: Any  # what the agent carries on from that
    played: HostStep  # what the games show for it; `shown` is Nothing where it is `frame`


class Stage:
    """Where the games are: what programs hold of them, which know no trainer.

    Attributes:
      games: under way.
      failure: what the games raised in the middle of a program.
    """

    def __init__(self, games: HostGames):
        self.games = games
        self.failure: BaseException | None = None

    def step(self, action: np.ndarray) -> tuple[np.ndarray, ...]:
        """What `HostGames.step` gives, without `shown` where that is `frame`."""
        try:
            step = self.games.step(action)
        except BaseException as error:  # TensorFlow would make a string of it
            self.failure = error
            raise
        return tuple(step[:-1]) if self.games.skips_resets else tuple(step)


def seeds_of(seed: int, start: int, count: int, first: int = 0) -> list[int]:
    """A seed below 2^31 for each of `count` environments: it follows from a seed, the start and its number alone."""
    return [seeds.stream(seed, "env", start, first + i) % 2**31 for i in range(count)]


class HostTrainer(Trainer):
    """A `Trainer` of a `HostEnvironment`; the same calls mean the same.

    Its loops are TensorFlow's own, which call the games' Python, and programs of XLA for all else. So a step costs no
    call of a program from Python, and the games' next step runs beside the updates of a round: the games are one step
    ahead of the carry.

    Raises:
      UserError: settings that need a game's state.
    """

    def __init__(self, config: Config, device: str, env: HostEnvironment):
        _check(config, env)
        super().__init__(config, device, env)
        self._stage = Stage(env.begin(config.num_envs))
        self._iteration = -1  # of the carry that the games belong to
        programs = (self._note, self._choose, self._update, self._guarded)
        programs = [compiled.program(each, jit=config.jit, eager=config.eager) for each in programs]
        self._note_program, self._choose_program, self._update_program, self._guard_program = programs
        self._chunk = compiled.program(self._run, jit=False, eager=config.eager)
        self._is_warm = config.eager  # op by op there is nothing to compile

    def initial_carry(self) -> Carry:
        """Fresh episodes in every environment, nothing counted."""
        config = self.config
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
        played = [tf.constant(value) for value in self._stage.step(pending.action.numpy())]
        return carry._replace(env_state=pending._replace(played=_as_step(played)))

    def _begin_games(self, iteration: int) -> np.ndarray:
        """New episodes, other ones than those that began at an earlier iteration; their first frames."""
        self._iteration = iteration
        return self._stage.games.reset(seeds_of(self.config.seed, iteration, self.config.num_envs))

    def run_reporting_chunk(
        self, carry: Carry, max_rounds: int, stop_env_frames: int, next_report: int
    ) -> tuple[Carry, Reports]:
        with tf.device(self.device):
            self._warm(carry)
            if not max_rounds or int(carry.env_frames) >= stop_env_frames:  # plays nothing
                return super().run_reporting_chunk(carry, max_rounds, stop_env_frames, next_report)
            if int(carry.iteration) != self._iteration:
                carry = self._begin_again(carry)
        self._stage.failure = None
        try:
            carry, reports = super().run_reporting_chunk(carry, max_rounds, stop_env_frames, next_report)
        except BaseException:
            self._iteration = -1  # the games have gone on, and nobody knows how far
            if self._stage.failure is None:
                raise
            raise self._stage.failure from None
        self._iteration = int(carry.iteration)
        return carry, reports

    def _warm(self, carry: Carry) -> None:
        """Compile all programs before anything is timed; nothing is written or learnt."""
        if self._is_warm:
            return
        nothing, gathered = tf.constant(0), self.learner.begin_round()
        self._call_note(carry, gathered, nothing, nothing)
        self._call_update(carry, gathered, nothing)
        self._guard_program(carry.metrics)
        self._is_warm = True

    def _begin_again(self, carry: Carry) -> Carry:
        """New episodes: these games know nothing of the carry's. To learning, those were cut off."""
        num_envs = self.config.num_envs
        cli.say(f"{self.env.name} steps on the host: {num_envs} new episodes begin")
        frame, ended = self._begin_games(int(carry.iteration)), np.zeros(num_envs, bool)
        pending = Pending(tf.zeros([num_envs], tf.int32), carry.agent_state, ())
        carry = carry._replace(is_over=tf.ones([num_envs], tf.bool), env_state=pending)
        step = HostStep(frame, np.zeros(num_envs, np.float32), ended, ended, frame)
        return self._started(self._noted(carry, self.learner.begin_round(), tf.constant(0), step, skips_resets=True)[0])

    def _once(self, number: tf.Tensor, carry: Carry, gathered: Any) -> tuple[tf.Tensor, Carry, Any]:
        before = tf.nest.flatten(carry.env_state.played)
        carry, gathered = self._call_note(carry, gathered, number, tf.constant(1))
        # To TensorFlow it has no state, or it would wait for the updates that come after it here.
        with tf.device("/CPU:0"):
            played = tf.numpy_function(
                self._stage.step, [carry.env_state.action], [each.dtype for each in before], stateful=False
            )
        for value, each in zip(played, before, strict=True):
            value.set_shape(each.shape)
        return number + 1, carry._replace(env_state=carry.env_state._replace(played=_as_step(played))), gathered

    def _call_note(self, carry: Carry, gathered: Any, *more: Any) -> tuple[Carry, Any]:
        # Each argument and result of a program costs microseconds: of the sums, only those that it adds to. They come
        # from the last updates, so it runs behind these.
        sums, others = carry.metrics, [name for name in carry.metrics._fields if name not in PLAYED]
        few = carry._replace(metrics=sums._replace(**dict.fromkeys(others, ())), is_standard=())
        noted, gathered = self._note_program(few, gathered, *more)
        added = {name: getattr(noted.metrics, name) for name in PLAYED}
        return noted._replace(metrics=sums._replace(**added), is_standard=carry.is_standard), gathered

    def _learn(self, carry: Carry, gathered: Any) -> Metrics:
        return self._call_update(carry, gathered, tf.constant(1))

    def _call_update(self, carry: Carry, gathered: Any, times: tf.Tensor) -> Metrics:
        unused = [name for name in carry._fields if name not in ("history", "agent_state", "metrics")]
        return self._update_program(carry._replace(**dict.fromkeys(unused, ())), gathered, times)

    def _guard_weights(self, metrics: Metrics) -> Metrics:
        return self._guard_program(metrics)

    # Programs. In those that write, a loop of `times` turns, 0 or 1, and no condition: XLA passes the replay by without
    # a copy.

    def _note(self, carry: Carry, gathered: Any, number: tf.Tensor, times: tf.Tensor) -> tuple[Carry, Any]:
        """Take in the decision under way, the round's of that number, and make the next.

        Returns:
          The carry, in which the next one is not played yet, and what is gathered.
        """
        skips_resets, step = self._stage.games.skips_resets, carry.env_state.played
        step = step._replace(shown=step.frame) if skips_resets else step
        _, carry, gathered = tf.while_loop(
            lambda i, *_: i < times,
            lambda i, *held: (i + 1, *self._noted(*held, number, step, skips_resets)),
            (tf.constant(0), carry, gathered),
        )
        history = carry.history
        if not skips_resets:
            # Where an episode is over the next has begun, and the action answers to that one's first frame.
            history = push_frame(tf.concat([history[:1], history[:-1]], axis=0), step.shown, carry.is_over)
        return carry._replace(env_state=self._decided(carry, history)), gathered

    def _noted(
        self, carry: Carry, gathered: Any, number: tf.Tensor, step: HostStep, skips_resets: bool
    ) -> tuple[Carry, Any]:
        """The carry after a decision, of which the learner knows then; the next one is not made yet."""
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

    def _decided(self, carry: Carry, history: tf.Tensor) -> Pending:
        return Pending(*self._decide(carry, stack_frames(history, self.config.frame_stride), None), played=())

    def _update(self, carry: Carry, gathered: Any, times: tf.Tensor) -> Metrics:
        """What is learnt at a round's end: the sums after it."""

        def update(i, sums):
            return i + 1, super(HostTrainer, self)._learn(carry._replace(metrics=sums), gathered)

        return tf.while_loop(lambda i, _: i < times, update, (tf.constant(0), carry.metrics))[1]

    def _guarded(self, metrics: Metrics) -> Metrics:
        return super()._guard_weights(metrics)


def _as_step(values: list[tf.Tensor]) -> HostStep:
    """What `Stage.step` gives, by name."""
    return HostStep(*values) if len(values) == len(HostStep._fields) else HostStep(*values, shown=Nothing())


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
