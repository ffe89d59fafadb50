"""Checkpoints: one folder holds everything a run needs to go on as if it had never stopped.

RUN_DIR/checkpoints/<updates>/
  manifest.json    versions, counters, sizes, SHA-256, and the name, dtype, shape and place of every tensor
  tensors.bin      the tensors, one after the other, as little-endian bytes

A checkpoint is whole or it is not there: it is written to a hidden folder, flushed to the disk, and renamed. Nothing in
it is code, no path is taken from it, and nothing is allocated by a size that was not compared with the file's own
first. Tensors go by in blocks, so that a replay of any size needs no second copy of itself in memory.

Two calls are the interface: `save(run_dir, ...)` and `load_newest(run_dir)`. This module imports no TensorFlow; a
folder that cannot be resumed is refused before that starts.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import itertools
import json
import os
import platform
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import tfdqn
from tfdqn import files
from tfdqn.errors import EXIT_NUMERIC, EXIT_REFUSED, UserError

FORMAT = 1
KEPT = 2  # whole checkpoints; the second is for the day the first turns out to be damaged
FOLDER, MANIFEST, DATA = "checkpoints", "manifest.json", "tensors.bin"
PARTIAL, SET_ASIDE = ".partial-", "damaged-"
BLOCK_BYTES = 16 * 2**20
MANIFEST_MAX_BYTES = 4 * 2**20  # one of ours has about 20 kB
# A second checkpoint at the same number of updates (while the replay fills, say) is `<updates>.2`; none is ever
# replaced, for between removing one and renaming the next there would be none.
_NAME = re.compile(r"(0|[1-9]\d{0,18})(?:\.([1-9]\d{0,5}))?")


class Damaged(Exception):
    """Why a checkpoint is not whole."""


# Writing.


def save(
    run_dir: Path, tensors: Mapping[str, Any], facts: Mapping[str, Any], filled: Mapping[str, int] | None = None
) -> Path:
    """Write a checkpoint, then remove all but the newest `KEPT`.

    Args:
      run_dir: the run's folder, locked by this process.
      tensors: by name, TensorFlow variables and tensors or arrays. Those under `agent/` and `optimizer/` must be
        finite: a broken learner is never kept.
      facts: what else to remember, plain JSON; must hold `updates` and `env_frames`.
      filled: for a variable of which only the first rows are in use, how many; only these are written.

    Returns:
      The checkpoint's folder.

    Raises:
      OSError: it could not be written (the disk may be full); earlier checkpoints are as they were.
      UserError: a weight is not finite; earlier checkpoints are as they were.
    """
    filled = filled or {}
    folder = run_dir / FOLDER
    if not folder.is_dir():
        folder.mkdir()
        files.sync_folder(run_dir)
    table, size = _table(tensors, filled)
    free, needed = shutil.disk_usage(folder).free, size + MANIFEST_MAX_BYTES
    if free < needed:
        reason = f"a checkpoint needs {needed / 1e6:,.1f} MB, but {free / 1e6:,.1f} MB are free"
        raise OSError(errno.ENOSPC, reason, str(folder))
    remove_partial(run_dir)
    staged = folder / f"{PARTIAL}{os.getpid()}"
    staged.mkdir()
    try:
        digest = _write_tensors(staged / DATA, tensors, table)
        manifest = {
            "format": FORMAT,
            **facts,
            "versions": versions(),
            "files": {DATA: {"bytes": size, "sha256": digest}},
            "tensors": table,
        }
        with open(staged / MANIFEST, "x", encoding="utf-8") as file:
            file.write(_serialise(manifest))
            file.flush()
            os.fsync(file.fileno())
        files.sync_folder(staged)
        path = folder / _free_name(folder, facts["updates"])
        os.rename(staged, path)
        files.sync_folder(folder)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise
    for old in _committed(folder)[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)
    return path


def exist(run_dir: Path) -> bool:
    """Whether a run has a checkpoint, whole or not."""
    folder = run_dir / FOLDER
    return folder.is_dir() and bool(_committed(folder))


def size_of(tensors: Mapping[str, Any], filled: Mapping[str, int] | None = None) -> int:
    """Bytes of the tensors in a checkpoint."""
    return _table(tensors, filled or {})[1]


def remove_partial(run_dir: Path) -> None:
    """Remove what a killed process left half written; only for the process that holds the run's lock."""
    for left in (run_dir / FOLDER).glob(f"{PARTIAL}*"):
        shutil.rmtree(left, ignore_errors=True)


