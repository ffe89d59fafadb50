"""Training and evaluation around games that step on the host.

A chunk is one program, as it is of compiled games, in which a step of the games is a call of their Python
(`tfdqn.runtime.python_calls`). Each action is chosen before the updates of the round in which it is played: one round
of lag, so that the games' next step hangs on no update, and can run beside it. Where no program can call Python, on a
GPU, without XLA, and for games that call TensorFlow themselves, a chunk is several programs (`Pieces`).

What a checkpoint holds is what a compiled game's holds, but for the games: they begin new episodes when a run goes on.
Shapes: N environments.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context

from tfdqn import cli, seeds
from tfdqn.config import Config
from tfdqn.envs.host import HostEnvironment, HostGames, HostStep
from tfdqn.envs.rollout import push_frame, select, stack_frames
from tfdqn.errors import UserError
from tfdqn.learners.base import Agent, Decision
from tfdqn.learners.metrics import MAX_REPORTS, Reports
from tfdqn.programs.evaluation import BLOCK_DECISIONS, FILM_DECISIONS, Evaluator, Stopped
from tfdqn.programs.restarts import Nothing
from tfdqn.programs.training import Carry, Trainer
from tfdqn.replay.transitions import Row
from tfdqn.runtime import compiled, loops, python_calls
from tfdqn.runtime.packing import Packing

UNROLLED = 8  # decisions of a round that are written out; a loop in the loop costs each of them some 100 microseconds
LOST = -1.0  # as a termination: nothing was played
LEAST_CALM_ROUNDS = 16  # to the next update that does something rare; from so many on it pays to look for it


class Played(NamedTuple):
    """A `HostStep` in as few arrays as it takes: each costs microseconds on its way from Python to a program."""

    frame: tf.Tensor  # [N, ...]
    numbers: tf.Tensor  # [3, N] float32: reward, termination, truncation
    shown: Any  # [N, ...]; Nothing where it is `frame`

    @classmethod
    def of(cls, values: Any) -> Played:
        """What `Stage.step` gives, by name."""
        return cls(*values) if len(values) == len(cls._fields) else cls(*values, shown=Nothing())

    @property
    def is_lost(self) -> tf.Tensor:
        """Whether the games have raised in place of playing, [] bool."""
        return self.numbers[1, 0] == LOST

    def step(self) -> HostStep:
        reward, *ends = tf.unstack(self.numbers)
        shown = self.frame if isinstance(self.shown, Nothing) else self.shown
        return HostStep(self.frame, reward, *(end != 0 for end in ends), shown)


class Pending(NamedTuple):
    """The decision under way, which nobody has learnt of yet: all the state there is here of games that keep theirs."""

    action: tf.Tensor  # [N] int32
    agent_state: Any  # what the agent carries on from that
    played: Played  # what the games show for it


class Stage:
    """Where the games are: what programs hold of them, which know no trainer.

    Attributes:
      games: under way.
      failure: what the games raised in the middle of a program.
      calls_tensorflow: whether they have been seen to call TensorFlow themselves.
    """

    def __init__(self, games: HostGames):
        self.games = games
        self.failure: BaseException | None = None
        self.calls_tensorflow = False

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Inside, what the games call in this thread is looked at."""

        def look(frame, event, _):
            if str(frame.f_globals.get("__name__")).partition(".")[0] == "tensorflow":
                self.calls_tensorflow = True

        before = sys.getprofile()
        sys.setprofile(look)
        try:
            yield
        finally:
            sys.setprofile(before)

    def fill(self, action: np.ndarray, frame: np.ndarray, numbers: np.ndarray, *shown: np.ndarray) -> None:
        """Fill in what `HostGames.step` gives; `LOST` from when on they have raised."""
        if self.failure is None:
            try:
                # The program may hold the thread that TensorFlow would compute with: whoever asked it would wait for
                # ever. As a graph's nothing is computed, and whoever asks for a result raises.
                with context.graph_mode():
                    step = self.games.step(action.copy())
                numbers[0], numbers[1], numbers[2] = step.reward, step.termination, step.truncation
                frame[...] = step.frame
                for each in shown:
                    each[...] = step.shown
                return
            except BaseException as error:  # no program would learn of it
                self.failure = error
                self.calls_tensorflow |= bool(tf.compat.v1.get_default_graph().get_operations())
        numbers[1] = LOST

    def step(self, action: np.ndarray) -> tuple[np.ndarray, ...]:
        """What `HostGames.step` gives, as the fields of `Played`, without `shown` where that is `frame`."""
        try:
            step = self.games.step(action)
        except BaseException as error:  # TensorFlow would make a string of it
            self.failure = error
            raise
        numbers = np.empty([3, len(action)], np.float32)
        numbers[0], numbers[1], numbers[2] = step.reward, step.termination, step.truncation
        # Copies: games may write their next frame into the same memory, which TensorFlow takes as it is.
        frame = np.array(step.frame)
        return (frame, numbers) if self.games.skips_resets else (frame, numbers, np.array(step.shown))


