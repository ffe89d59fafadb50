"""One training run: chunks of the compiled program, and between them reports, evaluations and checkpoints."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tfdqn import cli, population, replicas
from tfdqn import config as configuration
from tfdqn.config import Config
from tfdqn.envs import loading
from tfdqn.errors import EXIT_NUMERIC, UserError
from tfdqn.runs import models, run_config, run_folder
from tfdqn.runs.checkpoints import Checkpoint
from tfdqn.runs.judge import Judge
from tfdqn.runs.progress import RunState
from tfdqn.runs.saving import Saver
from tfdqn.runtime import hosts, memory
from tfdqn.runtime.signals import StopRequest
from tfdqn.settings import flag_of

if TYPE_CHECKING:
    import numpy as np

    from tfdqn.envs import Environment
    from tfdqn.learners.base import Agent
    from tfdqn.learners.metrics import Metrics
    from tfdqn.runs.monitor import Monitor

EXCHANGED = {"average": "which are averaged", "collective": "which share their gradients"}
CHUNK_SECONDS = 0.5  # how often Python gets its turn; no result depends on it
# Settings that decide how much memory a run takes.
MEMORY_FIELDS = ("num_envs", "batch_size", "num_steps", "replay_capacity")


class Run(RunState):
    """One training run, from building everything to the last evaluation.

    Args:
      config: its configuration.
      run_dir: its folder; a new run makes it.
      device: TensorFlow device.
      stop: what tells it to stop.
      lock: of the folder, where it goes on from a checkpoint.
      checkpoint: from which it goes on, if from any.
      other_dirs: what a new run may take where `run_dir` exists.
      game: what is played, where it is there already.

    Attributes:
      SAVER: what saves it.
      on_evaluation: called at the end of each evaluation in training with its results, by name.
    """

    SAVER = Saver

    def __init__(
        self,
        config: Config,
        run_dir: Path,
        device: str,
        stop: StopRequest,
        lock: IO[str] | None = None,
        checkpoint: Checkpoint | None = None,
        other_dirs: Sequence[Path] = (),
        game: Environment | None = None,
    ):
        import tensorflow as tf

        from tfdqn.envs import make_for
        from tfdqn.programs import blame, evaluator_of, trainer_of

        start_seconds = time.monotonic()
        self.stop = stop
        self.on_evaluation: Callable[[dict[str, float]], None] = lambda _: None
        self._is_asked_to_stop = False
        env = make_for(config) if game is None else game
        _check_game(config, env)
        if "GPU" not in device:  # with what only the game itself tells; before, it may have been too early to ask
            available_bytes = hosts.here().count * memory.available_bytes()
            configuration.check_memory(config, env.observation_spec, available_bytes, env.masked_actions)
        try:
            trainer = trainer_of(env, config)(config, device, env)
        except tf.errors.ResourceExhaustedError:
            raise UserError(
                f"the memory of {device.strip('/')} is too small for this run: {_smaller(config)}"
            ) from None
        config = trainer.config
        with blame.own_code(config):
            super().__init__(config, run_dir, device, trainer, start_seconds)
        self.evaluator = evaluator_of(trainer.env)(
            config, trainer.env, self._evaluated(), device, lambda: stop.signal is not None
        )
        self.judge = Judge(self, self.evaluator)
        self._is_profiled = False
        self.saver = self.SAVER(self, checkpoint, lambda: self.monitor.flush(), self._hint_at_resuming)
        if checkpoint is None:
            if config.init_from:
                self._start_from(Path(config.init_from))
            self.run_dir, self._lock = self._make_folder([run_dir, *other_dirs])
        else:
            self._lock = lock
            self.saver.restore(checkpoint)
            self._write_config()
        try:
            self.monitor = self._reporting(is_resumed=checkpoint is not None)
        except OSError:
            self._discard_unless_begun()
            raise
        self._say_plan()

    def _evaluated(self) -> Agent:
        """The agent that plays in evaluations."""
        return self.agent

    def _make_folder(self, paths: Sequence[Path]) -> tuple[Path, IO[str]]:
        """Make a new run's folder, the first of these that is free; it, and its lock."""
        return run_folder.create(self.config, paths)

    def _write_config(self) -> None:
        """Write a resumed run's settings, as they are now."""
        path = self.run_dir / run_config.CONFIG_FILE
        self.saver.outbox.put(path, lambda path: run_config.write_config(self.config, path.parent))

    def _reporting(self, is_resumed: bool) -> Monitor:
        """What writes its reports into its folder, which is there now."""
        from tfdqn.runs.monitor import Monitor

        return Monitor(self.config, self.run_dir, self.trainer.env, is_resumed)

    def _discard_unless_begun(self) -> None:
        """Leave no folder of a new run that ends before it has played: nothing in it is of use to anyone."""
        if not self.env_frames and self.saver.path is None:
            run_folder.discard(self.run_dir)

    def _hint_at_resuming(self) -> None:
        self.stop.hint = f"to go on, {run_config.resume_command(self.run_dir)}"

    def _start_from(self, folder: Path) -> None:
        """Take over another run's best weights; the optimizer starts afresh."""
        from tfdqn.learners import build_agent

        donor = build_agent(self.config, self.trainer.env)
        models.load_weights(donor, folder / models.BEST_MODEL)
        self.trainer.learner.take_over(donor)

    def train(self) -> dict[str, Any]:
        """Train until the frames, the minutes or the goal are reached, or a signal comes; then evaluate the best."""
        import tensorflow as tf

        try:
            return self._train()
        except UserError:
            self._discard_unless_begun()
            raise
        except tf.errors.ResourceExhaustedError:
            config = self.config
            self._discard_unless_begun()
            raise UserError(
                f"the memory of {self.device.strip('/')} is full: {_smaller(config)} in a new run "
                f"({self.saver.describe()})"
            ) from None

    def _train(self) -> dict[str, Any]:
        config = self.config
        if self.is_finished:
            cli.say(
                f"nothing more to train: {self.env_frames:,} frames, {self.updates:,} updates, {self.reached()}; "
                "evaluating again"
            )
            self._save_end()  # of a new run whose minutes were over before it began, its begin
        else:
            self.compile()
            self.saver.start_clock()
            with self.stop.waiting():
                while self._goes_on():
                    self.train_chunk()
                self._save_end()
                if config.profile and not self._is_profiled:
                    cli.say("no profile was taken: the run ended too soon after it began to learn")
                if self.stop.signal is not None:
                    return self._stopped()
        from tfdqn.programs.evaluation import Stopped

        try:
            return self._finish()
        except Stopped:  # only where a signal does not end the process
            return self._stopped()

    def _finish(self) -> dict[str, Any]:
        """What can be had again from the last checkpoint, and is when this run is resumed."""
        config, frames = self.config, self.env_frames
        if frames >= config.total_env_frames and self.progress.reported_env_frames < frames:
            self._report(
                self.carry.env_frames.numpy(), self.updates, self.wall_seconds, self.trainer.counted(self.carry)
            )
        if self.progress.evaluated_env_frames < frames:
            self._evaluate()
            self.saver.save_best()
        self.saver.outbox.finish()
        result = self._result()
        self.monitor.close()
        return result

    def _goes_on(self) -> bool:
        """Whether there is to be another chunk."""
        return not (self.is_finished or self._is_asked_to_stop) and self.stop.signal is None

    def ask_to_stop(self) -> None:
        """Have training end after this chunk as if its length had been reached."""
        self._is_asked_to_stop = True

    def close(self) -> None:
        """Free the folder for others, once training has ended or failed."""
        with contextlib.suppress(OSError):  # what is lost has been told
            self.monitor.close()
        if self._lock is not None:
            self._lock.close()

    def _save_end(self) -> None:
        """Save the end of training, and all that waits: small files may find room where a checkpoint does not."""
        self.saver.give_final()
        self.saver.outbox.retry()
        self.saver.save_last()
        self.saver.outbox.finish()

    def _stopped(self) -> dict[str, Any]:
        self.monitor.close()
        self._hint_at_resuming()
        cli.say(f"stopped by {signal.Signals(self.stop.signal).name}; {self.stop.hint}")
        return self.totals() | {"run_dir": str(self.run_dir), "exit_code": 128 + self.stop.signal}

    def compile(self) -> None:
        """Compile the training program before anything is timed; it plays no frame that counts."""
        from tfdqn.programs import blame

        cli.say("compiling ...")
        start = time.monotonic()
        with blame.own_code(self.config):
            self.carry = self.trainer.run_chunk(self.carry, 0, 0)
        self.carry.env_frames.numpy()
        seconds = time.monotonic() - start
        cli.say(f"training program compiled in {seconds:.1f} s")
        self.progress.compile_seconds += seconds

    def train_chunk(self) -> None:
        """Let the compiled program run for about `CHUNK_SECONDS`, then do what is due."""
        config, progress = self.config, self.progress
        if self.env_frames >= progress.next_eval:  # a signal had cut it short
            self._evaluate_as_planned()
            return
        start, wall_before = time.monotonic(), self.wall_seconds
        frames_before, updates_before, round_before = self.env_frames, self.updates, int(self.carry.iteration)
        stop = min(progress.next_eval, config.total_env_frames)
        rounds, recording = progress.rounds, contextlib.nullcontext()
        if self._is_time_to_profile(frames_before, updates_before, stop):
            self._is_profiled = True
            rounds, recording = -(-config.profile // self.trainer.learner.iterations_per_round), self.monitor.profile()
        with recording:
            self.carry, reports = self.trainer.run_reporting_chunk(self.carry, rounds, stop, progress.next_log)
            frames = self.env_frames  # waits for the device
        seconds = time.monotonic() - start
        progress.train_seconds += seconds
        done = (int(self.carry.iteration) - round_before) // self.trainer.learner.iterations_per_round
        # Aim at CHUNK_SECONDS, changing slowly; a chunk cut short by an evaluation tells the same speed.
        wanted = CHUNK_SECONDS / max(seconds, 1e-6) * max(done, 1)
        progress.rounds = int(min(max(wanted, progress.rounds / 4, 1), progress.rounds * 4))
        progress.frames_per_second = len(self.players) * (frames - frames_before) / seconds
        progress.updates_per_second = len(self.players) * (self.updates - updates_before) / seconds
        for reported, updates, metrics in reports.rows():
            if self._is_broken(metrics):
                break
            share = (reported.min() - frames_before) / (frames - frames_before)
            self._report(reported, updates, wall_before + share * seconds, metrics)
        progress.next_log = int(reports.next_env_frames)
        self._guard()
        if frames >= progress.next_eval:
            self._evaluate_as_planned()
        self.monitor.live(frames, progress.frames_per_second, progress.updates_per_second, self.wall_seconds)
        self._save_if_due()

    def _save_if_due(self) -> None:
        self.saver.save_if_due()

    def _is_broken(self, metrics: Metrics) -> bool:
        """Whether these sums hold numbers that are not finite."""
        return bool(metrics.non_finite_updates)

    def _guard(self) -> None:
        """End the run if a number is no longer finite. The last checkpoint is from before."""
        metrics = self.carry.metrics
        found = int(metrics.non_finite_tensors)
        if not found:
            return
        self._end_diverged(
            f"training diverged at update {int(metrics.first_non_finite_update)}: {self._culprit(found)} is not "
            f"finite; try a lower --learning-rate than {self.config.learning_rate}"
        )

    def _culprit(self, found: int) -> str:
        """The first of what was not finite, of such bits of `Metrics.non_finite_tensors`."""
        return self.trainer.guarded[(found & -found).bit_length() - 1]

    def _end_diverged(self, reason: str) -> None:
        self.saver.outbox.retry()
        with contextlib.suppress(OSError):  # what follows matters more
            self.monitor.close()
        raise UserError(f"{reason} ({self.saver.describe()})", EXIT_NUMERIC)

    def _report(self, env_frames: np.int64, updates: int, wall_seconds: float, metrics: Metrics) -> None:
        import tensorflow as tf

        progress = self.progress
        epsilon = self.trainer.learner.exploration.epsilon_at(tf.constant(env_frames, tf.int64))
        values = metrics.values(float(epsilon)) | progress.speed()
        self.monitor.report(int(env_frames), updates, wall_seconds, values)
        progress.reported_env_frames = int(env_frames)

    def _is_time_to_profile(self, frames: int, updates: int, stop: int) -> bool:
        """Once, after learning has begun, where all iterations fit in before the chunk must stop, or as many as can."""
        config, progress = self.config, self.progress
        if not config.profile or self._is_profiled or not updates:
            return False
        most = config.profile * config.num_envs * config.action_repeat
        # Right after an evaluation, or with none to come, there is no better place.
        is_best = frames == progress.evaluated_env_frames or progress.next_eval >= config.total_env_frames
        return frames + most <= stop or is_best

    def _evaluate_as_planned(self) -> None:
        """Evaluate while training goes on. Where a signal cuts it short, it is the first that a resumed run does."""
        from tfdqn.programs.evaluation import Stopped

        try:
            self._evaluate()
        except Stopped:
            return
        every = self.config.eval_every_frames
        self.progress.next_eval = (self.env_frames // every + 1) * every
        self._select()

    def _select(self) -> None:
        """What follows from an evaluation for what is trained; of one agent nothing."""

    def _evaluate(self) -> None:
        """Evaluate the greedy player and keep it if it is the best."""
        self.saver.outbox.retry()
        learner = self.trainer.learner
        with learner.player():
            self._evaluate_player()
        start = time.monotonic()
        if histograms := learner.histograms(self.env_frames // self.config.eval_every_frames):
            self.monitor.show_histograms(self.env_frames, histograms)
        self.progress.eval_seconds += time.monotonic() - start

    def _evaluate_player(self) -> None:
        start = time.monotonic()
        progress, frames = self.progress, self.env_frames
        scores = self.judge.evaluate()
        values = scores.values()
        self.monitor.report(frames, self.updates, self.wall_seconds, values)
        self.monitor.show_player(frames, scores, self.trainer.agent.online.get_weights())
        progress.evaluated_env_frames = frames
        if self.judge.keep_if_best(scores):
            self.saver.give_best()
        progress.eval_seconds += time.monotonic() - start
        counts = {"env_frames": float(frames), "updates": float(self.updates)}
        self.on_evaluation({**{name.removeprefix("eval/"): value for name, value in values.items()}, **counts})

    def _result(self) -> dict[str, Any]:
        start = time.monotonic()
        self.trainer.agent.online.set_weights(self.best_weights)
        scores = self.evaluator.evaluate(self.config.final_eval_episodes).summary()
        self.progress.eval_seconds += time.monotonic() - start
        cli.say(
            f"best agent: mean score {scores['score_mean']:.2f} over {scores['episodes']} episodes (std "
            f"{scores['score_std']:.2f}, median {scores['score_median']:g}, min {scores['score_min']:g}, max "
            f"{scores['score_max']:g}), in {self.run_dir}"
        )
        return self.totals() | scores | {"run_dir": str(self.run_dir)}

    def _say_plan(self) -> None:
        config, agent, replay = self.config, self.agent, self.trainer.replay
        env = self.trainer.env
        replay_bytes = config.replay_bytes(env.observation_spec, env.masked_actions)
        mode = "op by op" if config.eager else "XLA" if config.jit else "graph without XLA"
        rows = f"replay {replay.capacity:,} rows, {replay_bytes / 1e6:,.0f} MB; " if replay else ""
        many, num_parts = f"{len(self.members)} agents side by side; " if len(self.members) > 1 else "", 1
        if replicas.is_one(config):
            many = f"{config.replicas} replicas, {EXCHANGED[config.exchange]}; "
            if self.members:
                many, num_parts = f"{len(self.members)} agents on {config.replicas} devices; ", config.replicas
        cli.say(
            f"{config.env} on {self.device.strip('/')}, {mode}; "
            f"{many}{num_parts * agent.online.count_params():,} parameters; {rows}"
            f"{config.total_env_frames:,} frames planned; {self.run_dir}"
        )
        if self.members and loading.is_spec(config.network):
            cli.say(f"{config.network} goes in as {len(self.members)} copies, but for dense layers and normalisations")
        if replay and replay.capacity != config.replay_capacity * len(self.players):
            asked = f"--replay-capacity {config.replay_capacity}"
            kept = replay.capacity // len(self.players)
            cli.say(f"{asked} rounded down to {kept}, a multiple of --num-envs")


def _smaller(config: Config) -> str:
    """What to make smaller where memory is short."""
    names = [name for name in MEMORY_FIELDS if hasattr(config, name)]
    return "try half of " + " or ".join(f"{flag_of(name)} {getattr(config, name)}" for name in names)


def _check_game(config: Config, env: Environment) -> None:
    """Refuse settings that do not fit a game which only now tells what it is."""
    from tfdqn.networks import catalogue

    try:
        catalogue.check_fits(config.network, env.observation_spec.stacked(config.frame_stack))
    except ValueError as error:
        raise UserError(f"--{error}") from None
    if population.is_one(config) and env.steps_on_host:  # which nobody need have spread over several devices
        raise UserError(f"--population: {env.name} steps on the host; train each agent in a run of its own")
    if replicas.is_one(config) and env.steps_on_host:
        raise UserError(f"--replicas {config.replicas}: {env.name} steps on the host, for one device; use 1")
    share = max(each.start_curriculum for each in population.members(config))
    if share and not env.has_difficulties:
        raise UserError(f"--start-curriculum {share}: {env.name} is equally difficult from start to end; use 0")
