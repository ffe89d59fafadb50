"""Curves drawn with characters, for a terminal or a pipe."""

from __future__ import annotations

import itertools
import math
import string
from collections.abc import Sequence
from typing import NamedTuple

# Of a terminal's 256 colours those nearest to Tableau's ten, which images of the same curves have.
COLOURS = (32, 208, 34, 160, 98, 94, 205, 244, 142, 44)
MARKS = string.ascii_letters  # what tells curves apart without colours
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # of a braille character, [row][column]
_BRAILLE = 0x2800
_SUFFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


class Points(NamedTuple):
    """One curve: finite numbers by rising x."""

    x: Sequence[float]
    y: Sequence[float]


def short(value: float) -> str:
    """A number of at most three places or so: 1.2M, 300k, 0.05."""
    for size, suffix in _SUFFIXES:
        if abs(value) >= 0.9995 * size:
            return f"{value / size:.3g}{suffix}"
    return f"{value:.3g}"


def labels(values: Sequence[float]) -> list[str]:
    """Evenly spaced numbers, each with as many places as tell them apart."""
    step = values[1] - values[0] if len(values) > 1 else abs(values[0]) or 1.0
    largest = max(map(abs, values))
    size, suffix = next(((size, suffix) for size, suffix in _SUFFIXES if largest >= size), (1.0, ""))
    places = max(0, -math.floor(math.log10(step / size) + 1e-9))
    return [f"{value / size + 0.0:.{places}f}{suffix}" if value else "0" for value in values]


def ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers from `low` to `high`, one or more and at most `most` of 2 or more, evenly spaced."""
    size = 10.0 ** math.floor(math.log10((high - low) / most))
    for step in (size * factor for factor in (1, 2, 5, 10, 20)):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < most:
            break
    return [number * step for number in range(first, last + 1)]


def paint(text: str, number: int, colours: bool) -> str:
    """A text in the colour of the curve of that number."""
    return f"\x1b[38;5;{COLOURS[number % len(COLOURS)]}m{text}\x1b[0m" if colours else text


def mark(number: int, colours: bool) -> str:
    """What stands for a curve in a legend."""
    return paint("━━", number, True) if colours else MARKS[number % len(MARKS)]


def draw(curves: Sequence[Points], columns: int, rows: int, colours: bool) -> list[str]:
    """Curves in one picture, each in its colour or by its letter.

    Args:
      curves: one or more, of one point or more.
      columns: width of a line at most, 30 or more.
      rows: height of the picture without the x axis.
      colours: whether there are colours; a single curve needs none.

    Returns:
      Lines, the picture's and two of the x axis.
    """
    left, right = _limits([x for curve in curves for x in curve.x])
    low, high = _limits([y for curve in curves for y in curve.y])
    numbers = ticks(low, high, rows // 3)
    y_ticks = {
        round((high - tick) / (high - low) * (rows - 1)): label
        for tick, label in zip(numbers, labels(numbers), strict=True)
    }
    margin = max(map(len, y_ticks.values()), default=0)
    width = columns - margin - 2
    cells, owners = [[0] * width for _ in range(rows)], [[-1] * width for _ in range(rows)]
    for number, curve in enumerate(curves):
        for column, row in _dots(curve, (left, right), (low, high), 2 * width, 4 * rows):
            cells[row // 4][column // 2] |= _DOTS[row % 4][column % 2]
            owners[row // 4][column // 2] = number
    by_letter = len(curves) > 1 and not colours
    lines = []
    for row in range(rows):
        tick = y_ticks.get(row)
        text, last = f"{tick or '':>{margin}} {'┤' if tick else '│'}", -1
        for cell, owner in zip(cells[row], owners[row], strict=True):
            if colours and owner not in (-1, last):
                text, last = text + f"\x1b[38;5;{COLOURS[owner % len(COLOURS)]}m", owner
            text += " " if not cell else MARKS[owner % len(MARKS)] if by_letter else chr(_BRAILLE + cell)
        lines.append(text.rstrip() + ("\x1b[0m" if last >= 0 else ""))
    return lines + _x_axis(left, right, margin, width)


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """Where an axis begins and ends."""
    low, high = min(values), max(values)
    if low == high:
        room = abs(low) / 10 or 1.0
        return low - room, high + room
    return low, high


def _dots(curve: Points, across: tuple[float, float], up: tuple[float, float], width: int, height: int):
    """The (column, row) of each dot of a curve, its points joined by straight lines."""
    places = [
        (
            round((x - across[0]) / (across[1] - across[0]) * (width - 1)),
            round((up[1] - y) / (up[1] - up[0]) * (height - 1)),
        )
        for x, y in zip(curve.x, curve.y, strict=True)
    ]
    yield places[0]
    for (column, row), (next_column, next_row) in itertools.pairwise(places):
        steps = max(abs(next_column - column), abs(next_row - row))
        for step in range(1, steps + 1):
            share = step / steps
            yield round(column + share * (next_column - column)), round(row + share * (next_row - row))


def _x_axis(left: float, right: float, margin: int, width: int) -> list[str]:
    line, words = ["─"] * width, [" "] * (margin + 2 + width)
    free = 0  # from where on a word may stand
    numbers = ticks(left, right, max(2, width // 12))
    for tick, word in zip(numbers, labels(numbers), strict=True):
        column = round((tick - left) / (right - left) * (width - 1))
        line[column] = "┬"
        begin = min(max(margin + 2 + column - len(word) // 2, 0), len(words) - len(word))
        if begin >= free:
            words[begin : begin + len(word)] = word
            free = begin + len(word) + 1
    return [" " * (margin + 1) + "└" + "".join(line), "".join(words).rstrip()]
