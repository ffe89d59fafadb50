"""What a run tells people: TensorBoard, `metrics.jsonl` and the live line. All of it on the host, between chunks."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import math
import os
import platform
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.plugins.histogram.summary_v2 import histogram_pb
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.plugins.image import metadata as image_metadata
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util import tensor_util

from tfdqn import config as configuration
from tfdqn import console, files
from tfdqn.config import Config
from tfdqn.envs import Environment
from tfdqn.errors import EXIT_REFUSED, UserError
from tfdqn.learners import learner_of
from tfdqn.metric import Metric
from tfdqn.programs import evaluation
from tfdqn.programs.evaluation import Scores
from tfdqn.runs import curves, progress
from tfdqn.runs.curves import METRICS_FILE
from tfdqn.runs.live import LiveLine

EVENT_FOLDERS = ("train", "eval")
PROFILE_FOLDERS = ("plugins", "plugins/profile")  # the profiler's own names


def reported(learner: str, more: Sequence[Metric] = ()) -> dict[str, Metric]:
    """What a run reports, by tag, with a learner of that name, and what else there is."""
    kind = learner_of(learner)
    found = (*kind.sums().reported(), *kind.HISTOGRAMS, *evaluation.REPORTED, *progress.SPEED, *more)
    return {metric.tag: metric for metric in found}


def pictures_of(env: Environment, frames: np.ndarray, scale: int = 1) -> np.ndarray | None:
    """Frames [K, ...] of a game in colour, [K, H * scale, W * scale, 3] uint8; None where they have no picture."""
    with tf.device("/CPU:0"):
        pictures = env.picture(tf.constant(frames))
    return None if pictures is None else pictures.numpy().repeat(scale, axis=1).repeat(scale, axis=2)


def strip_image(env: Environment, strip: np.ndarray) -> np.ndarray | None:
    """Frames [K, ...] in colour, in rows of six with grey lines between: [H', W', 3] uint8; None: no picture."""
    pictures = pictures_of(env, strip)
    if pictures is None:
        return None
    scale = max(1, 96 // pictures.shape[1])  # of the picture: a game of numbers may draw one, too
    framed = np.pad(
        pictures.repeat(scale, axis=1).repeat(scale, axis=2),
        [(0, -len(pictures) % 6), (1, 1), (1, 1), (0, 0)],
        constant_values=128,
    )
    rows = framed.reshape(-1, 6, *framed.shape[1:])
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)


def movie_image(env: Environment, movie: np.ndarray) -> bytes | None:
    """Frames [K, ...] in colour as an animated GIF, at the game's speed; None: no picture."""
    pictures = pictures_of(env, movie)
    if pictures is None:
        return None
    scale = max(1, 144 // pictures.shape[1])
    images = [Image.fromarray(picture.repeat(scale, axis=0).repeat(scale, axis=1)) for picture in pictures]
    target = io.BytesIO()
    duration = max(20, round(1000 / env.frames_per_second))  # milliseconds; browsers slow down what is quicker
    images[0].save(target, "GIF", save_all=True, append_images=images[1:], duration=duration, loop=0)
    return target.getvalue()


def _log_files(run_dir: Path) -> list[Path]:
    events = [path for name in EVENT_FOLDERS for path in sorted((run_dir / name).glob("events.out.tfevents.*"))]
    return [run_dir / METRICS_FILE, *events]


def rewind(run_dir: Path, sizes: Mapping[str, int], folders: Sequence[str] = ()) -> list[str]:
    """Take back what was reported after a checkpoint, whose `Monitor.flush` gave `sizes`.

    Reports lie in the run's folder, and in `folders` in it.

    Only files found in their places are touched, whatever names `sizes` has. Returns a line for each that has lost
    something from before the checkpoint.

    Raises:
      UserError: a file or folder of the reports is a link; exit code 3.
    """
    homes = [run_dir, *(run_dir / name for name in folders)]
    paths = [path for home in homes for path in _log_files(home)]
    inner = [home / name for home in homes for name in EVENT_FOLDERS]
    outer = {home.parent for home in homes[1:]} - {run_dir}
    for path in (*outer, *homes[1:], *inner, *(run_dir / name for name in PROFILE_FOLDERS), *paths):
        if path.is_symlink():
            raise UserError(f"{path}: is a link, and links are not followed", EXIT_REFUSED)
    lost = []
    for path in paths:
        name = path.relative_to(run_dir).as_posix()
        held, size = path.stat().st_size if path.exists() else 0, sizes.get(name)
        if size is None:
            path.unlink(missing_ok=True)  # began after the checkpoint
        elif held >= size:
            os.truncate(path, size)
    found = {path.relative_to(run_dir).as_posix(): path.stat().st_size for path in paths if path.exists()}
    for name, size in sizes.items():
        if found.get(name, 0) < size:
            lost.append(f"{name} had {size} bytes at the checkpoint and has {found.get(name, 0)} now: reports are lost")
    return lost


def image_pb(tag: str, image: np.ndarray | bytes, description: str | None = None) -> summary_pb2.Summary:
    """A picture [H, W, 3] uint8, or a GIF, as TensorBoard takes it."""
    if isinstance(image, bytes):
        width, height = struct.unpack("<HH", image[6:10])  # where a GIF says its size
    else:
        height, width, _ = image.shape
        with tf.device("/CPU:0"):
            image = tf.io.encode_png(image).numpy()
    tensor = tensor_util.make_tensor_proto([str(width).encode(), str(height).encode(), image])
    summary, metadata = summary_pb2.Summary(), image_metadata.create_summary_metadata(None, description)
    summary.value.add(tag=tag, metadata=metadata, tensor=tensor)
    return summary


class EventFile(files.Journal):
    """A new file of TensorBoard's events in a folder, which describes the metrics by their tags."""

    _numbers = itertools.count()  # of a process, so that no two files have one name

    def __init__(self, folder: Path, metrics: Mapping[str, Metric]):
        self._metrics = metrics
        names = (str(int(time.time())), platform.node(), str(os.getpid()), str(next(self._numbers)))
        super().__init__(folder / f"events.out.tfevents.{'.'.join(names)}.v2")
        self._described: set[str] = set()
        self._add(event_pb2.Event(wall_time=time.time(), file_version="brain.Event:2"))

    def add_summary(self, summary: summary_pb2.Summary, step: int) -> None:
        """Take values, to be written by `flush`."""
        self._add(event_pb2.Event(wall_time=time.time(), step=step, summary=summary))

    def help_of(self, tag: str) -> str | None:
        """What TensorBoard is to say of a tag: once a file is enough."""
        is_told = tag in self._described
        self._described.add(tag)
        return None if is_told else self._metrics[tag].help

    def _add(self, event: event_pb2.Event) -> None:
        record = io.BytesIO()
        RecordWriter(record).write(event.SerializeToString())
        self.add(record.getvalue())


def write_settings(config: Config, run_dir: Path) -> None:
    """Have TensorBoard's table of hyperparameters hold a run, one row for all that differ by their seed alone.

    The file lies in the run's folder itself, so that what `EVENT_FOLDERS` have are its metrics.

    Raises:
      OSError: it cannot be written.
    """
    settings = {
        name: value if not isinstance(value, float) or math.isfinite(value) else str(value)
        for name, value in configuration.plain(config).items()
        if name != "seed" and name not in configuration.RESUMABLE_FIELDS
    }
    events = EventFile(run_dir, {})
    try:
        events.add_summary(hparams_pb(settings), 0)
        events.flush()
    finally:
        events.close()


class Monitor:
    """Writes a run's reports. Those that cannot be written wait in memory, which a line says once; the run goes on.

    Args:
      config: the run's configuration.
      run_dir: the run's folder.
      env: the game, for its colours.
      is_resumed: the folder holds the run's reports so far.
      is_shown: on the screen, too.
      more: what it reports beside what every run with its learner does.

    Raises:
      OSError: a new run's first report cannot be written.
    """

    def __init__(
        self,
        config: Config,
        run_dir: Path,
        env: Environment,
        is_resumed: bool = False,
        is_shown: bool = True,
        more: Sequence[Metric] = (),
    ):
        self.config, self.run_dir, self.env = config, run_dir, env
        self._line = LiveLine(config, run_dir)
        self._is_shown = is_shown
        if is_resumed:  # the scores so far are shown, too
            with contextlib.suppress(UserError):
                for report in curves.read(run_dir).lines:
                    self._line.update(report)
        self._is_waiting = self._is_closed = False
        for name in EVENT_FOLDERS:
            (run_dir / name).mkdir(exist_ok=True)
        self._lines = files.Journal(run_dir / METRICS_FILE)
        metrics = reported(config.learner, more)
        self._events = {name: EventFile(run_dir / name, metrics) for name in EVENT_FOLDERS}
        if not is_resumed:
            rows = [f"| {name} | {value} |" for name, value in configuration.plain(config).items()]
            table = "\n".join(["| setting | value |", "|---|---|", *rows])
            self._events["train"].add_summary(text_pb("config", table), 0)
            self._write()
            write_settings(config, run_dir)

    def _write(self) -> None:
        """Write all that waits; each file is tried before the first failure is raised."""
        failures = []
        for journal in (self._lines, *self._events.values()):
            try:
                journal.flush()
            except OSError as error:
                failures.append(error)
        if failures:
            raise failures[0]
        if self._is_waiting:
            console.say("the reports that waited are written")
        self._is_waiting = False

    def _write_or_wait(self) -> None:
        try:
            self._write()
        except OSError as error:
            if not self._is_waiting:
                console.say(
                    f"tfdqn: warning: {error.filename}: {error.strerror}; reports wait in memory until they can be "
                    "written; training goes on"
                )
            self._is_waiting = True

    def report(self, env_frames: int, updates: int, wall_seconds: float, values: Mapping[str, float]) -> None:
        """Write one report of values by their tags; `eval/` goes to that writer, all others to `train`."""
        self.note({"env_frames": env_frames, "updates": updates, "wall_seconds": round(wall_seconds, 3), **values})
        self.draw(env_frames, values)

    def note(self, line: Mapping[str, Any]) -> None:
        """Add a line to the file of reports; `draw` writes it out."""
        # JSON has no infinities or NaN; a value that is one is written as a word, so that no reader trips over it.
        safe = {k: v if not isinstance(v, float) or math.isfinite(v) else str(v) for k, v in line.items()}
        self._lines.add((json.dumps(safe) + "\n").encode())

    def draw(self, env_frames: int, values: Mapping[str, float]) -> None:
        """Show values by their tags to TensorBoard and on the screen."""
        for name, events in self._events.items():
            tags = [tag for tag in values if (name == "eval") == tag.startswith("eval/")]
            if tags:
                summary = summary_pb2.Summary()
                for tag in tags:
                    summary.MergeFrom(scalar_pb(tag, values[tag], events.help_of(tag)))
                events.add_summary(summary, env_frames)
        self._write_or_wait()
        self._line.update(values)

    @contextlib.contextmanager
    def profile(self) -> Iterator[None]:
        """Write a trace of what runs inside to `plugins/profile/` in the run's folder, for TensorBoard's profiler.

        A trace cannot wait: one that cannot be written is told, and given up.
        """
        # Level 3: each operation of a compiled program on a CPU, too (see `tfdqn.runtime.devices.TRACE_XLA_FLAG`).
        tf.profiler.experimental.start(str(self.run_dir), tf.profiler.experimental.ProfilerOptions(host_tracer_level=3))
        try:
            yield
        finally:
            try:
                tf.profiler.experimental.stop()
                said = f"profile written to {self.run_dir / 'plugins' / 'profile'}; tensorboard --logdir {self.run_dir}"
            except (OSError, tf.errors.OpError) as error:
                said = f"tfdqn: warning: no profile written: {str(error).splitlines()[0]}; training goes on"
            console.say(said)

    def show_player(self, env_frames: int, scores: Scores, weights: Sequence[np.ndarray]) -> None:
        """Write the greedy player's frames, actions and action values of one evaluation, and its network's weights."""
        events, summary = self._events["eval"], summary_pb2.Summary()
        histograms = {
            evaluation.ACTIONS: scores.q_values.argmax(axis=1),
            evaluation.Q_VALUES: scores.q_values,
            evaluation.SCORES: scores.scores,
            evaluation.WEIGHTS: np.concatenate([each.ravel() for each in weights]),
        }
        for metric, values in histograms.items():
            summary.MergeFrom(histogram_pb(metric.tag, values, description=events.help_of(metric.tag)))
        strip, movie = strip_image(self.env, scores.strip), movie_image(self.env, scores.movie)
        for metric, picture in ((evaluation.PLAYER, strip), (evaluation.MOVIE, movie)):
            if picture is not None:
                summary.MergeFrom(image_pb(metric.tag, picture, events.help_of(metric.tag)))
        events.add_summary(summary, env_frames)
        self._write_or_wait()

    def show_histograms(self, env_frames: int, histograms: Mapping[Metric, np.ndarray]) -> None:
        """Write what a learner shows of itself, to the writer of training."""
        events, summary = self._events["train"], summary_pb2.Summary()
        for metric, values in histograms.items():
            summary.MergeFrom(histogram_pb(metric.tag, values, description=events.help_of(metric.tag)))
        events.add_summary(summary, env_frames)
        self._write_or_wait()

    def live(self, env_frames: int, frames_per_second: float, updates_per_second: float, wall_seconds: float) -> None:
        """Refresh what is live, and try again to write what waits."""
        if self._is_waiting:
            self._write_or_wait()
        if self._is_shown:
            self._line.show(env_frames, frames_per_second, updates_per_second, wall_seconds)

    def flush(self) -> dict[str, int]:
        """Bring all reports to the disk and return the size of each file that holds them, by its path in the folder.

        Raises:
          OSError: some cannot be written yet.
        """
        self._write()
        sizes, paths = {}, _log_files(self.run_dir)
        for path in paths:
            with open(path, "rb") as file:
                os.fsync(file.fileno())
                sizes[path.relative_to(self.run_dir).as_posix()] = os.fstat(file.fileno()).st_size
        for folder in {self.run_dir, *(path.parent for path in paths)}:
            files.sync_folder(folder)
        return sizes

    def close(self) -> None:
        """Finish what is live and write what waits; closing again does nothing.

        Raises:
          OSError: some cannot be written, and are lost.
        """
        if self._is_closed:
            return
        self._is_closed = True
        if self._is_shown:
            console.end_live()
        try:
            self._write()
        finally:
            for journal in (self._lines, *self._events.values()):
                journal.close()
