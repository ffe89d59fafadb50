"""A run that several processes make: the chief writes what people read, and all keep their parts of its checkpoints.

RUN_DIR/               the chief's: as any run's
RUN_DIR/workers/1/     what worker 1 keeps: its own part of each checkpoint, and a lock

All see one file system. What hangs on time or on a signal is decided by one and told to all between two chunks, so that
they go on in step. A checkpoint is the chief's, whose manifest has the SHA-256 of every other worker's: it is written
last, and without it the others' parts are nothing.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from tfdqn import config as configuration
from tfdqn.errors import EXIT_REFUSED, UserError
from tfdqn.runs import checkpoints, locks, run_config
from tfdqn.runs.checkpoints import Checkpoint
from tfdqn.runs.loop import Run
from tfdqn.runs.progress import RunState
from tfdqn.runs.saving import Saver
from tfdqn.runtime import hosts
from tfdqn.settings import flag_of, without_number

if TYPE_CHECKING:
    from tfdqn.config import Config
    from tfdqn.programs.replicated import ReplicaTrainer
    from tfdqn.runs.monitor import Monitor
    from tfdqn.runs.progress import Player

FOLDER = "workers"
REFUSED = "refused: "
OF_ONE = ("minutes", "threads", "checkpoint_every_seconds")  # what only the chief's counts of, or is a machine's
WORKERS = "workers"  # in the chief's manifests: the SHA-256 of the others' manifests


def home(run_dir: Path, rank: int) -> Path:
    """The folder of a worker's own files."""
    return run_dir / FOLDER / str(rank) if rank else run_dir


def resume_hint(run_dir: Path) -> str:
    """How to go on with a run, for people."""
    command = run_config.resume_command(run_dir)
    return f"to go on, on every worker, {command} --trusted-network" if hosts.count() > 1 else f"to go on, {command}"


class Silent:
    """In the place of a `Monitor`, where another process reports."""

    def flush(self) -> dict[str, int]:
        return {}

    def profile(self) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext()

    def _nothing(self, *arguments: Any) -> None:
        pass

    report = live = show_player = show_histograms = close = _nothing


class WorkerSaver(Saver):
    """Saves this process's part of a checkpoint, the chief's after all others."""

    _parts: Sequence[str] = ()  # the SHA-256 of the others' manifests

    def _save(self) -> None:
        us, before, failure, digest = hosts.here(), self.path, None, None
        if not us.is_chief:
            failure, digest = self._try_to_save()
        parts = us.gather(_numbers(digest))[1:]
        is_whole = parts.any(axis=1).all()
        if us.is_chief and is_whole:
            self._parts = [part.tobytes().hex() for part in parts]
            failure, digest = self._try_to_save()
        if us.gather(np.array([digest is not None], np.int64))[0, 0]:
            return
        if digest is not None:  # a part of nothing, in whose room and place the next may be
            shutil.rmtree(self.path, ignore_errors=True)
        self.path, self._saved_iteration = before, -1
        raise failure or OSError(errno.EIO, "another worker could not write its part")

    def _try_to_save(self) -> tuple[Exception | None, bytes | None]:
        """What went wrong, or the SHA-256 of what was written."""
        try:
            super()._save()
        except (OSError, UserError) as error:
            return error, None
        return None, _digest(self.path)

    def _write(self, facts: dict[str, Any]) -> None:
        # Facts that name their parts are an earlier checkpoint's, written again: later parts may have failed.
        super()._write({WORKERS: self._parts, **facts} if self._parts else facts)

    def give_best(self, players: Sequence[Player] | None = None) -> None:
        if hosts.here().is_chief:
            super().give_best(players)

    def give_final(self) -> None:
        if hosts.here().is_chief:
            super().give_final()


