"""A run's folder: what is in it, how it is made, and how a trained agent is read back.

LOGDIR/<env>__<preset>__s<seed>__<time>/
  config.toml      the whole configuration
  metrics.jsonl    a line per report
  train/ eval/     TensorBoard events
  model.keras      best agent by evaluation
  final.keras      agent at the end of training
"""

from __future__ import annotations

import os
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from tfdqn import config as configuration
from tfdqn.config import Config
from tfdqn.errors import UserError

if TYPE_CHECKING:
    from tfdqn.agent import DQN

BEST_MODEL, FINAL_MODEL, CONFIG_FILE = "model.keras", "final.keras", "config.toml"


def check_writable(logdir: str) -> Path:
    """Refuse a log folder that cannot be written, before anything is made."""
    if not logdir:
        raise UserError("--logdir '': must name a folder; the default is runs")
    path = Path(logdir).expanduser()
    existing = path
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise UserError(f"--logdir {logdir}: {existing} is a file, not a folder; name another folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"--logdir {logdir}: no permission to write in {existing}; name another folder")
    return path


def choose_name(config: Config, logdir: Path, run_name: str | None) -> Path:
    """The run's folder, which must not exist yet."""
    if run_name is not None:
        if not run_name or Path(run_name).name != run_name or run_name in (".", ".."):
            raise UserError(f"--run-name {run_name!r}: must be a plain folder name, such as first-try")
        if (logdir / run_name).exists():
            raise UserError(f"--run-name {run_name}: {logdir / run_name} exists already; choose another name")
        return logdir / run_name
    stem = f"{config.env}__{config.preset}__s{config.seed}__{time.strftime('%Y%m%d-%H%M%S')}"
    names = [stem, *(f"{stem}-{i}" for i in range(2, 1000))]
    return next(logdir / name for name in names if not (logdir / name).exists())


def create(config: Config, path: Path) -> None:
    """Make a run's folder; fails rather than enter one that another run has just made."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; name another --logdir or --run-name") from None
    write_atomically(path / CONFIG_FILE, lambda temporary: temporary.write_text(configuration.to_toml(config)))


def write_atomically(path: Path, write) -> None:
    """`write(temporary)`, then rename: readers and crashes see the old file or the new one, never half of one."""
    temporary = path.with_name(f".{path.stem}.part{path.suffix}")
    write(temporary)
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


def save_agent(agent: DQN, path: Path) -> None:
    """Save as a `.keras` file, loadable by `tf.keras.models.load_model` after `import tfdqn.agent`."""
    write_atomically(path, lambda temporary: agent.save(temporary, save_format="keras"))


def read_config(run_dir: str | os.PathLike) -> Config:
    """The configuration of a run."""
    path = Path(run_dir)
    if not path.is_dir():
        raise UserError(f"{run_dir}: no such run folder")
    if not (path / CONFIG_FILE).is_file():
        raise UserError(f"{run_dir}: not a run folder ({CONFIG_FILE} is missing)")
    return configuration.resolve(configuration.read_toml(path / CONFIG_FILE))


def load_weights(agent: DQN, path: Path) -> None:
    """Read weights by name and shape into an agent built from its configuration; nothing in the file is executed."""
    if not path.is_file():
        raise UserError(f"{path}: no such file (the run may have ended before its first evaluation)")
    try:
        agent.load_weights(path)
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise UserError(f"{path}: does not hold this agent's weights: {reason}") from None
