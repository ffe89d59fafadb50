"""Draw the curves of runs: `python -m tfdqn.plot RUN...`, as an image or in the terminal."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tfdqn import chart, cli, console, files
from tfdqn.errors import EXIT_IO, UserError
from tfdqn.runs import curves
from tfdqn.runs.curves import Curve, Reports

KINDS = (".png", ".svg")
ROWS = 18  # of a chart in the terminal
LEAST_COLUMNS = 39


def parser() -> cli.Parser:
    parser = cli.Parser(
        prog="python -m tfdqn.plot",
        description="Draw the curves of runs. Those that differ by their seed alone are one: their mean, and in an "
        "image the band in which it lies with 95 % confidence.",
    )
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", type=cli.path(""), help="run folders, or folders that hold some"
    )
    parser.add_argument("--metric", default=curves.SCORE, help="what is drawn, a name of metrics.jsonl")
    parser.add_argument("--x", choices=list(curves.AXES), default="frames", help="by what")
    parser.add_argument(
        "--out",
        type=cli.path("--out"),
        default=None,
        help="image to write, ending in .png or .svg; without it the curves are drawn in the terminal",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse(argv)
    out = None if arguments.out is None else _checked(arguments.out)
    runs = _read(curves.find(arguments.runs))
    found = curves.curves(runs, arguments.metric, arguments.x)
    drawn = {name for curve in found for name in curve.runs}
    for run in runs:
        if run.name not in drawn:
            cli.say(f"tfdqn: warning: {run.name}: has not reported {arguments.metric}; left out")
    title = ": ".join(text for text in (arguments.metric, curves.common(runs)) if text)
    if out is None:
        columns = max(shutil.get_terminal_size().columns - 1, LEAST_COLUMNS)
        lines = in_characters(found, title, arguments.x, columns, console.has_colours(sys.stdout))
        cli.print_result("\n".join(lines) + "\n")
        return 0
    try:
        files.write_atomically(out, lambda path: _save(found, title, arguments.metric, arguments.x, path))
    except OSError as error:
        raise UserError(f"--out {arguments.out}: {error.strerror or error}", EXIT_IO) from None
    cli.say(f"{out}: {_count(len(found), 'curve')} of {_count(len(drawn), 'run')}")
    return 0


def _read(folders: Mapping[Path, bool]) -> list[Reports]:
    """What the runs have reported. One that nobody has named may be broken: it is said, and left out."""
    runs, problem = [], None
    for path, is_named in folders.items():
        try:
            runs.append(curves.read(path))
        except UserError as error:
            if is_named:
                raise
            problem = error
            cli.say(f"tfdqn: warning: {error}; left out")
    if not runs:
        raise problem
    return runs


def _checked(text: str) -> Path:
    """Where the image goes, if one can be made there."""
    out = Path(text)
    if out.suffix.lower() not in KINDS:
        raise UserError(f"--out {text}: must end in {' or '.join(KINDS)}")
    if not out.parent.is_dir():
        raise UserError(f"--out {text}: there is no folder {out.parent}")
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise UserError(
            f'--out {text}: Matplotlib is not installed; run python -m pip install "tfdqn[plot]", or leave --out out '
            "to draw in the terminal"
        ) from None
    return out


def in_characters(found: Sequence[Curve], title: str, axis: str, columns: int, colours: bool) -> list[str]:
    """A chart and its legend as lines of at most `columns` characters, colours not counted."""
    points = [chart.Points(curve.x, curve.y) for curve in found]
    lines = [title[:columns], *chart.draw(points, columns, ROWS, colours and len(found) > 1)]
    lines[-1] = f"{lines[-1]}"[: columns - len(axis) - 2].ljust(columns - len(axis) - 1) + " " + axis
    lines.append("")
    rows = [("", "runs", f"last {axis}", "value", "largest")]
    for curve in found:
        last = chart.short(curve.y[-1])
        if curve.band is not None:
            last += f" ± {chart.short(curve.band.high[-1] - curve.band.mean[-1])}"
        rows.append((curve.label, f"{len(curve.runs)}", chart.short(curve.x[-1]), last, chart.short(max(curve.y))))
    while True:
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        label = columns - 4 - sum(width + 2 for width in widths[1:])
        if label >= min(widths[0], 10) or len(rows[0]) == 2:
            break
        # In a narrow terminal the value counts most.
        rows = [row[:4] if len(row) == 5 else (row[0], *row[2:]) for row in rows]
    for number, (name, *numbers) in enumerate(rows):
        mark = chart.mark(number - 1, colours) if number and len(found) > 1 else ""
        space = " " * (4 - (len(mark) if not colours else 2 * bool(mark)))
        name = name if len(name) <= label else name[: label - 1] + "…"
        text = "".join(f"  {text:>{width}}" for text, width in zip(numbers, widths[1:], strict=True))
        lines.append(f"{mark}{space}{name:<{min(label, widths[0])}}{text}")
    return lines


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _save(found: Sequence[Curve], title: str, metric: str, axis: str, path: Path) -> None:
    from matplotlib.figure import Figure  # not pyplot, which looks for a screen

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for number, curve in enumerate(found):
        style = {"color": f"C{number % 10}", "linestyle": ("-", "--", ":", "-.")[number // 10 % 4]}
        marker = "o" if len(curve.x) == 1 else ""
        label = f"{curve.label} ({_count(len(curve.runs), 'seed')})" if len(curve.runs) > 1 else curve.label
        axes.plot(curve.x, curve.y, label=label, linewidth=1.8, marker=marker, zorder=3, **style)
        if len(curve.lines) > 1:
            for line in curve.lines:
                axes.plot(line.x, line.y, linewidth=0.7, alpha=0.35, **style)
    low, high = axes.get_ylim()
    for number, curve in enumerate(found):
        if curve.band is not None:
            axes.fill_between(
                curve.band.x, curve.band.low, curve.band.high, color=f"C{number % 10}", alpha=0.15, linewidth=0
            )
    # Of two or three seeds the band may be many times as wide as all that was measured.
    room, (least, most) = (high - low) / 4, axes.get_ylim()
    axes.set_ylim(max(least, low - room), min(most, high + room))
    axes.set_title(title, loc="left")
    axes.set_xlabel(axis)
    axes.set_ylabel(metric)
    axes.xaxis.set_major_formatter(lambda value, _: chart.short(value))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if len(found) > 1 or len(found[0].runs) > 1:
        axes.legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    cli.run(main)
