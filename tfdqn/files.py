"""Files that outlast a kill, a power loss and a full disk."""

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


class Journal:
    """A file that grows at its end. A record that cannot be written waits in memory: none is lost, halved or doubled.

    Args:
      path: the file; the first `flush` makes it where there is none.
    """

    def __init__(self, path: Path):
        self.path = path
        self._waiting: list[bytes] = []
        self._file = None

    def add(self, record: bytes) -> None:
        """Take a record, to be written by `flush`."""
        self._waiting.append(record)

    def flush(self) -> None:
        """Write what waits.

        Raises:
          OSError: it could not be written, names the file, and left it as it was; all of it waits for the next time.
        """
        try:
            if self._file is None:
                self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 (closed in close())
            if not self._waiting:
                return
            size, rest = os.fstat(self._file.fileno()).st_size, memoryview(b"".join(self._waiting))
            try:
                while rest:
                    rest = rest[self._file.write(rest) :]
            except OSError:
                os.ftruncate(self._file.fileno(), size)
                raise
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from None
        self._waiting.clear()

    def close(self) -> None:
        """Close the file; what still waits is given up."""
        if self._file is not None:
            self._file.close()
