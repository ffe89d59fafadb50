"""Draws curves with matplotlib, in an environment that has nothing else: `python draw.py FILE.png < curves.json`."""

from __future__ import annotations

import json
import sys
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot


def draw(figure: dict[str, Any], path: str) -> None:
    """Save a figure as a picture.

    Args:
      figure: `title`, `x` and `y` name the axes; `curves` is a list of {label, colour, seeds}, where `seeds` holds
        lists of [x, y] points, one list a seed: each is a thin line, their mean over equal x a thick one. The y axis is
        logarithmic.
      path: of the file to write.
    """
    picture, axes = pyplot.subplots(figsize=(8, 4.5), dpi=110)
    for curve in figure["curves"]:
        sums: dict[float, list[float]] = {}
        for points in curve["seeds"]:
            axes.plot(*zip(*points, strict=True), color=curve["colour"], alpha=0.2, linewidth=0.8)
            for x, y in points:
                sums.setdefault(x, []).append(y)
        shared = sorted(x for x, ys in sums.items() if len(ys) == len(curve["seeds"]))
        means = [sum(sums[x]) / len(sums[x]) for x in shared]
        axes.plot(shared, means, color=curve["colour"], linewidth=2, label=curve["label"])
    axes.set(title=figure["title"], xlabel=figure["x"], ylabel=figure["y"])
    axes.set_yscale("log")
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    picture.tight_layout()
    picture.savefig(path)


if __name__ == "__main__":
    draw(json.load(sys.stdin), sys.argv[1])
