"""A run as it stands: what training moves on, and what a checkpoint keeps and brings back."""

from __future__ import annotations

import abc
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tfdqn
from tfdqn.metric import Metric

if TYPE_CHECKING:
    import numpy as np

    from tfdqn.config import Config
    from tfdqn.learners.base import Agent
    from tfdqn.programs.training import Carry, Trainer


GOAL_MARGIN = 1e-6  # scores are float32 means of whole numbers

SPEED = (
    Metric(
        "speed/env_frames_per_second",
        "mean",
        "frames played, over all environments, updates included",
        over="the chunk",
        unit="frames/s",
    ),
    Metric("speed/updates_per_second", "mean", "updates made", over="the chunk", unit="updates/s"),
)


@dataclasses.dataclass
class Progress:
    """What the host counts in a run; a checkpoint keeps all of it."""

    next_log: int  # env frames
    next_eval: int  # env frames
    eval_max_frames: int  # after which evaluations cut episodes now: it grows with the agent
    reported_env_frames: int = 0  # at the last report
    evaluated_env_frames: int = -1  # at the last evaluation
    rounds: int = 64  # of the next chunk
    frames_per_second: float = 0.0
    updates_per_second: float = 0.0
    best_score: float | None = None
    best_score_ceiling: float | None = None  # what that score can be at most, as episodes were cut; None: not known
    best_env_frames: int = 0
    wall_seconds: float = 0.0  # of earlier processes of this run, and so the others
    compile_seconds: float = 0.0
    train_seconds: float = 0.0
    eval_seconds: float = 0.0
    diverged_update: int = 0  # of a population's member, in which it met a number that is not finite; 0: it did not

    def speed(self) -> dict[str, float]:
        """What a report says of `SPEED`, by tag."""
        return dict(
            zip((metric.tag for metric in SPEED), (self.frames_per_second, self.updates_per_second), strict=True)
        )


class Player:
    """Who is evaluated, and whose best agent is kept: a run's, or a member of its population.

    Args:
      config: what it is trained by.

    Attributes:
      run_dir: the folder of its models and reports.
      progress: what is counted of it.
      best_weights: of the best agent by evaluation, None before the first.
      place: what the names of these begin with in a checkpoint.
    """

    place = "best/"
    agent: Agent  # which is saved with the weights that it is to have

    run_dir: Path

    def __init__(self, config: Config):
        self.config = config
        self.progress = Progress(config.log_every_frames, config.eval_every_frames, config.eval_max_frames)
        self.best_weights: list[np.ndarray] | None = None

    @property
    @abc.abstractmethod
    def env_frames(self) -> int:
        """What it has played so far."""

    @abc.abstractmethod
    def player_weights(self) -> list[np.ndarray]:
        """The weights of the agent that the run is to give, as it is now."""

    @property
    def is_goal_reached(self) -> bool:
        best = self.progress.best_score
        return best is not None and best >= self.config.goal_score - GOAL_MARGIN


class RunState(Player):
    """What a run has come to.

    Args:
      config: its configuration, with what the device decides.
      run_dir: its folder.
      device: TensorFlow device.
      trainer: what is trained, and trains.
      start_seconds: `time.monotonic()` when this process began to work on the run; a command began earlier.

    Attributes:
      carry: what the trainer's next chunk goes on from.
      members: of a population; none of a run of one agent.
      report_folders: folders in the run's own, beside that itself, in which reports lie.
    """

    members: Sequence[Player] = ()
    report_folders: Sequence[str] = ()

    def __init__(self, config: Config, run_dir: Path, device: str, trainer: Trainer, start_seconds: float):
        super().__init__(config)
        self.run_dir = run_dir
        self.device, self.trainer, self.start_seconds = device, trainer, start_seconds
        self.carry: Carry = trainer.initial_carry()

    @property
    def players(self) -> Sequence[Player]:
        """Those whose models are given."""
        return self.members or [self]

    @property
    def agent(self) -> Agent:
        return self.trainer.agent

    @property
    def best_dir(self) -> Path:
        """The folder of the best agent that the run has given so far."""
        return self.run_dir

    @property
    def best_config(self) -> Config:
        """The settings of that agent."""
        return self.config

    @property
    def updates(self) -> int:
        return int(self.trainer.agent.optimizer.iterations)

    @property
    def env_frames(self) -> int:
        return int(self.carry.env_frames)

    @property
    def wall_seconds(self) -> float:
        return self.progress.wall_seconds + time.monotonic() - self.start_seconds

    def player_weights(self) -> list[np.ndarray]:
        with self.trainer.learner.player():
            return self.trainer.agent.online.get_weights()

    @property
    def is_finished(self) -> bool:
        config = self.config
        out_of_time = self.wall_seconds >= config.minutes * 60
        return (
            self.env_frames >= config.total_env_frames or out_of_time or (config.stop_at_goal and self.is_goal_reached)
        )

    def reached(self) -> str:
        """Which of its ends a finished run has come to, and how to put it off."""
        config = self.config
        if self.env_frames >= config.total_env_frames:
            return "all that --total-env-frames asks for"
        if config.stop_at_goal and self.is_goal_reached:
            return f"--goal-score {config.goal_score:g} is reached (to train on, add --no-stop-at-goal)"
        return f"--minutes {config.minutes:g} are over"

    def totals(self) -> dict[str, Any]:
        """What `--json` says of it, but for scores."""
        config, progress, frames = self.config, self.progress, self.env_frames
        return {
            "env": config.env,
            "preset": config.preset,
            "seed": config.seed,
            "device": self.device,
            "version": tfdqn.__version__,
            "env_frames": frames,
            "updates": self.updates,
            "wall_seconds": round(self.wall_seconds, 3),
            "compile_seconds": round(progress.compile_seconds, 3),
            "train_seconds": round(progress.train_seconds, 3),
            "eval_seconds": round(progress.eval_seconds, 3),
            "env_frames_per_second": round(frames / max(progress.train_seconds, 1e-9), 1),
            "updates_per_second": round(self.updates / max(progress.train_seconds, 1e-9), 1),
            "goal_reached": self.is_goal_reached,
            "best_env_frames": progress.best_env_frames,
        }