def _table(tensors: Mapping[str, Any], filled: Mapping[str, int]) -> tuple[list[dict[str, Any]], int]:
    table, offset = [], 0
    for name, value in tensors.items():
        dtype, shape = _kind(value)
        shape = [filled[name], *shape[1:]] if name in filled else shape
        size = dtype.itemsize * int(np.prod(shape, dtype=object))
        table.append({"name": name, "dtype": dtype.name, "shape": shape, "offset": offset, "bytes": size})
        offset += size
    return table, offset


def _kind(value: Any) -> tuple[np.dtype, list[int]]:
    """NumPy dtype and shape of a variable, tensor or array, without reading it."""
    return np.dtype(getattr(value.dtype, "as_numpy_dtype", value.dtype)), [int(size) for size in value.shape]


def _dtype_of(name: str) -> np.dtype:
    """The dtype of a name. NumPy knows TensorFlow's own, such as `bfloat16`, only once TensorFlow is there."""
    try:
        return np.dtype(name)
    except TypeError:
        import tensorflow as tf

        return np.dtype(tf.as_dtype(name).as_numpy_dtype)


def _is_number(dtype: np.dtype) -> bool:
    """Whether its bytes are numbers: NumPy's, or those that others add to it, which are of no kind of its own."""
    return dtype.kind in "biufc" or (dtype.kind == "V" and dtype.type is not np.void)


