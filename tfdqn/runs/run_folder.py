"""A run's folder: what is in it, and how it is made.

LOGDIR/<env>__<preset>__s<seed>__<time>/
  config.toml      the whole configuration (`tfdqn.runs.run_config`)
  metrics.jsonl    a line per report
  train/ eval/     TensorBoard events
  events.out...    the settings, for TensorBoard's table of runs
  model.keras      best agent by evaluation (`tfdqn.runs.models`)
  final.keras      agent where training ended
  checkpoints/     the last two states to resume from (`tfdqn.runs.checkpoints`)
  lock             held while a process trains in here (`tfdqn.runs.locks`)
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from tfdqn import files
from tfdqn.config import Config
from tfdqn.errors import UserError
from tfdqn.runs import locks, run_config


def check_writable(logdir: str) -> Path:
    """Refuse a log folder that cannot be written, before anything is made."""
    if not logdir:
        raise UserError("--logdir '': must name a folder; the default is runs")
    try:
        path = existing = Path(logdir)
        while True:
            try:
                os.stat(existing)
                break
            except (FileNotFoundError, NotADirectoryError):
                existing = existing.parent
        if not existing.is_dir():
            raise UserError(f"--logdir {logdir}: {existing} is a file, not a folder; name another folder")
        # Permissions do not tell everything, least of all to root: write a file, one without a name.
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"--logdir {logdir}: cannot write in {existing}: {reason}; name another folder") from None
    return path


def folders(config: Config, logdir: Path, run_name: str | None) -> list[Path]:
    """Folders for a new run, of which `create` takes the first that does not exist; one only if the user named it."""
    if run_name is not None:
        is_plain = Path(run_name).name == run_name and run_name not in ("", ".", "..")
        if not is_plain or len(os.fsencode(run_name)) > 255:  # bytes, what file systems allow
            raise UserError(f"--run-name {run_name!r}: must be a plain folder name, such as first-try")
        if (logdir / run_name).exists():
            raise UserError(_taken(logdir / run_name))
        return [logdir / run_name]
    # Of a game from elsewhere the class's name, as plain as a file's.
    game = re.sub(r"[^\w-]", "", config.env.rpartition(":")[2])
    stem = f"{game}__{config.preset}__s{config.seed}__{time.strftime('%Y%m%d-%H%M%S')}"
    return [logdir / name for name in (stem, *(f"{stem}-{i}" for i in range(2, 1000)))]


def create(config: Config, paths: Sequence[Path]) -> tuple[Path, IO[str]]:
    """Make a run's folder and return it and its lock.

    Args:
      config: what to write to its `config.toml`.
      paths: its possible places; the first that is free is taken, also from another run that looks for one right now.

    Raises:
      UserError: none is free, or no folder can be made there.
      OSError: it cannot be written in; then there is none.
    """
    path = _make_first(paths)
    try:
        held = locks.lock(path)
        run_config.write_config(config, path)
    except BaseException:
        discard(path)
        raise
    return path, held


def _make_first(paths: Sequence[Path]) -> Path:
    for path in paths:
        try:
            files.make_folder(path)
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(f"{path}: {error.strerror or error}; name another --logdir or --run-name") from None
        return path
    raise UserError(_taken(paths[-1]))


def _taken(path: Path) -> str:
    return f"--run-name {path.name}: {path} exists already; choose another name"


def discard(path: Path) -> None:
    """Remove the folder of a run that ends before it has begun: it holds nothing yet that anyone could use."""
    shutil.rmtree(path, ignore_errors=True)