def seeds_of(seed: int, start: int, count: int, first: int = 0) -> list[int]:
    """A seed below 2^31 for each of `count` environments: it follows from a seed, the start and its number alone."""
    return [seeds.stream(seed, "env", start, first + i) % 2**31 for i in range(count)]


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


class Pieces:
    """The same chunk in several programs, where none can call Python: on a GPU, and without XLA.

    Its loops are TensorFlow's own, which call the games' Python, and programs of XLA for all else: one writes the last
    decision's row, takes in the frames that followed and chooses the next actions; the updates of a round are another,
    beside which the games' next step runs. A step costs no call of a program from Python.

    Args:
      trainer: whose chunk it is.
    """

    def __init__(self, trainer: HostTrainer):
        self._trainer, self._learner, self._stage = trainer, trainer.learner, trainer.stage
        config = trainer.config
        programs = (self._note, self._update, self._update_without_rare, trainer._guard_weights)
        programs = [compiled.program(each, jit=config.jit, eager=config.eager) for each in programs]
        self._note_program, self._update_program, self._calm_program, self._guard_program = programs
        # Each variable that a program may write costs its start some microseconds, if it is written once in a thousand
        # times. Looking for that costs some, too.
        period, updates = self._learner.rare_period_updates, getattr(config, "updates_per_iteration", 1)
        self._calm_updates = updates if period >= LEAST_CALM_ROUNDS * updates else 0  # of a round; 0: all are looked at
        self._is_warm = config.eager  # op by op there is nothing to compile
        with tf.device(trainer.device):
            # A variable and no argument: one that is only read costs a program next to nothing.
            self._times = tf.Variable(1, trainable=False)

    def warm(self, carry: Carry) -> None:
        """Compile all programs before anything is timed; nothing is written or learnt."""
        self._packing = Packing((_unplayed(carry), tf.constant(0)))
        if self._is_warm:
            return
        gathered, packed = self._learner.begin_round(), self._packing.pack((_unplayed(carry), tf.constant(0)))
        self._times.assign(0)
        self._note_program(packed, carry.env_state.played, gathered)
        self._update_program(packed, gathered)
        if self._calm_updates:
            self._calm_program(packed, gathered)
        self._times.assign(1)
        self._guard_program(carry.metrics)
        self._is_warm = True

    def run(
        self, carry: Carry, reports: Reports, max_rounds: tf.Tensor, stop_env_frames: tf.Tensor
    ) -> tuple[Carry, Reports]:
        """As of `HostTrainer`."""
        config, iterations = self._trainer.config, self._trainer.agent.optimizer.iterations
        most = config.num_envs * self._learner.iterations_per_round  # frames of a round

        def until_report(rounds, frames, packed, played, reports):
            left = tf.minimum(stop_env_frames, reports.next_env_frames) - frames
            # None of these rounds but the last can reach a limit, so the loop need not look.
            end = tf.minimum(max_rounds, rounds + tf.maximum(-(-left // most), 1))
            rounds, packed, played = self._rounds_until(end, (rounds, packed, played))
            carry, number = self._packing.unpack(packed)
            reports, metrics = reports.close_if_due(
                carry.env_frames, iterations, carry.metrics, config.log_every_frames
            )
            packed = self._packing.pack((carry._replace(metrics=metrics), number))
            return rounds, carry.env_frames, packed, played, reports

        def goes_on(rounds, frames, packed, played, reports):
            return (rounds < max_rounds) & (frames < stop_env_frames) & (reports.count < MAX_REPORTS)

        rounds = tf.zeros([], tf.int64)
        packed, played = self._packing.pack((_unplayed(carry), tf.constant(0))), carry.env_state.played
        held = (rounds, carry.env_frames, packed, played, reports)
        _, _, packed, played, reports = tf.while_loop(goes_on, until_report, held)
        carry, _ = self._packing.unpack(packed)
        carry = carry._replace(env_state=carry.env_state._replace(played=played))
        return carry._replace(metrics=self._guard_program(carry.metrics)), reports

    def _rounds_until(self, end: tf.Tensor, state: tuple) -> tuple:
        """Rounds up to that number; the state is their number so far, the packed carry and what the games show."""

        def by(update: Callable, end: tf.Tensor, state: tuple) -> tuple:
            return tf.while_loop(
                lambda rounds, *_: rounds < end,
                lambda rounds, *held: (rounds + 1, *self._packed_round(*held, update)),
                state,
            )

        if not self._calm_updates:
            return by(self._update_program, end, state)
        period = self._learner.rare_period_updates

        def to_the_next_rare(rounds, *held):
            made = self._trainer.agent.optimizer.iterations.read_value()
            # Rounds none of whose updates is the period's last.
            calm = (period - 1 - made % period) // self._calm_updates
            state = by(self._calm_program, tf.minimum(rounds + calm, end), (rounds, *held))
            return by(self._update_program, tf.minimum(rounds + calm + 1, end), state)

        return tf.while_loop(lambda rounds, *_: rounds < end, to_the_next_rare, state)

    def _packed_round(
        self, packed: tuple[tf.Tensor, ...], played: Played, update: Callable
    ) -> tuple[tuple[tf.Tensor, ...], Played]:
        """A round, of a packed carry and what the games show, with one of the programs that update."""

        def once(packed, played, gathered):
            packed, action, gathered = self._note_program(packed, played, gathered)
            return packed, self._play(action, played), gathered

        wanted = self._learner.iterations_per_round
        state = (packed, played, self._learner.begin_round())
        if wanted <= UNROLLED:
            for _ in range(wanted):
                state = once(*state)
        else:
            state = tf.while_loop(lambda *_: True, once, state, maximum_iterations=wanted)
        packed, played, gathered = state
        return update(packed, gathered), played

    def _play(self, action: tf.Tensor, before: Played) -> Played:
        """What the games show for the next actions; of the shapes and types of what they showed before."""
        before = [each for each in before if not isinstance(each, Nothing)]
        # To TensorFlow it has no state, or it would wait for the updates that come after it here.
        with tf.device("/CPU:0"):
            played = tf.numpy_function(self._stage.step, [action], [each.dtype for each in before], stateful=False)
        for value, each in zip(played, before, strict=True):
            value.set_shape(each.shape)
        return Played.of(played)

    # Programs. In those that write, a loop of `_times` turns and no condition: XLA passes the replay by without a copy.

    def _note(
        self, packed: tuple[tf.Tensor, ...], played: Played, gathered: Any
    ) -> tuple[tuple[tf.Tensor, ...], tf.Tensor, Any]:
        """Take in the decision under way and make the next.

        Args:
          packed: the carry, and the decision's number in its round.
          played: what the games show for it.
          gathered: in the round so far.

        Returns:
          `packed`, in which the next decision is not played yet; its actions [N] int32; and what is gathered.
        """
        step = played.step()
        carry, number = self._packing.unpack(packed)
        _, carry, gathered = tf.while_loop(
            lambda i, *_: i < self._times,
            lambda i, *held: (i + 1, *self._trainer.noted(*held, number, step)),
            (tf.constant(0), carry, gathered),
        )
        pending = self._trainer.answered(carry, step)
        return self._packing.pack((carry._replace(env_state=pending), number + 1)), pending.action, gathered

    def _update(self, packed: tuple[tf.Tensor, ...], gathered: Any) -> tuple[tf.Tensor, ...]:
        """What is learnt at a round's end: the carry with the sums after it, and the next decision's number, 0."""
        carry, _ = self._packing.unpack(packed)

        def update(i, sums):
            return i + 1, self._trainer._learn(carry._replace(metrics=sums), gathered)

        sums = tf.while_loop(lambda i, _: i < self._times, update, (tf.constant(0), carry.metrics))[1]
        return self._packing.pack((carry._replace(metrics=sums), tf.constant(0)))

    def _update_without_rare(self, packed: tuple[tf.Tensor, ...], gathered: Any) -> tuple[tf.Tensor, ...]:
        """The same, where nothing that is rare is due."""
        with self._learner.without_rare():
            return self._update(packed, gathered)


def _unplayed(carry: Carry) -> Carry:
    """Without what the games show, which comes from elsewhere each time."""
    return carry._replace(env_state=carry.env_state._replace(played=()))


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
