"""What a run tells people: TensorBoard, `metrics.jsonl` and the live line. All of it on the host, between chunks."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorboard.plugins.scalar.summary import scalar_pb

from tfdqn import config as configuration
from tfdqn import console
from tfdqn.config import Config
from tfdqn.envs import Environment
from tfdqn.errors import EXIT_REFUSED, UserError
from tfdqn.evaluation import Scores
from tfdqn.metrics import Metrics

METRICS_FILE, EVENT_FOLDERS = "metrics.jsonl", ("train", "eval")
PROFILE_FOLDERS = ("plugins", "plugins/profile")  # the profiler's own names
PLAIN_LINE_SECONDS = 10.0  # between live lines where they cannot overwrite each other


def report_values(metrics: Metrics, epsilon: float) -> dict[str, float]:
    """Scalars of one report from the sums since the last; a mean over nothing is left out."""
    sums = {name: np.asarray(value).item() for name, value in metrics._asdict().items()}
    values = {"rollout/epsilon": epsilon, "rollout/episodes": sums["episodes"]}
    if sums["episodes"]:
        values["rollout/score"] = sums["score"] / sums["episodes"]
        values["rollout/episode_frames"] = sums["episode_frames"] / sums["episodes"]
    if sums["updates"]:
        for name in ("loss", "td_error", "mean_q", "gradient_norm"):
            values[f"train/{name}"] = sums[name] / sums["updates"]
        values["train/max_q"] = sums["max_q"]
    return values


def colour(env: Environment, frames: np.ndarray, scale: int = 1) -> np.ndarray:
    """Grey frames [..., H, W] uint8 in the game's colours, [..., H * scale, W * scale, 3] uint8."""
    table = np.zeros([256, 3], np.uint8)
    for level, rgb in env.palette.items():
        table[level] = rgb
    return table[frames.repeat(scale, axis=-2).repeat(scale, axis=-1)]


