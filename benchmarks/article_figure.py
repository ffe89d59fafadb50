"""The article's figure: `python -m benchmarks.article_figure --out article.png`.

Loss of RMSProp (red) and of RMSPropGraves (blue) on catch8 with the article's settings, five seeds each. Trains what
`python -m benchmarks.learning article` has not trained yet, and reads the curves from each run's `metrics.jsonl`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import figures, learning
from tfdqn import cli
from tfdqn.errors import UserError

COLOURS = {"rmsprop": "red", "rmsprop_graves": "blue"}
REPORT_FRAMES = 2_000  # between reports in the suite's runs
LABELS = {"rmsprop": "RMSProp", "rmsprop_graves": "RMSPropGraves"}


def parser() -> cli.Parser:
    parser = cli.Parser(prog="python -m benchmarks.article_figure", description="Draw the loss of two optimizers.")
    parser.add_argument("--out", type=cli.path("--out"), default="article.png", help="file to write, ending in .png")
    parser.add_argument(
        "--folder",
        type=cli.path("--folder"),
        default=None,
        help="where runs are kept and found finished: .bench/learning",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse(argv)
    out = Path(arguments.out)
    if out.suffix != ".png" or not out.parent.is_dir():
        raise UserError(f"--out {arguments.out}: must be a file that ends in .png, in a folder that exists")
    folder = learning.folder_of(arguments.folder)
    curves = []
    for experiment in learning.SUITES["article"]:
        optimizer = experiment.name.removeprefix("article-")
        for seed in range(experiment.seeds):
            learning.run(experiment, seed, folder)
        seeds = [losses(folder / learning.run_name(experiment, seed)) for seed in range(experiment.seeds)]
        curve = {"label": LABELS[optimizer], "colour": COLOURS[optimizer], "mean": figures.mean(seeds), "seeds": seeds}
        curves.append(curve)
    figure = {
        "title": "catch8 with the article's settings: loss, five seeds and their mean",
        "x": "env frames",
        "y": f"loss (Huber), mean of {REPORT_FRAMES:,} frames",
        "scale": "log",
        "curves": curves,
    }
    figures.draw({out: figure})
    for curve in curves:
        last = [sum(y for _, y in points[-50:]) / 50 for points in curve["seeds"]]
        cli.say(f"{curve['label']}: loss of the last 100,000 frames {sum(last) / len(last):.5f}")
    cli.say(str(out))
    return 0


def losses(run_dir: Path) -> list[list[Any]]:
    """[env frames, mean loss since the last report] of each report of a run; some reports come a frame or two late."""
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    period = REPORT_FRAMES
    return [[line["env_frames"] // period * period, line["train/loss"]] for line in lines if "train/loss" in line]


if __name__ == "__main__":
    cli.run(main)
