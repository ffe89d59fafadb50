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
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from tfdqn.errors import EXIT_REFUSED, UserError
from tfdqn.runs import checkpoints, locks, run_config
from tfdqn.runs.checkpoints import Checkpoint
from tfdqn.runs.loop import Run
from tfdqn.runs.progress import RunState
from tfdqn.runs.saving import Saver
from tfdqn.runtime import hosts

if TYPE_CHECKING:
    from tfdqn.programs.replicated import ReplicaTrainer
    from tfdqn.runs.monitor import Monitor
    from tfdqn.runs.progress import Player

FOLDER = "workers"
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

    def _write(self, facts: dict[str, Any]) -> None:
        if WORKERS in facts:  # the newest checkpoint again, but for the chief's best agent
            super()._write(facts)
            return
        others, before, failure = hosts.here(), self.path, None
        digests = None if others.is_chief else self._try_to_write(facts)
        parts = others.gather(_numbers(digests))[1:]
        is_whole = parts.any(axis=1).all()
        if others.is_chief and is_whole:
            is_whole = self._try_to_write({**facts, WORKERS: [part.tobytes().hex() for part in parts]}) is not None
        if not others.gather(np.array([is_whole], np.int64))[0, 0]:
            self.path, failure = before, self._failure
            raise failure or OSError(errno.EIO, "another worker could not write its part")

    def give_best(self, players: Sequence[Player] | None = None) -> None:
        if hosts.here().is_chief:
            super().give_best(players)

    def give_final(self) -> None:
        if hosts.here().is_chief:
            super().give_final()

    def _try_to_write(self, facts: dict[str, Any]) -> bytes | None:
        """The SHA-256 of what was written; None where it could not be."""
        self._failure = None
        try:
            super()._write(facts)
        except OSError as error:
            self._failure = error
            return None
        return _digest(self.path)


class WorkerRun(Run):
    """One process of a run that several make. The chief's is the whole run, but for the others' replicas."""

    trainer: ReplicaTrainer
    SAVER = WorkerSaver
    _is_over = _saves_now = False

    def _make_folder(self, paths: Sequence[Path]) -> tuple[Path, IO[str]]:
        others = hosts.here()
        if others.is_chief:
            run_dir, lock = super()._make_folder(paths)
            others.from_chief(str(run_dir.absolute()))
            return run_dir, lock
        path = home(Path(others.from_chief("")), others.rank)
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
      UserError: there is none, or this run has not as many workers; exit code 3, on all of them.
    """
    others, lines = hosts.here(), []
    while True:
        found = ours = None
        if others.is_chief:
            found, more = checkpoints.load_newest(run_dir)
            lines += more
            refuse_other_workers(found, others.count)
        said = others.from_chief("" if found is None else " ".join(found.manifest[WORKERS]))
        if not others.is_chief:
            ours = checkpoints.load_newest_if(home(run_dir, others.rank), said.split()[others.rank - 1])
        has = others.gather(np.array([(found or ours) is not None], np.int64))[:, 0]
        if has.all():
            return found or ours, lines
        if others.is_chief:
            missing = ", ".join(str(rank) for rank in np.flatnonzero(has == 0))
            aside = checkpoints.set_aside(found.path)
            lines.append(
                f"checkpoint {found.path.name}: worker {missing} has no whole part of it; set aside as {aside.name}"
            )


def refuse_other_workers(checkpoint: Checkpoint, count: int) -> None:
    """A run goes on with as many workers as it has parts."""
    parts = 1 + len(checkpoint.manifest.get(WORKERS, []))
    if parts != count:
        raise UserError(
            f"{checkpoint.path}: is of {parts} worker{'s' * (parts > 1)}, not {count}; resume it with a TF_CONFIG of "
            "as many, and --trusted-network",
            EXIT_REFUSED,
        )


def _digest(path: Path) -> bytes:
    return hashlib.sha256((path / checkpoints.MANIFEST).read_bytes()).digest()


def _numbers(digest: bytes | None) -> np.ndarray:
    """A digest as four numbers; zeros for none."""
    return np.frombuffer(digest or bytes(32), np.int64)
