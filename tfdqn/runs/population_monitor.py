"""What a population tells people: each member's reports in its own folder, all in one file, and their mean and band."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tensorboard.compat.proto import summary_pb2
from tensorboard.plugins.scalar.summary_v2 import scalar_pb

from tfdqn import files
from tfdqn.runs import curves, population_selection, run_config
from tfdqn.runs.member import BANDS, band_folder
from tfdqn.runs.monitor import EVENT_FOLDERS, EventFile, Monitor, reported

if TYPE_CHECKING:
    from tfdqn.config import Config
    from tfdqn.envs import Environment
    from tfdqn.programs.evaluation import Scores
    from tfdqn.runs.member import Member


class PopulationMonitor:
    """Writes the reports of a population.

    The run's own `metrics.jsonl` has a line for each member's report, with its number as `member`. TensorBoard has the
    mean over the members as the run's, 95% of it, by Student's t, as `band/low` and `band/high`, and each member.

    Args:
      config: the run's configuration.
      run_dir: its folder.
      env: the game.
      members: of the run.
      is_resumed: the folder holds the run's reports so far.

    Raises:
      OSError: a new run's first report cannot be written.
    """

    def __init__(self, config: Config, run_dir: Path, env: Environment, members: Sequence[Member], is_resumed: bool):
        self._run_dir = run_dir
        for member in members if not is_resumed else ():
            member.run_dir.mkdir(parents=True, exist_ok=True)
            run_config.write_config(member.config, member.run_dir)
        more = population_selection.metrics(config)
        self._whole = Monitor(config, run_dir, env, is_resumed, more=more)
        self._each = [Monitor(each.config, each.run_dir, env, is_resumed, False, more) for each in members]
        metrics = reported(config.learner, more)
        self._bands: dict[tuple[str, str], EventFile] = {}
        for band in BANDS:
            for name in EVENT_FOLDERS:
                folder = run_dir / band_folder(band) / name
                folder.mkdir(parents=True, exist_ok=True)
                self._bands[band, name] = EventFile(folder, metrics)

    def report(
        self,
        env_frames: Mapping[int, int],
        updates: int,
        wall_seconds: float,
        values: Mapping[int, Mapping[str, float]],
        shared: Mapping[str, float],
    ) -> None:
        """Write one report of members, by number.

        Args:
          env_frames: what each has played.
          updates: that each has made.
          wall_seconds: of the run.
          values: by tag.
          shared: values of all together.
        """
        for number, found in values.items():
            self.note(number, env_frames[number], updates, wall_seconds, found)
        if not values:
            return
        step, means = min(env_frames[number] for number in values), {}
        bands = {key: summary_pb2.Summary() for key in self._bands}
        for tag in dict.fromkeys(tag for found in values.values() for tag in found):
            each = np.array([found[tag] for found in values.values() if tag in found], np.float64)
            means[tag] = float(each.mean())
            if len(each) < 2 or not np.isfinite(each).all():  # no limit, of a setting that changes
                continue
            half = curves.student(len(each)) * float(each.std(ddof=1)) / math.sqrt(len(each))
            name = "eval" if tag.startswith("eval/") else "train"
            for band, sign in zip(BANDS, (-1, 1), strict=True):
                bands[band, name].MergeFrom(scalar_pb(tag, means[tag] + sign * half))
        self._whole.draw(step, {**means, **shared})
        for key, summary in bands.items():
            if summary.value:
                self._bands[key].add_summary(summary, step)
        with contextlib.suppress(OSError):  # they wait, and the next ones or the next checkpoint try again
            self._write_bands()

    def note(
        self, number: int, env_frames: int, updates: int, wall_seconds: float, values: Mapping[str, float]
    ) -> None:
        """Write what is of one member alone; in the run's own file it is written out with the next report of all."""
        self._each[number].report(env_frames, updates, wall_seconds, values)
        counts = {"env_frames": env_frames, "updates": updates, "wall_seconds": round(wall_seconds, 3)}
        self._whole.note({"member": number, **counts, **values})

    def _write_bands(self) -> None:
        for events in self._bands.values():
            events.flush()

    def show_player(self, number: int, env_frames: int, scores: Scores, weights: Sequence[np.ndarray]) -> None:
        """As of `Monitor`, of one member."""
        self._each[number].show_player(env_frames, scores, weights)

    def profile(self) -> contextlib.AbstractContextManager:
        """As of `Monitor`."""
        return self._whole.profile()

    def live(self, *given: Any) -> None:
        """As of `Monitor`, of all."""
        self._whole.live(*given)

    def flush(self) -> dict[str, int]:
        """As of `Monitor`, of all files."""
        self._write_bands()
        sizes = self._whole.flush()
        for monitor in self._each:
            home = monitor.run_dir.relative_to(self._run_dir).as_posix()
            sizes |= {f"{home}/{name}": size for name, size in monitor.flush().items()}
        for events in self._bands.values():
            with open(events.path, "rb") as file:
                os.fsync(file.fileno())
                sizes[events.path.relative_to(self._run_dir).as_posix()] = os.fstat(file.fileno()).st_size
            files.sync_folder(events.path.parent)
        return sizes

    def close(self) -> None:
        """As of `Monitor`."""
        with contextlib.ExitStack() as stack:
            for journal in (*self._each, *self._bands.values(), self._whole):
                stack.callback(journal.close)
            self._write_bands()
