"""Draws curves and bars with matplotlib, in an environment that has nothing else: `python draw.py < figures.json`."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot, ticker
from PIL import Image

# Words stay words and nothing is drawn of chance or the clock, so that equal figures are equal files.
matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "tfdqn", "font.family": "DejaVu Sans"})
NOTHING_OF_ITSELF = dict.fromkeys(("Creator", "Date", "Format", "Type"))


def draw(figure: dict[str, Any], path: str) -> None:
    """Save a figure as a picture.

    Args:
      figure: `title`, `x` and `y` name the axes. `scale` "log" makes the y axis logarithmic, `x_scale` the x axis.
        `curves` is a list of {label, colour, mean, seeds}: `seeds` holds lists of [x, y] points, one list a seed, each
        a thin line, and `mean` such a list, a thick one. `bars` in their place is a list of [label, length].
      path: of the file to write; its end says whether as pixels or as lines.
    """
    picture, axes = pyplot.subplots(figsize=figure.get("size", (8, 4.5)), dpi=110)
    for curve in figure.get("curves", []):
        for points in curve["seeds"]:
            axes.plot(*zip(*points, strict=True), color=curve["colour"], alpha=0.25, linewidth=0.8)
        if curve["mean"]:
            marker = "o" if len(curve["mean"]) == 1 else ""
            style = {"color": curve["colour"], "linewidth": 2, "marker": marker}
            axes.plot(*zip(*curve["mean"], strict=True), label=curve["label"], **style)
    if bars := figure.get("bars"):
        labels, lengths = zip(*reversed(bars), strict=True)
        axes.bar_label(axes.barh(labels, lengths, color="#4477aa"), fmt="{:,.0f}", padding=3)
        axes.margins(x=0.12)
    axes.set(title=figure["title"], xlabel=figure["x"], ylabel=figure["y"])
    if curves := figure.get("curves"):
        axes.set_yscale(figure.get("scale", "linear"))
        axes.set_xscale(figure.get("x_scale", "linear"))
        plain = ticker.FuncFormatter(lambda number, _: f"{number / 1e6:g} M" if number >= 1e6 else f"{number:,.12g}")
        axes.xaxis.set_major_formatter(plain)
        if "scale" not in figure:
            axes.yaxis.set_major_formatter(plain)
        # Below the axis: many curves leave no room among themselves, and narrow screens none beside.
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.13), "ncols": 3} if len(curves) > 4 else {}
        axes.legend(frameon=False, **below)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    picture.tight_layout()
    if not path.endswith(".svg"):
        picture.canvas.draw()
        drawn = Image.frombytes("RGBA", picture.canvas.get_width_height(), bytes(picture.canvas.buffer_rgba()))
        drawn.convert("RGB").quantize(64).save(path, optimize=True)  # a palette: a third of the size
        return
    picture.savefig(path, metadata=NOTHING_OF_ITSELF)
    file = Path(path)
    # A tenth of a pixel is not seen, and more digits make files a third larger.
    file.write_text(re.sub(r"(\d\.\d)\d+", r"\1", file.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    for name, one in json.load(sys.stdin).items():
        draw(one, name)
        pyplot.close("all")
