"""How much memory this process may still take."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

UNKNOWN = 2**63


class _Files(NamedTuple):
    limit: str
    used: str
    cached: str  # the line of memory.stat that counts what the system would give up at once


# By the kind of file system that a control group's folder lies in.
_FILES = {
    "cgroup2": _Files("memory.max", "memory.current", "inactive_file"),
    "cgroup": _Files("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def available_bytes(root: Path = Path("/")) -> int:
    """What the system says is available, or what a control group above this process leaves, whichever is least.

    Args:
      root: the folder that holds `proc` and `sys`.
    """
    available = [UNKNOWN]
    try:
        for line in (root / "proc/meminfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                available.append(int(line.split()[1]) * 1024)
    except (OSError, ValueError, IndexError):
        pass  # another system
    for folder, files in _groups(root):
        try:
            limit, used = (int((folder / name).read_text(encoding="utf-8")) for name in files[:2])
            available.append(limit - used + _cached(folder, files))
        except (OSError, ValueError):
            continue  # a group without a limit ("max"), as the topmost always is
    return max(0, min(available))


def _cached(folder: Path, files: _Files) -> int:
    try:
        text = (folder / "memory.stat").read_text(encoding="utf-8")
        return int(dict(line.split() for line in text.splitlines())[files.cached])
    except (OSError, ValueError, KeyError):
        return 0


def _groups(root: Path) -> Iterator[tuple[Path, _Files]]:
    """The folders of the control groups that count this process's memory, each with those that it lies in."""
    try:
        own = (root / "proc/self/cgroup").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        mounts = (root / "proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return
    paths = {}  # of this process's group, by the kind of file system
    for line in own:
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            paths["cgroup2"] = path
        elif "memory" in controllers.split(","):
            paths["cgroup"] = path
    for line in mounts:
        before, _, after = line.partition(" - ")
        try:
            top, place = (_unescape(word) for word in before.split()[3:5])
            kind, _, options = after.split()[:3]
        except ValueError:
            continue
        if kind not in paths or (kind == "cgroup" and "memory" not in options.split(",")):
            continue
        # A container may see only what lies below its own group, under the path that it has outside.
        folder, mounted = root / place.lstrip("/"), Path(top)
        below = Path(paths[kind])
        if below.is_relative_to(mounted) and ".." not in below.parts:
            folder = folder / below.relative_to(mounted)
        above = root / place.lstrip("/")
        while True:
            yield folder, _FILES[kind]
            if folder == above:
                break
            folder = folder.parent


def _unescape(word: str) -> str:
    """A path of `mountinfo`, which writes spaces and the like as octal numbers."""
    for code in ("040", "011", "012", "134"):
        word = word.replace("\\" + code, chr(int(code, 8)))
    return word
