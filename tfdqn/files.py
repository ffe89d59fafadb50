"""Files that outlast a kill and a power loss."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path


def sync_folder(path: Path) -> None:
    """Bring the names in a folder to the disk: until then a power loss may take back what was made or renamed in it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, all on the disk afterwards.

    Raises:
      FileExistsError: there is something of that name already, even if it was made a moment ago.
    """
    if not path.parent.exists():
        with contextlib.suppress(FileExistsError):  # another process has made it meanwhile
            make_folder(path.parent)
    path.mkdir()
    sync_folder(path.parent)


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """`write(temporary)`, then rename: readers and crashes see the old file or the new one, never half of one."""
    temporary = partial(path)
    try:
        write(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)  # on a full disk it would be in the way
        raise


def partial(path: Path) -> Path:
    """Where `write_atomically` writes first; a killed process may leave it."""
    return path.with_name(f".{path.stem}.part{path.suffix}")
