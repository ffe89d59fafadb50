"""What a profiler's trace says was copied between a GPU and its host."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from tensorflow.tsl.profiler.protobuf import xplane_pb2

_BETWEEN = re.compile(r"memcpy.*(d(to|2)h|h(to|2)d)", re.IGNORECASE)  # MemcpyD2H, or "Memcpy DtoH" in other versions
_SIZE = re.compile(r"size:(\d+)")


class Transfer(NamedTuple):
    name: str
    size: int  # bytes; -1 where the trace does not say it


def transfers(folder: Path) -> list[Transfer]:
    """Those in the traces that lie anywhere in a folder, in their order.

    Raises:
      FileNotFoundError: no trace is there.
    """
    paths = sorted(folder.rglob("*.xplane.pb"))
    if not paths:
        raise FileNotFoundError(f"{folder}: no trace")
    return [each for path in paths for each in _in(xplane_pb2.XSpace.FromString(path.read_bytes()))]


def operations(folder: Path) -> int:
    """How many events the traces have, of host and devices."""
    spaces = [xplane_pb2.XSpace.FromString(path.read_bytes()) for path in folder.rglob("*.xplane.pb")]
    return sum(len(line.events) for space in spaces for plane in space.planes for line in plane.lines)


def _in(space: xplane_pb2.XSpace) -> list[Transfer]:
    found = []
    for plane in space.planes:
        if not plane.name.startswith("/device:GPU"):
            continue
        for line in plane.lines:
            for event in line.events:
                name = plane.event_metadata[event.metadata_id].name
                if _BETWEEN.search(name):
                    found.append(Transfer(name, _size(plane, event)))
    return found


def _size(plane: xplane_pb2.XPlane, event: xplane_pb2.XEvent) -> int:
    for stat in event.stats:
        text = stat.str_value or plane.stat_metadata[stat.ref_value].name
        match = _SIZE.search(text)
        if match:
            return int(match[1])
    return -1