def strip_image(env: Environment, strip: np.ndarray) -> np.ndarray:
    """Frames [K, H, W] in colour, in rows of six with grey lines between: [H', W', 3] uint8."""
    pictures = colour(env, strip, max(1, 96 // strip.shape[1]))
    framed = np.pad(pictures, [(0, -len(pictures) % 6), (1, 1), (1, 1), (0, 0)], constant_values=128)
    rows = framed.reshape(-1, 6, *framed.shape[1:])
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)


def _log_files(run_dir: Path) -> list[Path]:
    files = [path for name in EVENT_FOLDERS for path in sorted((run_dir / name).glob("events.out.tfevents.*"))]
    return [run_dir / METRICS_FILE, *files]


def rewind(run_dir: Path, sizes: Mapping[str, int]) -> list[str]:
    """Take back what was reported after a checkpoint, whose `Monitor.flush` gave `sizes`.

    Only files found in their places are touched, whatever names `sizes` has. Returns a line for each that has lost
    something from before the checkpoint.

    Raises:
      UserError: a file or folder of the reports is a link; exit code 3.
    """
    files = _log_files(run_dir)
    for path in (*(run_dir / name for name in (*EVENT_FOLDERS, *PROFILE_FOLDERS)), *files):
        if path.is_symlink():
            raise UserError(f"{path}: is a link, and links are not followed", EXIT_REFUSED)
    lost = []
    for path in files:
        name = path.relative_to(run_dir).as_posix()
        held, size = path.stat().st_size if path.exists() else 0, sizes.get(name)
        if size is None:
            path.unlink(missing_ok=True)  # began after the checkpoint
        elif held >= size:
            os.truncate(path, size)
    found = {path.relative_to(run_dir).as_posix(): path.stat().st_size for path in files if path.exists()}
    for name, size in sizes.items():
        if found.get(name, 0) < size:
            lost.append(f"{name} had {size} bytes at the checkpoint and has {found.get(name, 0)} now: reports are lost")
    return lost


class Monitor:
    """Writes a run's reports.

    Args:
      config: the run's configuration.
      run_dir: the run's folder.
      env: the game, for its colours.
      is_resumed: the folder holds the run's reports so far.
    """

    def __init__(self, config: Config, run_dir: Path, env: Environment, is_resumed: bool = False):
        self.config, self.run_dir, self.env = config, run_dir, env
        self._jsonl = open(run_dir / METRICS_FILE, "a", encoding="utf-8")  # noqa: SIM115 (closed in close())
        with tf.device("/CPU:0"):
            self._writers = {name: tf.summary.create_file_writer(str(run_dir / name)) for name in EVENT_FOLDERS}
        if not is_resumed:
            with self._writing("train"):
                rows = [f"| {name} | {value} |" for name, value in configuration.plain(config).items()]
                tf.summary.text("config", "\n".join(["| setting | value |", "|---|---|", *rows]), step=0)
        self._line = LiveLine(config)

    @contextlib.contextmanager
    def _writing(self, name: str) -> Iterator[tf.summary.SummaryWriter]:
        """Write to a TensorBoard folder; its files fail with an OSError, like all others, not with TensorFlow's own."""
        try:
            with tf.device("/CPU:0"), self._writers[name].as_default() as writer:
                yield writer
        except tf.errors.OpError as error:
            code = errno.ENOSPC if isinstance(error, tf.errors.ResourceExhaustedError) else errno.EIO
            reason = error.message.split("\n")[0].rpartition("; ")[2]  # the system's word, after the file's name
            raise OSError(code, reason, str(self.run_dir / name)) from None

    def report(self, env_frames: int, updates: int, wall_seconds: float, values: Mapping[str, float]) -> None:
        """Write one report; tags under `eval/` go to that writer, all others to `train`."""
        line = {"env_frames": env_frames, "updates": updates, "wall_seconds": round(wall_seconds, 3), **values}
        # JSON has no infinities or NaN; a value that is one is written as a word, so that no reader trips over it.
        safe = {k: v if not isinstance(v, float) or math.isfinite(v) else str(v) for k, v in line.items()}
        self._jsonl.write(json.dumps(safe) + "\n")
        self._jsonl.flush()
        for name in EVENT_FOLDERS:
            tags = [tag for tag in values if (name == "eval") == tag.startswith("eval/")]
            if tags:
                # As one event: `tf.summary.scalar` for each tag takes ten times as long.
                event = scalar_pb(tags[0], values[tags[0]])
                for tag in tags[1:]:
                    event.MergeFrom(scalar_pb(tag, values[tag]))
                with self._writing(name):
                    tf.summary.experimental.write_raw_pb(event.SerializeToString(), step=env_frames)
        self._line.update(values, wall_seconds)

    @contextlib.contextmanager
    def profile(self) -> Iterator[None]:
        """Write a trace of what runs inside to `plugins/profile/` in the run's folder, for TensorBoard's profiler."""
        # Level 3: each operation of a compiled program on a CPU, too (see `tfdqn.cli.TRACE_XLA_FLAG`).
        options = tf.profiler.experimental.ProfilerOptions(host_tracer_level=3)
        with tf.profiler.experimental.Profile(str(self.run_dir), options):
            yield
        console.say(f"profile written to {self.run_dir / 'plugins' / 'profile'}; tensorboard --logdir {self.run_dir}")

    def show_player(self, env_frames: int, scores: Scores) -> None:
        """Write the greedy player's frames and action values of one evaluation."""
        with self._writing("eval"):
            tf.summary.image("eval/player", strip_image(self.env, scores.strip)[np.newaxis], step=env_frames)
            tf.summary.histogram("eval/q_values", scores.q_values, step=env_frames)
            tf.summary.histogram("eval/scores", scores.scores, step=env_frames)

    def live(self, env_frames: int, frames_per_second: float, updates_per_second: float, wall_seconds: float) -> None:
        """Refresh the live line."""
        self._line.show(env_frames, frames_per_second, updates_per_second, wall_seconds)

    def flush(self) -> dict[str, int]:
        """Bring all reports to the disk and return the size of each file that holds them, by its path in the folder."""
        self._jsonl.flush()
        for name in self._writers:
            with self._writing(name) as writer:
                writer.flush()
        sizes = {}
        for path in _log_files(self.run_dir):
            with open(path, "rb") as file:
                os.fsync(file.fileno())
                sizes[path.relative_to(self.run_dir).as_posix()] = os.fstat(file.fileno()).st_size
        return sizes

    def close(self) -> None:
        """Finish the live line and flush everything to disk; closing again does nothing."""
        if self._jsonl.closed:
            return
        console.end_live()
        for name in self._writers:
            with self._writing(name) as writer:
                writer.close()
        self._jsonl.close()


class LiveLine:
    """How a run is doing, in one line: written over on a terminal, else repeated now and then."""

    def __init__(self, config: Config):
        self._config = config
        self._values: dict[str, float] = {}
        self._last_shown = -math.inf

    def update(self, values: Mapping[str, float], wall_seconds: float) -> None:
        self._values.update(values)

    def show(self, env_frames: int, frames_per_second: float, updates_per_second: float, wall_seconds: float) -> None:
        now = time.monotonic()
        if not console.is_terminal() and now - self._last_shown < PLAIN_LINE_SECONDS:
            return
        self._last_shown = now
        # A narrow terminal has room for the first of these ranks.
        parts = [
            (0, f"{env_frames:,} frames"),
            (3, f"{frames_per_second:,.0f} frames/s"),
            (7, f"{updates_per_second:,.0f} updates/s"),
        ]
        for rank, tag, label, digits in (
            (4, "rollout/score", "score", 1),
            (2, "eval/score_mean", "greedy", 1),
            (6, "rollout/epsilon", "epsilon", 3),
            (5, "train/loss", "loss", 5),
        ):
            if tag in self._values:
                parts.append((rank, f"{label} {self._values[tag]:.{digits}f}"))
        parts.append((1, f"left {self._left(env_frames, frames_per_second, wall_seconds)}"))
        console.live(parts)

    def _left(self, env_frames: int, frames_per_second: float, wall_seconds: float) -> str:
        seconds = (self._config.total_env_frames - env_frames) / max(frames_per_second, 1e-9)
        seconds = int(max(0.0, min(seconds, self._config.minutes * 60 - wall_seconds)))
        hours, minutes = seconds // 3600, seconds // 60 % 60
        return f"{hours}:{minutes:02d}:{seconds % 60:02d}" if hours else f"{minutes}:{seconds % 60:02d}"
