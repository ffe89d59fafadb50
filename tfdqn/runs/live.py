"""How a run is doing while it trains: a panel on a terminal that can show one, else a line. No TensorFlow in here."""

from __future__ import annotations

import contextlib
import io
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfdqn import console
from tfdqn.runs.curves import SCORE

if TYPE_CHECKING:
    from tfdqn.config import Config

PLAIN_LINE_SECONDS = 10.0  # between lines where they cannot overwrite each other
WIDEST = 100  # columns of a panel
TWO_SIDES = 68  # columns from which on two values share a row
BARS = "▁▂▃▄▅▆▇█"
_TRAINED = "rollout/score"


class LiveLine:
    """What a run's monitor keeps up to date on the screen.

    Args:
      config: the run's configuration.
      run_dir: its folder.
    """

    def __init__(self, config: Config, run_dir: Path):
        self._config, self._run_dir = config, run_dir
        self._values: dict[str, float] = {}
        self._scores: dict[str, list[float]] = {SCORE: [], _TRAINED: []}  # all that were reported, in turn
        self._last_shown = -math.inf

    def update(self, values: Mapping[str, Any]) -> None:
        """Take what was reported, by tag; in `metrics.jsonl` numbers that are not finite are words, and left out."""
        self._values.update({tag: value for tag, value in values.items() if not isinstance(value, str)})
        for tag, scores in self._scores.items():
            if not isinstance(values.get(tag, ""), str) and math.isfinite(values[tag]):
                scores.append(values[tag])

    def show(self, env_frames: int, frames_per_second: float, updates_per_second: float, wall_seconds: float) -> None:
        """Write it over what is there; where that cannot be done, now and then."""
        now = time.monotonic()
        if not console.is_terminal() and now - self._last_shown < PLAIN_LINE_SECONDS:
            return
        self._last_shown = now
        left = self._left(env_frames, frames_per_second, wall_seconds)
        # A narrow terminal has room for the first of these ranks.
        parts = [
            (0, f"{env_frames:,} frames"),
            (3, f"{frames_per_second:,.0f} frames/s"),
            (7, f"{updates_per_second:,.0f} updates/s"),
        ]
        for rank, tag, label, digits in (
            (4, _TRAINED, "score", 1),
            (2, SCORE, "greedy", 1),
            (6, "rollout/epsilon", "epsilon", 3),
            (5, "train/loss", "loss", 5),
        ):
            if tag in self._values:
                parts.append((rank, f"{label} {self._values[tag]:.{digits}f}"))
        parts.append((1, f"left {_clock(left)}"))
        share = max(env_frames / self._config.total_env_frames, wall_seconds / (60 * self._config.minutes))
        rows = self._rows(env_frames, frames_per_second, updates_per_second)

        def picture(columns: int, height: int) -> Sequence[str]:
            return self._panel(columns, height, min(share, 1.0), left, rows)

        console.live(parts, picture)

    def _rows(self, env_frames: int, frames_per_second: float, updates_per_second: float) -> list[tuple[str, str]]:
        """What a panel tells, the most important first: a word and a value."""
        rows = [
            ("frames", f"{env_frames:,}"),
            ("frames/s", f"{frames_per_second:,.0f}"),
            ("updates/s", f"{updates_per_second:,.0f}"),
        ]
        for tag, label, form in (
            ("train/loss", "loss", ".4g"),
            ("rollout/epsilon", "epsilon", ".3f"),
            (_TRAINED, "in training", ",.1f"),
        ):
            if tag in self._values:
                rows.append((label, f"{self._values[tag]:{form}}"))
        if (held := memory_bytes()) is not None:
            rows.append(("memory held", f"{held / 1e9:.2f} GB"))
        return rows

    def _panel(self, columns: int, height: int, share: float, left: float, rows: list[tuple[str, str]]) -> list[str]:
        """A panel of at most so many columns and lines."""
        # Only here: a process that draws nothing has no use for it.
        from rich import box
        from rich.console import Console, Group
        from rich.panel import Panel
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        width = min(columns, WIDEST)
        inside = width - 4
        time_left = f" {share:4.0%}  {_clock(left)} left"
        bar = Table.grid(expand=True)
        bar.add_column(ratio=1)
        bar.add_column(justify="right", no_wrap=True)
        bar.add_row(ProgressBar(total=1.0, completed=share, complete_style="cyan"), Text(time_left))
        lines: list = [bar, self._score(inside)]
        sides = 2 if width >= TWO_SIDES else 1
        room = height - 5 - (inside > 20)  # less the frame, the bar, the score and where the run lies
        table = Table.grid(expand=True, padding=(0, 2, 0, 0))
        for _ in range(sides):
            table.add_column(style="dim", no_wrap=True)
            table.add_column(justify="right", no_wrap=True, ratio=1)
        shown = rows[: max(room, 0) * sides]
        for first in range(0, len(shown), sides):
            table.add_row(*(text for pair in shown[first : first + sides] for text in pair))
        if shown:
            lines.append(table)
        lines.append(Text(_shortened(str(self._run_dir), inside), style="dim", no_wrap=True))
        config = self._config
        title = _shortened(f"{config.env} · {config.learner} · seed {config.seed}", inside - 2)
        drawing = Console(
            file=io.StringIO(), force_terminal=True, width=width, height=height, highlight=False, legacy_windows=False
        )
        panel = Panel(Group(*lines), title=Text(title, style="bold"), title_align="left", box=box.ROUNDED, width=width)
        drawing.print(panel)
        return drawing.file.getvalue().splitlines()[:height]

    def _score(self, width: int):
        """The line of the greedy player's scores, or of training's before the first evaluation."""
        from rich.text import Text

        scores, word = self._scores[SCORE] or self._scores[_TRAINED], "score"
        if not scores:
            return Text("score  none yet", style="dim", no_wrap=True)
        best = f"  best {max(scores):,.1f}"
        goal = self._config.goal_score
        told = f" of {goal:,.6g}" if math.isfinite(goal) else ""
        last = f"{scores[-1]:,.1f}"
        end = next((end for end in (best + told, best, "") if len(word) + len(last) + len(end) + 12 <= width), "")
        room = max(width - len(word) - len(last) - len(end) - 4, 1)
        text = Text(no_wrap=True, overflow="crop")
        text.append(f"{word}  ", style="dim")
        text.append(sparkline(scores, min(room, 40)) + "  ", style="green")
        text.append(last, style="bold")
        text.append(end, style="dim")
        return text

    def _left(self, env_frames: int, frames_per_second: float, wall_seconds: float) -> float:
        """Seconds until the frames or the minutes are over."""
        seconds = (self._config.total_env_frames - env_frames) / max(frames_per_second, 1e-9)
        return max(0.0, min(seconds, self._config.minutes * 60 - wall_seconds))


def _clock(seconds: float) -> str:
    seconds = int(seconds)
    hours, minutes = seconds // 3600, seconds // 60 % 60
    return f"{hours}:{minutes:02d}:{seconds % 60:02d}" if hours else f"{minutes}:{seconds % 60:02d}"


def _shortened(text: str, room: int) -> str:
    """A text of at most so many letters, whose end says most."""
    return text if len(text) <= room else "…" + text[len(text) - max(room - 1, 0) :]


def sparkline(values: Sequence[float], columns: int) -> str:
    """Numbers as bars, all of them in at most so many columns: where they are more, each bar is a mean of some."""
    count = min(columns, len(values))
    means = []
    for i in range(count):
        part = values[i * len(values) // count : (i + 1) * len(values) // count]
        means.append(sum(part) / len(part))
    low, high = min(means), max(means)
    if low == high:
        return BARS[len(BARS) // 2] * count
    return "".join(BARS[round((mean - low) / (high - low) * (len(BARS) - 1))] for mean in means)


def memory_bytes() -> int | None:
    """What this process holds in main memory; None where the system does not tell."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(ImportError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return None
