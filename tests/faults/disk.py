"""A small disk to fill."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path | None]:
    """A file system of its own in `folder`, or None where only root may make one."""
    path = folder / "disk"
    path.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={megabytes}m", "tfdqn-test", str(path)]
    try:
        is_mounted = subprocess.run(["mount", *options], capture_output=True).returncode == 0
    except FileNotFoundError:
        is_mounted = False
    try:
        yield path if is_mounted else None
    finally:
        if is_mounted:
            subprocess.run(["umount", "--lazy", str(path)], check=True)
