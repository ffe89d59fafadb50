"""What a game's screen holds: a title, the picture, words beside or below it, and the keys."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfdqn.shown import blocks
from tfdqn.shown.screen import Screen

SIDE = 34  # columns of the words beside a picture
GAP = 2
LEAST_PICTURE = 16  # columns that a picture has at least, if words are to stand beside it
BAR = 10


def show(screen: Screen, title: str, picture: np.ndarray | None, words: Sequence[str], keys: str) -> None:
    """Draw all of it, as large as the terminal allows; what has no room is left out, the picture last.

    Args:
      picture: [H, W, 3] uint8; None for a game without.
      words: plain lines.
      keys: what can be pressed.
    """
    columns, rows = screen.size
    beside = columns >= LEAST_PICTURE + GAP + SIDE
    words = [word[: SIDE if beside else columns] for word in words]
    room = max(rows - 3 - (0 if beside else min(len(words), rows // 3)), 1)
    body: list[str] = []
    if picture is not None:
        fitted = blocks.fitted(picture, columns - (GAP + SIDE if beside else 0), room)
        body = blocks.lines_of(fitted, screen.colours, screen.colours_are_true)
        if beside:
            width = fitted.shape[1]
            blank = " " * width
            count = max(len(body), len(words))
            body = [
                (body[i] if i < len(body) else blank) + " " * GAP + (words[i] if i < len(words) else "")
                for i in range(min(count, room))
            ]
        else:
            body += words
    else:
        body = list(words)
    screen.draw([title[:columns], *body[: rows - 2], keys[:columns]])


def value_lines(names: Sequence[str], values: np.ndarray, chosen: int, low: float, high: float) -> list[str]:
    """Action values [A] as bars between two values, the chosen one marked."""
    room = min(max(map(len, names)), SIDE - BAR - 12)
    lines = []
    for number, (name, value) in enumerate(zip(names, values, strict=True)):
        share = 0.5 if high <= low else float(np.clip((value - low) / (high - low), 0, 1))
        bar = "█" * round(share * BAR)
        lines.append(f"{'▸' if number == chosen else ' '} {name[:room]:<{room}} {bar:<{BAR}} {value:>8.3g}")
    return lines
