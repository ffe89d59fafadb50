"""A run as it stands: what training moves on, and what a checkpoint keeps and brings back."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tfdqn.metric import Metric

if TYPE_CHECKING:
    import numpy as np

    from tfdqn.config import Config
    from tfdqn.programs.training import Carry, Trainer


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

    def speed(self) -> dict[str, float]:
        """What a report says of `SPEED`, by tag."""
        return dict(
            zip((metric.tag for metric in SPEED), (self.frames_per_second, self.updates_per_second), strict=True)
        )


class RunState:
    """What a run has come to.

    Args:
      config: its configuration, with what the device decides.
      run_dir: its folder.
      device: TensorFlow device.
      trainer: what is trained, and trains.
      start_seconds: `time.monotonic()` when this process began to work on the run; a command began earlier.

    Attributes:
      carry: what the trainer's next chunk goes on from.
      best_weights: of the best agent by evaluation, None before the first.
    """

    def __init__(self, config: Config, run_dir: Path, device: str, trainer: Trainer, start_seconds: float):
        self.config, self.run_dir, self.device, self.trainer = config, run_dir, device, trainer
        self.start_seconds = start_seconds
        self.carry: Carry = trainer.initial_carry()
        self.progress = Progress(config.log_every_frames, config.eval_every_frames, config.eval_max_frames)
        self.best_weights: list[np.ndarray] | None = None

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
        """The weights of the agent that the run is to give, as it is now."""
        with self.trainer.player():
            return self.trainer.agent.online.get_weights()
