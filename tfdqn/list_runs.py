"""List the runs of a folder: `python -m tfdqn.list_runs`, or `tfdqn runs`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tfdqn import cli
from tfdqn.errors import UserError
from tfdqn.runs import checkpoints, locks, member, models, run_config
from tfdqn.runs.progress import GOAL_MARGIN


class Listed(NamedTuple):
    """What is told of a run, from its files alone."""

    name: str
    game: str
    env_frames: int
    best_score: float | None
    state: str  # "training", "finished", "stopped", "agent" (one alone, as saved), or "broken: " and why; or `UNBEGUN`


UNBEGUN = "stopped before its first checkpoint"  # such as while it compiled


def parser() -> cli.Parser:
    parser = cli.Parser(prog="python -m tfdqn.list_runs", description="List the runs of a folder.")
    parser.add_argument("logdir", nargs="?", type=cli.path(""), default="runs", help="folder that holds run folders")
    parser.add_argument("--json", action="store_true", help="print one JSON object a run")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse(argv)
    folder = Path(arguments.logdir)
    if not folder.is_dir():
        raise UserError(f"{arguments.logdir}: no such folder; name the one that --logdir named")
    if (folder / run_config.CONFIG_FILE).is_file():
        raise UserError(f"{arguments.logdir}: is a run itself; name the folder that holds it, {folder.parent}")
    if folder.resolve().name == member.FOLDER and member.numbers_of(folder.resolve().parent):
        whole = folder.resolve().parent
        raise UserError(
            f"{arguments.logdir}: holds the members of a run; name the folder that holds it, {whole.parent}"
        )
    found = [listed(path) for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    if arguments.json:
        cli.print_result("".join(json.dumps(run._asdict()) + "\n" for run in found))
        return 0
    rows = [("run", "game", "env frames", "best score", "state")]
    for run in found:
        score = "" if run.best_score is None else f"{run.best_score:,.1f}"
        rows.append((run.name, run.game, f"{run.env_frames:,}", score, run.state))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    for name, game, frames, score, state in rows if found else []:
        line = f"{name:<{widths[0]}}  {game:<{widths[1]}}  {frames:>{widths[2]}}  {score:>{widths[3]}}  {state}"
        cli.print_result(line + "\n")
    if not found:
        cli.say(f"{arguments.logdir}: holds no runs")
    return 0


def listed(run_dir: Path) -> Listed:
    """What the files of a run's folder tell, whole or not; nothing is verified, locked or changed."""
    try:
        return _told_by_files(run_dir)
    except OSError as error:  # of others: the list goes on
        return Listed(run_dir.name, "", 0, None, f"broken: {error.strerror or error}")


def _told_by_files(run_dir: Path) -> Listed:
    try:
        config = run_config.read_settings(run_dir)
    except UserError as error:
        reason = str(error).removeprefix(str(run_dir)).lstrip(":/ ")
        return Listed(run_dir.name, "", 0, None, f"broken: {reason}")
    game = str(config.get("env", ""))
    manifest = checkpoints.peek(run_dir)
    try:
        progress = dict(manifest.get("progress", {}))
        frames, seconds = int(manifest.get("env_frames", 0)), float(progress.get("wall_seconds", 0.0))
        best = None if progress.get("best_score") is None else float(progress["best_score"])
    except (TypeError, ValueError):
        return Listed(run_dir.name, game, 0, None, "broken: its checkpoint is not a run's")
    if locks.is_locked(run_dir):
        state = "training"
    elif (run_dir / models.BEST_MODEL).is_file() and not (run_dir / checkpoints.FOLDER).exists():
        state = "agent"
    elif not (run_dir / checkpoints.FOLDER).exists():
        state = UNBEGUN
    elif not manifest:
        state = "broken: no checkpoint"
    elif _is_finished(config, frames, best, seconds):
        state = "finished"
    else:
        state = "stopped"
    return Listed(run_dir.name, game, frames, best, state)


def _is_finished(config: dict[str, Any], frames: int, best: float | None, seconds: float) -> bool:
    is_goal_reached = config["stop_at_goal"] and best is not None and best >= config["goal_score"] - GOAL_MARGIN
    return frames >= config["total_env_frames"] or seconds >= 60 * config["minutes"] or is_goal_reached


if __name__ == "__main__":
    cli.run(main)