class WorkerRun(Run):
    """One process of a run that several make. The chief's is the whole run, but for the others' replicas."""

    trainer: ReplicaTrainer
    SAVER = WorkerSaver
    _is_over = _saves_now = False

    def _make_folder(self, paths: Sequence[Path]) -> tuple[Path, IO[str]]:
        us = hosts.here()
        if us.is_chief:
            run_dir, lock = super()._make_folder(paths)
            us.from_chief(str(run_dir.absolute()))
            return run_dir, lock
        run_dir = Path(us.from_chief(""))
        if not (run_dir / run_config.CONFIG_FILE).is_file():
            raise UserError(
                f"{run_dir}: worker 0 has made it, and worker {us.rank} does not see it: they need one file system"
            )
        path = home(run_dir, us.rank)
        path.mkdir(parents=True)
        return path, locks.lock(path)

    def _write_config(self) -> None:
        if hosts.here().is_chief:
            super()._write_config()

    def _reporting(self, is_resumed: bool) -> Monitor | Silent:
        return super()._reporting(is_resumed) if hosts.here().is_chief else Silent()

    def _hint_at_resuming(self) -> None:
        self.stop.hint = resume_hint(self.run_dir if hosts.here().is_chief else self.run_dir.parent.parent)

    def _start_from(self, folder: Path) -> None:
        if hosts.here().is_chief:  # whose weights all begin with
            super()._start_from(folder)

    # What hangs on time.

    @property
    def is_finished(self) -> bool:
        return self._is_over

    def _train(self) -> dict[str, Any]:
        self._agree()
        result = super()._train()
        hosts.here().gather(np.zeros([1], np.int64))  # the chief may still have had much to do
        return result

    def reached(self) -> str:
        return super().reached() if hosts.here().is_chief else "as worker 0 says"

    def _save_end(self) -> None:
        super()._save_end()
        self._agree()  # a signal may have come to one of them meanwhile

    def _goes_on(self) -> bool:
        self._agree()
        return not self._is_over and self.stop.signal is None

    def _agree(self) -> None:
        """Have all go on as the chief does, and stop once one is told to."""
        progress = self.progress
        ours = [
            RunState.is_finished.fget(self) or self._is_asked_to_stop,
            self.saver.is_due(),
            progress.rounds,
            progress.next_eval,
            progress.next_log,
            self.stop.signal or 0,
        ]
        told = hosts.here().gather(np.array(ours, np.int64))
        self._is_over, self._saves_now = bool(told[0, 0]), bool(told[0, 1])
        progress.rounds, progress.next_eval, progress.next_log = map(int, told[0, 2:5])
        self.stop.signal = self.stop.signal or int(told[:, 5].max()) or None

    def _save_if_due(self) -> None:
        if self._saves_now:
            self.saver.save_now()

    # What the chief does alone.

    def _guard(self) -> None:
        super()._guard()
        if self.trainer.is_broken:
            self._end_diverged("training diverged on another worker, which says more")

    def _evaluate(self) -> None:
        if hosts.here().is_chief:
            super()._evaluate()
        else:
            self.progress.evaluated_env_frames = self.env_frames

    def _result(self) -> dict[str, Any]:
        if hosts.here().is_chief:
            return super()._result()
        return self.totals() | {"run_dir": str(self.run_dir)}


def load(run_dir: Path) -> tuple[Checkpoint, list[str]]:
    """This worker's part of the newest checkpoint that all have whole; as `tfdqn.runs.checkpoints.load_newest`.

    Raises:
      UserError: there is none; exit code 3, on all of them.
    """
    us, lines = hosts.here(), []
    while True:
        ours, said = None, ""
        if us.is_chief:
            try:
                ours, more = checkpoints.load_newest(run_dir)
            except UserError as error:
                us.from_chief(f"{REFUSED}{error}")
                raise
            lines += more
            said = " ".join(ours.manifest.get(WORKERS, []))
        said = us.from_chief(said)
        if said.startswith(REFUSED):
            raise UserError(said.removeprefix(REFUSED), EXIT_REFUSED)
        if not us.is_chief:
            ours = checkpoints.load_newest_if(home(run_dir, us.rank), said.split()[us.rank - 1])
        has = us.gather(np.array([ours is not None], np.int64))[:, 0]
        if has.all():
            return ours, lines
        if us.is_chief:
            missing = ", ".join(str(rank) for rank in np.flatnonzero(has == 0))
            aside = checkpoints.set_aside(ours.path).name
            lines.append(f"checkpoint {ours.path.name}: worker {missing} has no whole part of it; set aside as {aside}")


def refuse_other_workers(run_dir: Path, manifest: Mapping[str, Any], count: int) -> None:
    """A run goes on with as many workers as it has parts.

    Args:
      run_dir: its folder.
      manifest: of its newest checkpoint, as it stands.
      count: workers now.
    """
    held = manifest.get(WORKERS, [])
    parts = 1 + (len(held) if isinstance(held, list) else 0)
    if manifest and parts != count:
        how = "a TF_CONFIG of as many, and --trusted-network" if parts > 1 else "no TF_CONFIG"
        raise UserError(
            f"{run_dir}: is of {parts} worker{'s' * (parts > 1)}, not {count}; resume it with {how}", EXIT_REFUSED
        )


def refuse_other_settings(config: Config) -> None:
    """All workers have to be given the same; all refuse otherwise."""
    us = hosts.here()
    ours = configuration.as_json(config)
    chiefs = json.loads(us.from_chief(json.dumps(ours)))
    names = [name for name in ours if name not in OF_ONE and not _is_alike(name, ours[name], chiefs.get(name))]
    differ = us.gather(np.array([bool(names)], np.int64))[:, 0]
    if names:
        name = names[0]
        raise UserError(f"{flag_of(name)} {ours[name]}: worker 0 has {chiefs.get(name)}; give all workers the same")
    if differ.any():
        ranks = ", ".join(str(rank) for rank in np.flatnonzero(differ))
        raise UserError(f"worker {ranks} was given other settings than worker 0, and says which; give all the same")


def _is_alike(name: str, ours: Any, chiefs: Any) -> bool:
    field = configuration.FIELDS[name]
    return without_number(field, ours) == without_number(field, chiefs)


def _digest(path: Path) -> bytes:
    return hashlib.sha256((path / checkpoints.MANIFEST).read_bytes()).digest()


def _numbers(digest: bytes | None) -> np.ndarray:
    """A digest as four numbers; zeros for none."""
    return np.frombuffer(digest or bytes(32), np.int64)
