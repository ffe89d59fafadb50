"""The curves of many runs, from their files alone: runs that differ by their seed are one. No TensorFlow in here."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tfdqn import config as configuration
from tfdqn.errors import UserError, nearest
from tfdqn.runs import member, run_config
from tfdqn.runs.progress import GOAL_MARGIN

METRICS_FILE = "metrics.jsonl"
# What a report begins with, by the word that a user has for it.
AXES = {"frames": "env_frames", "updates": "updates", "seconds": "wall_seconds"}
SCORE = "eval/score_mean"
# Student's t of 97.5 %, by degrees of freedom from 1 to 10.
_T = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281)
_NORMAL = 1.959964


class Reports(NamedTuple):
    """What a run has reported so far."""

    name: str
    settings: dict[str, Any]
    lines: list[dict[str, Any]]

    @property
    def tags(self) -> set[str]:
        """The metrics that it has reported."""
        return {tag for line in self.lines for tag in line if "/" in tag}


class Line(NamedTuple):
    """One run's values of a metric, K of them by rising x; no x is there twice."""

    x: np.ndarray  # [K] float64
    y: np.ndarray  # [K] float64
    is_held: bool  # the run ended because it had reached its goal: it stands for what would have come


class Band(NamedTuple):
    """The mean of several runs, and where it lies with 95 % confidence, by Student's t, were there many more seeds."""

    x: np.ndarray  # [K] float64
    mean: np.ndarray  # [K] float64
    low: np.ndarray  # [K] float64
    high: np.ndarray  # [K] float64


class Curve(NamedTuple):
    """Runs that differ by their seed alone."""

    label: str
    runs: list[str]
    lines: list[Line]
    band: Band | None  # of two runs and more, where all of them have values

    @property
    def x(self) -> np.ndarray:
        """Where its `y` is."""
        return self.lines[0].x if self.band is None else self.band.x

    @property
    def y(self) -> np.ndarray:
        """The mean, or the values of the only run; of runs that never have values together those of the first."""
        return self.lines[0].y if self.band is None else self.band.mean


