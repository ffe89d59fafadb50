"""The lock of a run's folder: held while a process trains in there; the number in it is that process's."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path
from typing import IO

from tfdqn.errors import EXIT_REFUSED, UserError

LOCK_FILE = "lock"
ATTEMPTS, LOOK_SECONDS = 10, 0.05  # someone may just be looking whether it is locked


def lock(run_dir: Path) -> IO[str]:
    """Take a run's folder for this process, for as long as the file that is returned stays open.

    The lock belongs to the open file, so the system frees it however the process ends; the file itself stays.

    Raises:
      UserError: another process trains in the folder; exit code 3.
    """
    path = run_dir / LOCK_FILE
    try:
        # Without O_NOFOLLOW a link planted here would have its target written to.
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "r+", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}", EXIT_REFUSED) from None
    if not _take(file):
        holder = file.read(20).strip()
        file.close()
        raise UserError(f"{run_dir}: process {holder or 'unknown'} trains in it; wait or stop it", EXIT_REFUSED)
    with contextlib.suppress(OSError):  # the number is for people only, and a full disk may have no room for it
        file.truncate(0)
        os.pwrite(file.fileno(), f"{os.getpid()}\n".encode(), 0)
    return file


def _take(file: IO[str]) -> bool:
    """Lock an open file, if it is free."""
    for attempt in range(ATTEMPTS):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            if attempt + 1 < ATTEMPTS:
                time.sleep(LOOK_SECONDS)
    return False


def is_locked(run_dir: Path) -> bool:
    """Whether a process trains in a run's folder.

    It looks by a shared lock, given back at once: many may look at the same time, and `lock` waits for them.
    """
    try:
        file = os.open(run_dir / LOCK_FILE, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(file)  # and with it what was locked
    return False