def _write_tensors(path: Path, tensors: Mapping[str, Any], table: list[dict[str, Any]]) -> str:
    """Write all tensors and return the file's SHA-256."""
    digest = hashlib.sha256()
    with open(path, "xb") as file:
        for entry in table:
            must_be_finite = entry["name"].startswith(("agent/", "optimizer/")) and "float" in entry["dtype"]
            for block in _blocks(tensors[entry["name"]], entry):
                if must_be_finite and not np.isfinite(block).all():
                    raise UserError(f"{entry['name']} is not finite: no checkpoint is made of it", EXIT_NUMERIC)
                data = np.ascontiguousarray(block).reshape(-1).view(np.uint8)  # the same memory, as bytes
                digest.update(data)
                file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _row_ranges(entry: Mapping[str, Any]) -> Iterator[tuple[int, int]]:
    rows = entry["shape"][0]
    step = max(1, BLOCK_BYTES * rows // max(entry["bytes"], 1))
    for start in range(0, rows, step):
        yield start, min(start + step, rows)


def _blocks(value: Any, entry: Mapping[str, Any]) -> Iterator[np.ndarray]:
    if hasattr(value, "sparse_read") and entry["shape"]:
        import tensorflow as tf

        for start, end in _row_ranges(entry):
            with tf.device(value.device):  # looks into the variable; reading it as a tensor may copy all of it
                yield value.sparse_read(tf.range(start, end, dtype=tf.int64)).numpy()
    else:
        yield np.asarray(value.numpy() if hasattr(value, "numpy") else value)


def _serialise(manifest: Mapping[str, Any]) -> str:
    """The one form of a manifest: any other text, be it one bit away, is not whole."""
    text = json.dumps(manifest, sort_keys=True, indent=1, allow_nan=False)
    return json.dumps(
        {**manifest, "manifest_sha256": hashlib.sha256(text.encode()).hexdigest()}, sort_keys=True, indent=1
    )


def versions() -> dict[str, str]:
    """What a checkpoint is made with; equal bits are promised for equal versions only."""
    import tensorflow as tf

    return {"tfdqn": tfdqn.__version__, "tensorflow": tf.__version__, "python": platform.python_version()}


def _free_name(folder: Path, updates: int) -> str:
    taken = {path.name for path in folder.iterdir()}
    taken |= {name.removeprefix(SET_ASIDE) for name in taken}
    return next(name for name in _numbered(str(updates), ".") if name not in taken)


def _numbered(name: str, separator: str) -> Iterator[str]:
    """The name, then the name with 2, 3 and so on; one at a time, for nearly always the first will do."""
    yield name
    for number in itertools.count(2):
        yield f"{name}{separator}{number}"


def _committed(folder: Path) -> list[Path]:
    """Checkpoints by name, the newest first."""
    names = {path: _NAME.fullmatch(path.name) for path in folder.iterdir()}
    order = {path: (int(match[1]), int(match[2] or 1)) for path, match in names.items() if match}
    return sorted(order, key=order.__getitem__, reverse=True)


# Reading.


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose every byte has been compared with its manifest."""

    path: Path
    manifest: dict[str, Any]

    @property
    def names(self) -> set[str]:
        return {entry["name"] for entry in self.manifest["tensors"]}

    def read(self, like: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Tensors by name, of the dtype and shape of those given."""
        entries = self._entries(like)
        with open(self.path / DATA, "rb") as file:
            return {name: self._array(file, entry, 0, entry["bytes"]) for name, entry in entries.items()}

    def restore(self, variables: Mapping[str, Any], growing: frozenset[str] | set[str] = frozenset()) -> None:
        """Give variables their values back. Those in `growing` may have fewer rows here, which are their first.

        These are written into their place block by block: no device holds a second copy of one, however large it is.
        (A GPU has kernels for that, too, for the types that a replay keeps: see `tfdqn.replay.table.STORED_TYPE`.)
        """
        import tensorflow as tf

        entries = self._entries(variables, growing)
        with open(self.path / DATA, "rb") as file:
            for name, entry in entries.items():
                variable = variables[name]
                with tf.device(variable.device):
                    if name not in growing:
                        variable.assign(self._array(file, entry, 0, entry["bytes"]))
                        continue
                    row_bytes = entry["bytes"] // max(entry["shape"][0], 1)
                    for start, end in _row_ranges(entry):
                        rows = self._array(file, entry, start * row_bytes, (end - start) * row_bytes)
                        variable.scatter_update(tf.IndexedSlices(rows, tf.range(start, end, dtype=tf.int64)))

    def _entries(self, expected: Mapping[str, Any], growing: frozenset[str] | set[str] = frozenset()):
        entries = {entry["name"]: entry for entry in self.manifest["tensors"]}
        for name, value in expected.items():
            dtype, shape = _kind(value)
            wanted = f"{dtype.name} {shape}"
            if name not in entries:
                raise UserError(f"{self.path}: holds no {name} ({wanted}), which this run needs", EXIT_REFUSED)
            held_dtype, held = entries[name]["dtype"], entries[name]["shape"]
            fits = held == shape or (name in growing and held[1:] == shape[1:] and len(held) and held[0] <= shape[0])
            if held_dtype != dtype.name or not fits:
                raise UserError(f"{self.path}: {name} is {held_dtype} {held}, expected {wanted}", EXIT_REFUSED)
        return {name: entries[name] for name in expected}

    @staticmethod
    def _array(file: Any, entry: Mapping[str, Any], start: int, size: int) -> np.ndarray:
        file.seek(entry["offset"] + start)
        flat = np.frombuffer(file.read(size), _dtype_of(entry["dtype"]))
        return flat.reshape([-1, *entry["shape"][1:]] if entry["shape"] and size else entry["shape"])


def load_newest(run_dir: Path) -> tuple[Checkpoint, list[str]]:
    """The newest whole checkpoint, and a line for each newer one that is not whole, which is set aside by renaming.

    Raises:
      UserError: there is no whole checkpoint, a newer tfdqn wrote it, or the folder leads elsewhere; exit code 3.
    """
    folder = run_dir / FOLDER
    if folder.is_symlink():
        raise UserError(f"{folder}: is a link, and links are not followed", EXIT_REFUSED)
    remove_partial(run_dir)
    candidates = _committed(folder) if folder.is_dir() else []
    problems: dict[Path, str] = {}
    for path in candidates:
        try:
            checkpoint = Checkpoint(path, _verify(path))
        except Damaged as error:
            problems[path] = f"checkpoint {path.name} is not whole: {error}"
            continue
        lines = []
        for bad, problem in problems.items():
            aside = set_aside(bad)
            lines.append(f"{problem}; set aside as {aside.name}, going back to checkpoint {path.name}")
        return checkpoint, lines
    found = "; ".join(problems.values()) or "the run ended before its first one; start a new run"
    raise UserError(f"{run_dir}: no whole checkpoint to resume from: {found}", EXIT_REFUSED)


def load_newest_if(run_dir: Path, manifest_sha256: str) -> Checkpoint | None:
    """The whole checkpoint whose manifest file has that SHA-256; None if there is none. Newer ones are removed.

    It is for a part of a checkpoint that others decide on: what is newer than theirs was never finished.
    """
    folder = run_dir / FOLDER
    if folder.is_symlink() or not folder.is_dir():
        return None
    remove_partial(run_dir)
    found = next((path for path in _committed(folder) if _manifest_sha256(path) == manifest_sha256), None)
    if found is None:
        return None
    for path in _committed(folder):
        if path == found:
            break
        shutil.rmtree(path, ignore_errors=True)
    try:
        return Checkpoint(found, _verify(found))
    except Damaged:
        return None


def _manifest_sha256(path: Path) -> str:
    try:
        return hashlib.sha256((path / MANIFEST).read_bytes()).hexdigest()
    except OSError:
        return ""


def peek(run_dir: Path) -> dict[str, Any]:
    """The manifest of the newest checkpoint, as it stands; empty if there is none. Nothing is verified or changed."""
    folder = run_dir / FOLDER
    for path in _committed(folder) if folder.is_dir() else []:
        try:
            with open(path / MANIFEST, "rb") as file:
                manifest = json.loads(file.read(MANIFEST_MAX_BYTES))
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(manifest, dict):
            return manifest
    return {}


def set_aside(path: Path) -> Path:
    """Rename a checkpoint so that it counts no more; its new place."""
    names = _numbered(f"{SET_ASIDE}{path.name}", "-")
    aside = next(path.with_name(name) for name in names if not os.path.lexists(path.with_name(name)))
    os.rename(path, aside)
    files.sync_folder(path.parent)
    return aside


def _verify(path: Path) -> dict[str, Any]:
    """Compare everything in a checkpoint with its manifest, with bounded memory, and return the manifest."""
    if path.is_symlink() or not path.is_dir():
        raise Damaged("it is no folder")
    present = {entry.name for entry in os.scandir(path)}
    for name in (MANIFEST, DATA):
        if name not in present:
            raise Damaged(f"{name} is missing")
    if present != {MANIFEST, DATA}:
        raise Damaged(f"{min(present - {MANIFEST, DATA})!r} does not belong there")
    with _open_plain(path / MANIFEST) as file:
        if os.fstat(file.fileno()).st_size > MANIFEST_MAX_BYTES:
            raise Damaged(f"{MANIFEST} is larger than any manifest")
        text = file.read()
    try:
        manifest = json.loads(text)
        version, recorded = manifest["format"], manifest.pop("manifest_sha256")
    except (ValueError, TypeError, KeyError, RecursionError):
        raise Damaged(f"{MANIFEST} is not a manifest") from None
    if isinstance(version, int) and version > FORMAT:
        raise UserError(f"{path}: written by a newer tfdqn (format {version}, this one reads {FORMAT})", EXIT_REFUSED)
    try:
        is_canonical = _serialise(manifest).encode() == text
    except (ValueError, RecursionError):
        is_canonical = False
    if not is_canonical:
        raise Damaged(f"{MANIFEST} does not match its SHA-256 {str(recorded)[:12]!r}")
    size, digest = _check_layout(manifest)
    with _open_plain(path / DATA) as file:
        held = os.fstat(file.fileno()).st_size
        if held != size:
            raise Damaged(f"{DATA} has {held} bytes, its manifest says {size}")
        if hashlib.file_digest(file, "sha256").hexdigest() != digest:
            raise Damaged(f"{DATA} does not match its SHA-256")
    return manifest


def _check_layout(manifest: dict[str, Any]) -> tuple[int, str]:
    """Size and SHA-256 of the data file, after the table of tensors was found to tile it exactly."""
    try:
        held, offset, names = manifest["files"], 0, set()
        if set(held) != {DATA}:
            raise Damaged(f"{MANIFEST} names the files {sorted(held)}, not only {DATA}")
        for entry in manifest["tensors"]:
            shape, dtype = entry["shape"], _dtype_of(entry["dtype"])
            is_plain = _is_number(dtype) and all(type(n) is int and n >= 0 for n in shape)
            size = dtype.itemsize * int(np.prod(shape, dtype=object))
            if not is_plain or entry["name"] in names or (entry["offset"], entry["bytes"]) != (offset, size):
                raise Damaged(f"{MANIFEST} has a bad entry for {entry['name']!r}")
            names.add(entry["name"])
            offset += size
        size, digest = held[DATA]["bytes"], held[DATA]["sha256"]
    except (TypeError, KeyError, AttributeError, ValueError):
        raise Damaged(f"{MANIFEST} lacks something") from None
    if offset != size:
        raise Damaged(f"{MANIFEST} places {offset} bytes of tensors in {size} bytes")
    return size, digest


def _open_plain(path: Path) -> Any:
    """Open a regular file that is no link, for reading bytes."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise Damaged(f"{path.name} cannot be read ({error.strerror})") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Damaged(f"{path.name} is not a plain file")
    return os.fdopen(descriptor, "rb")