def find(folders: Sequence[str]) -> dict[Path, bool]:
    """The folders of runs, and whether each was named itself: of a folder that is no run, all that it holds are taken.

    Raises:
      UserError: there is no such folder, or there are no runs.
    """
    found: dict[Path, bool] = {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise UserError(f"{folder}: no such run folder; tfdqn runs lists those that there are")
        if (folder / run_config.CONFIG_FILE).is_file():
            members = member.numbers_of(folder)  # of a population each is a run
            found |= {(folder / member.folder_of(number)).resolve(): True for number in members}
            if not members:
                found[folder.resolve()] = True
            continue
        held = [path.parent for path in sorted(folder.glob(f"*/{run_config.CONFIG_FILE}"))]
        if not held:
            raise UserError(f"{folder}: neither a run folder ({run_config.CONFIG_FILE} is missing) nor one with runs")
        for path in held:
            members = [path / member.folder_of(number) for number in member.numbers_of(path)]
            for each in members or [path]:
                found.setdefault(each.resolve(), False)
    return found


def read(run_dir: Path) -> Reports:
    """What a run has reported; a last line that is still being written is left for the next time.

    Raises:
      UserError: its folder holds no settings of ours, or its reports cannot be read.
    """
    path, lines = run_dir / METRICS_FILE, []
    settings = run_config.read_settings(run_dir)
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        for line in text.splitlines(keepends=True):
            if line.endswith("\n"):
                lines.append(json.loads(line))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or f"line {len(lines) + 1} is no report"
        raise UserError(f"{path}: {reason}") from None
    if not all(isinstance(line, dict) for line in lines):
        raise UserError(f"{path}: is no list of reports")
    return Reports(run_dir.resolve().name, settings, lines)


def curves(runs: Sequence[Reports], metric: str, axis: str) -> list[Curve]:
    """One curve for each group of runs that differ by their seed alone, in the order given.

    Settings that may change while a run goes on, such as its length, do not tell runs apart.

    Args:
      runs: some runs; those that have not reported the metric are left out.
      metric: its tag.
      axis: one of `AXES`.

    Raises:
      UserError: none of them has reported it.
    """
    tags = sorted(set().union(*(run.tags for run in runs)))
    if not tags:
        raise UserError(f"{runs[0].name}: has reported nothing yet")
    if metric not in tags:
        raise UserError(f"--metric {metric}: not reported by these runs; {nearest(metric, tags)}")
    groups: dict[tuple, list[tuple[Reports, Line]]] = {}
    for run in runs:
        line = _line(run, metric, axis)
        if len(line.x):
            groups.setdefault(_identity(run.settings), []).append((run, line))
    if not groups:
        raise UserError(f"--metric {metric}: these runs have no finite value of it")
    labels = _labels([members[0][0].settings for members in groups.values()])
    found = []
    for label, members in zip(labels, groups.values(), strict=True):
        lines = [line for _, line in members]
        found.append(Curve(label, [run.name for run, _ in members], lines, band(lines)))
    return found


def _line(run: Reports, metric: str, axis: str) -> Line:
    points: dict[float, float] = {}
    for report in run.lines:
        x, y = report.get(AXES[axis]), report.get(metric)
        if _is_number(x) and _is_number(y):  # what is not finite is a word
            points[float(x)] = float(y)
    best = max((line[SCORE] for line in run.lines if _is_number(line.get(SCORE))), default=-math.inf)
    is_held = bool(run.settings["stop_at_goal"]) and best >= run.settings["goal_score"] - GOAL_MARGIN
    xs = sorted(points)
    return Line(np.array(xs, np.float64), np.array([points[x] for x in xs], np.float64), is_held)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def band(lines: Sequence[Line]) -> Band | None:
    """Their mean where each of them has values, straight between two of its own."""
    if len(lines) == 1:
        return None
    begin = max(line.x[0] for line in lines)
    ends = [line.x[-1] for line in lines if not line.is_held]
    end = min(ends) if ends else max(line.x[-1] for line in lines)
    if begin > end:
        return None
    x = np.unique(np.concatenate([line.x for line in lines]))
    x = x[(x >= begin) & (x <= end)]
    each = np.stack([np.interp(x, line.x, line.y) for line in lines])  # [runs, K]
    mean, half = each.mean(axis=0), student(len(lines)) * each.std(axis=0, ddof=1) / math.sqrt(len(lines))
    return Band(x, mean, mean - half, mean + half)


def student(runs: int) -> float:
    """How many standard errors the mean of so many runs, two or more, may be off with 95 % confidence."""
    freedom = runs - 1
    if freedom <= len(_T):
        return _T[freedom - 1]
    # Abramowitz and Stegun (1964), 26.7.5; off by less than 0.001 from here on.
    z = _NORMAL
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def _identity(settings: Mapping[str, Any]) -> tuple:
    """The settings that tell runs apart."""
    return tuple((name, settings[name]) for name in _telling())


def _telling() -> list[str]:
    first = [name for name in ("env", "learner", "preset") if name in configuration.FIELDS]
    return first + [
        name
        for name in configuration.FIELDS
        if name not in {*first, "seed"} and name not in configuration.RESUMABLE_FIELDS
    ]


def _labels(groups: Sequence[Mapping[str, Any]]) -> list[str]:
    """The fewest settings that tell the groups apart, from the game on; of a single one its game."""
    chosen: list[str] = []
    for name in _telling():
        before = {tuple(group[other] for other in chosen) for group in groups}
        if len(before) == len(groups):
            break
        if len({tuple(group[other] for other in (*chosen, name)) for group in groups}) > len(before):
            chosen.append(name)
    plain = ("env", "learner", "preset")
    words = [
        [str(group[name]) if name in plain else f"{name}={_shown(group[name])}" for name in chosen] for group in groups
    ]
    return [" ".join(each) or str(group["env"]) for each, group in zip(words, groups, strict=True)]


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value) or "none"


def common(runs: Sequence[Reports]) -> str:
    """What all runs share: the game, learner and preset, as far as they are the same."""
    values = [{str(run.settings[name]) for run in runs} for name in ("env", "learner", "preset")]
    return ", ".join(next(iter(each)) for each in values if len(each) == 1)
