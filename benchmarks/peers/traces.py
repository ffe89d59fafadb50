"""Recorded games of the originals, played again by a peer's version of a game. NumPy only.

`tests/data/traces/README.md` explains the recordings.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.timing import WrongResult

FOLDER = Path(__file__).resolve().parents[2] / "tests" / "data" / "traces"
NO_BALL, NO_BLOCK = -1, -1_000_000


def catch_rank(column: int, last: int) -> int:
    """The place of a posted ball's column among the allowed ones."""
    return [c for c in range(8) if abs(c - last) >= 3].index(column) if column != NO_BALL else 0


def replay(name: str, start: Callable, step: Callable, max_frames: int | None = None) -> int:
    """Play every recorded episode and compare each frame, reward and end.

    Args:
      name: "catch8" or "cave".
      start: from an episode's first draws (paddle and column; nothing in the cave) to (state, frame [H, W]).
      step: from (state, action, draw, posted) to (state, frame, reward, is_over): `draw` is u in 1e-7 in the cave and
        None in catch, `posted` the column or row of what was posted in this frame, None where nothing was.
      max_frames: stop after this many, for a slow game.

    Returns:
      How many frames were compared.

    Raises:
      WrongResult: the first frame that differs.
    """
    data = dict(np.load(FOLDER / f"{name}.npz"))
    grey = np.round(data["levels"] * 255).astype(np.uint8)
    is_catch = name == "catch8"
    posted, none = (data["posted_column"], NO_BALL) if is_catch else (data["block_top"], NO_BLOCK)
    undecided = np.zeros_like(data["frame"], bool)
    if not is_catch:
        undecided = np.unpackbits(data["undecided_bits"], axis=-1).astype(bool)
    ends = [*data["start_index"][1:], len(data["action"])]
    frames = 0
    for episode, (first, end) in enumerate(zip(data["start_index"], ends, strict=True)):
        if is_catch:
            state, frame = start(int(data["start_paddle"][episode]), int(data["start_column"][episode]))
            _same(frame, grey[data["start_frame"][episode]], False, f"{name}: episode {episode}, start")
        else:
            state, frame = start()
        for t in range(first, end):
            draw = None if is_catch else int(np.round(data["u"][t] * 1e7))
            what = None if posted[t] == none else int(posted[t])
            state, frame, reward, is_over = step(state, int(data["action"][t]), draw, what)
            where = f"{name}: episode {episode}, frame {t - first + 1}"
            _same(frame, grey[data["frame"][t]], undecided[t], where)
            if float(reward) != data["reward"][t] or bool(is_over) != bool(data["done"][t]):
                raise WrongResult(f"{where}: reward {reward} and end {is_over} differ from the recorded game")
            frames += 1
            if frames == max_frames:
                return frames
    return frames


def _same(frame, wanted, undecided, where: str) -> None:
    differs = np.argwhere((np.asarray(frame) != wanted) & ~np.asarray(undecided))
    if len(differs):
        raise WrongResult(f"{where}: pixels {differs[:3].tolist()} differ from the recorded game")
