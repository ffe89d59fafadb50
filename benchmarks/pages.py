"""What docs/ shows of measured learning, written from the rows in results/: `python -m benchmarks.pages`.

Draws docs/curves/ and writes the parts of pages that tell of them, between a line `<!-- measured NAME ... -->` and one
`<!-- end of measured -->`. `--rows FOLDER` first takes the finished runs of `python -m benchmarks.learning learners`
into results/learning/learners.json, as many as there are; a later call with more of them replaces those.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import figures, learning
from tfdqn import cli
from tfdqn.errors import UserError
from tfdqn.runs import curves as bands

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "learning"
DOCS = ROOT / "docs"
CURVES = DOCS / "curves"
ROWS = RESULTS / "learners.json"
SCORE = "eval/score_mean"
BLOCK = re.compile(r"(<!-- measured ([\w-]+)[^\n]* -->\n).*?(<!-- end of measured -->)", re.S)
GOOD = 0.95  # of perfect play

Row = dict[str, Any]  # a run: what `python -m benchmarks.learning` writes of it

# Which of the learners' curves stand together on a page; the plain one is there to compare with.
LEARNERS = {
    "dqn": ["dqn", "dqn-quantile", "dqn-iqn", "dqn-munchausen", "dqn-rainbow"],
    "pqn": ["pqn", "pqn-gru", "dqn"],
    "a2c": ["a2c", "dqn"],
    "r2d2": ["r2d2", "dqn"],
}
NAMES = list(learning.LEARNERS)
_NINE = ("#000000", "#4477aa", "#66ccee", "#228833", "#ccbb44", "#ee6677", "#aa3377", "#ee8800", "#888888")
COLOURS = dict(zip(NAMES, _NINE, strict=True))


# What of recurrence.json stands together, and the words for it.
RECURRENCE = {"pqn-gru-1-frame": "a GRU and one frame", "pqn-4-frames": "four frames", "pqn-1-frame": "one frame"}


class Step(NamedTuple):
    """A step of the tutorial with a curve of its own runs, and of those of the step before."""

    title: str
    runs: dict[str, str]  # label: experiment, the step's own last
    perfect: float | None  # score of perfect play, where the step is judged by it
    file: str = "tutorial"  # of RESULTS


STEPS = {
    "naive": Step("catch8: the naive DQN", {"naive": "tutorial-naive"}, 99),
    "replay": Step(
        "catch8: a replay", {"replay of 32": "tutorial-naive", "replay of 5,000, filled first": "tutorial-replay"}, 99
    ),
    "target": Step(
        "catch8: a target network", {"none": "tutorial-replay", "copied every 167 updates": "tutorial-target"}, 99
    ),
    "double": Step("catch8: Double DQN", {"DQN": "tutorial-target", "Double DQN": "tutorial-double"}, 99),
    "huber": Step("catch8: the loss", {"mean squared error": "tutorial-double", "Huber": "tutorial-huber"}, 99),
    "graves": Step("catch8: the optimizer", {"RMSProp": "tutorial-huber", "RMSPropGraves": "tutorial-graves"}, 99),
    "many": Step(
        "catch8: many environments", {"1, the article's settings": "tutorial-graves", "64": "tutorial-many"}, 99
    ),
    "catch16": Step("catch16 with the article's settings", {"the article's": "tutorial-catch16"}, 98),
    "catch16-many": Step(
        "catch16: many environments, convolutions",
        {"1, the article's settings": "tutorial-catch16", "64": "tutorial-catch16-many"},
        98,
    ),
    "catch16-columns": Step(
        "catch16: a network for the game",
        {"convolutions": "tutorial-catch16-many", "columns": "tutorial-catch16-columns"},
        98,
    ),
    "catch16-rules": Step(
        "catch16: rules, one at a time",
        {
            "plain": "catch16-plain",
            "Double": "catch16-double",
            "dueling": "catch16-dueling",
            "prioritized": "catch16-prioritized",
            "4-step returns": "catch16-n-step",
        },
        98,
        "rules-catch16",
    ),
    "cave": Step("The cave with the article's settings", {"the article's": "tutorial-cave"}, None),
    "cave-preset": Step("The cave with its preset", {"preset": "cave"}, None, "presets-cave"),
}
CAVE_RULES = {  # of rules-cave.json
    "plain": "plain DQN",
    "n-step": "5-step returns",
    "categorical-21-atoms": "21 atoms",
    "curriculum": "start curriculum",
    "practice": "practice",
    "prioritized": "prioritized replay",
    "together-21-atoms": "all together",
}


def parser() -> cli.Parser:
    parser = cli.Parser(
        prog="python -m benchmarks.pages", description="Draw docs/curves and write what pages tell of them."
    )
    parser.add_argument(
        "--rows",
        metavar="FOLDER",
        type=cli.path("--rows"),
        default=None,
        help="first take the finished runs of python -m benchmarks.learning learners, from its --folder or --json",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse(argv)
    if arguments.rows is not None:
        rows = taken(Path(arguments.rows))
        learning.write(ROWS, rows)
        cli.say(f"{ROWS.relative_to(ROOT)}: {len(rows)} runs of {len(learning.SUITES['learners']) * 3}")
    for path in pages():
        text = path.read_text(encoding="utf-8")
        if (new := with_blocks(text)) != text:
            path.write_text(new, encoding="utf-8")
            cli.say(f"{path.relative_to(ROOT)}: written")
    CURVES.mkdir(exist_ok=True)
    drawn = {CURVES / f"{name}.svg": figure for name, figure in all_figures().items()}
    figures.draw(drawn)
    for path in set(CURVES.glob("*.svg")) - set(drawn):
        path.unlink()
    cli.say(f"{CURVES.relative_to(ROOT)}: {len(drawn)} figures")
    return 0


def taken(source: Path) -> list[Row]:
    """The finished runs of the learners' suite in a folder of runs or a file of all; what else is there is left.

    Raises:
      UserError: there are none, or a file is no result.
    """
    if not source.exists():
        raise UserError(f"--rows {source}: no such file or folder")
    expected = {
        (experiment.name, seed): " ".join([*experiment.flags.split(), "--seed", str(seed), "--device", "cpu"])
        for experiment in learning.SUITES["learners"]
        for seed in range(experiment.seeds)
    }
    found = {}
    for path in sorted(source.glob("*.json")) if source.is_dir() else [source]:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            for row in content if isinstance(content, list) else [content]:
                key = row["name"], row["seed"]
                if row["flags"] == expected.get(key):
                    found[key] = row
        except (OSError, ValueError, KeyError, TypeError):
            raise UserError(f"--rows {path}: is no result of python -m benchmarks.learning") from None
    if not found:
        raise UserError(f"--rows {source}: no finished run of python -m benchmarks.learning learners")
    return [found[key] for key in expected if key in found]


def read(name: str) -> list[Row]:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def of(rows: Iterable[Row], name: str) -> list[Row]:
    """The runs of an experiment, by seed."""
    return sorted((row for row in rows if row["name"] == name), key=lambda row: row["seed"])


def games(rows: Iterable[Row]) -> list[str]:
    """The games of which there are runs, in the suite's order."""
    return list(dict.fromkeys(row["env"] for row in rows))


def listed(words: Iterable[Any], comma: str = ", ") -> str:
    return comma.join(f"{word:,}" if isinstance(word, int) else str(word) for word in words)


def short(score: float) -> str:
    """A score with as many digits as tell something."""
    return f"{score:,.0f}" if abs(score) >= 1000 else f"{score:.1f}".removesuffix(".0")


# --- figures ---


def curve(label: str, colour: str, rows: Sequence[Row]) -> dict[str, Any] | None:
    """Runs that differ by their seed as `draw.py` wants them: the mean as far as all of them go, and each by itself."""
    lines = [
        bands.Line(
            np.array([point["env_frames"] for point in row["curve"]], np.float64),
            np.array([point[SCORE] for point in row["curve"]], np.float64),
            False,
        )
        for row in rows
        if row["curve"]
    ]
    if not lines:
        return None
    band = bands.band(lines)
    if len(lines) == 1:
        mean = np.stack([lines[0].x, lines[0].y], axis=1).tolist()
    else:
        mean = [] if band is None else np.stack([band.x, band.mean], axis=1).tolist()
    seeds = [np.stack([line.x, line.y], axis=1).tolist() for line in lines] if len(lines) > 1 else []
    return {"label": label, "colour": colour, "mean": mean, "seeds": seeds}


def learners_figure(
    rows: Sequence[Row], game: str, names: Sequence[str], by_seconds: bool = False
) -> dict[str, Any] | None:
    """The curves of some learners in a game; None where there are none."""
    drawn = []
    for name in names:
        runs = of(rows, f"{game}-{name}")
        label = f"{name} (seed{'s' * (len(runs) > 1)} {listed(row['seed'] for row in runs)})"
        if (one := curve(label, COLOURS[name], runs)) is not None:
            drawn.append(against_seconds(one, runs) if by_seconds else one)
    figure = {"title": game, "y": "score, mean of greedy episodes", "curves": drawn, "size": [8, 5.4]}
    if by_seconds:
        figure |= {"x": "seconds of training", "x_scale": "log"}
    return {"x": "env frames", **figure} if drawn else None


def against_seconds(drawn: dict[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    """A curve by env frames as one by seconds of training, of which each run has as many for every frame.

    The mean is that of the seconds and of the scores at each evaluation: the seeds' seconds need not overlap.
    """
    rows = [row for row in rows if row["curve"]]
    seeds = [
        [[point["env_frames"] * row["train_seconds"] / row["env_frames"], point[SCORE]] for point in row["curve"]]
        for row in rows
    ]
    mean = [np.mean(points, axis=0).tolist() for points in zip(*seeds, strict=False)]
    return {**drawn, "mean": mean, "seeds": seeds if len(seeds) > 1 else []}


def step_figure(step: Step) -> dict[str, Any]:
    """A step's curve beside that of the step before."""
    rows = read(step.file)
    colours = ("#bb5566", "#004488") if len(step.runs) == 2 else ("#004488", "#bb5566", "#997700", "#117733", "#cc3311")
    drawn = [
        curve(label, colour, of(rows, name)) for (label, name), colour in zip(step.runs.items(), colours, strict=False)
    ]
    drawn = [each for each in drawn if each is not None]
    return {"title": step.title, "x": "env frames", "y": "score, mean of greedy episodes", "curves": drawn}


def recurrence_figure() -> dict[str, Any]:
    """What a memory makes of one frame, beside what stacked frames are worth."""
    rows, game = read("recurrence"), "cave"
    colours = ("#bb5566", "#004488", "#997700")
    drawn = [
        curve(label, colour, of(rows, f"{game}-{name}"))
        for (name, label), colour in zip(RECURRENCE.items(), colours, strict=True)
    ]
    return {
        "title": f"{game}: PQN with a memory or stacked frames",
        "x": "env frames",
        "y": "score, mean of greedy episodes",
        "curves": [each for each in drawn if each is not None],
    }


def ancestry_figure() -> dict[str, Any]:
    """The packaged agent's ancestors by updates, each begun where those that it starts from had ended."""
    steps = json.loads((ROOT / "tfdqn/pretrained/cave/training.json").read_text(encoding="utf-8"))["steps"]
    colours = iter(("#004488", "#bb5566", "#997700", "#117733", "#ee8800", "#aa3377", "#666666", "#66ccee"))
    ends: dict[str, int] = {}
    shown = []
    for letter, step in zip(("A", "B", "C", "D", "", "E", "F", "G", "H", "I", ""), steps, strict=True):
        averages = "--average" in step["command"]
        parents = re.findall(r"RUN\d+" if averages else r"--init-from (RUN\d+)", step["command"])
        begin = max((ends[parent] for parent in parents), default=0)
        ends[step["name"]] = begin + (0 if averages else step["trained"]["updates"])
        if not averages:
            points = [[begin + point["updates"], point[SCORE]] for point in step["curve"]]
            shown.append({"label": letter, "colour": next(colours), "mean": points, "seeds": []})
    return {
        "title": "The cave: ancestors of the packaged agent",
        "x": "updates, those of the agents that it starts from among them",
        "y": "frames survived, mean of greedy episodes",
        "curves": shown,
    }


def learners_figures() -> dict[str, dict[str, Any]]:
    """The figures of the learners by name: those for which there is anything to draw."""
    rows = read("learners")
    found = {}
    for game in games(rows):
        for word in ("frames", "seconds"):
            found[f"learners-{game}-{word}"] = learners_figure(rows, game, NAMES, by_seconds=word == "seconds")
        for page, names in LEARNERS.items():
            if of(rows, f"{game}-{names[0]}"):
                found[f"{page}-{game}"] = learners_figure(rows, game, names)
    return {name: figure for name, figure in found.items() if figure is not None}


def all_figures() -> dict[str, dict[str, Any]]:
    """Every figure of docs/curves, by its name."""
    found = learners_figures()
    for name, step in STEPS.items():
        found[f"tutorial-{name}"] = step_figure(step)
    found["tutorial-cave-packaged"] = ancestry_figure()
    found["recurrence-cave"] = recurrence_figure()
    scores = {row["name"].removeprefix("cave-"): row["score_mean"] for row in read("rules-cave")}
    found["tutorial-cave-rules"] = {
        "title": "The cave, 6,000 updates: rules, each alone on plain DQN",
        "x": "frames survived",
        "y": "",
        "bars": [[label, scores[name]] for name, label in CAVE_RULES.items()],
    }
    return found


# --- what pages tell ---


def picture(name: str, words: str, folder: str) -> str:
    return f"![{words}]({folder}curves/{name}.svg)\n"


def table(rows: Sequence[Row], game: str, names: Sequence[str]) -> str:
    heads = ["", "seeds", "score of the best agent", "million frames", "seconds of training", "of compiling"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for name in names:
        runs = of(rows, f"{game}-{name}")
        if not runs:
            lines.append(f"| `{name}` | none yet | | | | |")
            continue
        seeds = listed(row["seed"] for row in runs)
        scores = " / ".join(short(row["score_mean"]) for row in runs)
        frames = " / ".join(f"{row['env_frames'] / 1e6:.2f}" for row in runs)
        seconds = " | ".join(
            " / ".join(f"{row[key]:,.0f}" for row in runs) for key in ("train_seconds", "compile_seconds")
        )
        lines.append(f"| `{name}` | {seeds} | {scores} | {frames} | {seconds} |")
    return "\n".join(lines) + "\n"


def learners_block() -> str:
    rows, drawn = read("learners"), learners_figures()
    parts = []
    for game in games(rows):
        parts.append(f"### {game}\n")
        for word, by in (("frames", "env frames"), ("seconds", "seconds")):
            if (name := f"learners-{game}-{word}") in drawn:
                parts.append(picture(name, f"{game}: score of each learner by {by}", ""))
        parts.append(table(rows, game, NAMES))
    return "\n".join(parts)


def learner_block(page: str) -> str:
    rows, drawn, names = read("learners"), learners_figures(), LEARNERS[page]
    parts = []
    for game in games(rows):
        if of(rows, f"{game}-{names[0]}"):
            parts.append(f"### {game}\n")
            if (name := f"{page}-{game}") in drawn:
                parts.append(picture(name, f"{game}: {', '.join(names)}", "../"))
            parts.append(table(rows, game, names))
    return "\n".join(parts)


def recurrence_block() -> str:
    words = f"cave: {', '.join(RECURRENCE.values())}"
    return picture("recurrence-cave", words, "../") + "\n" + table(read("recurrence"), "cave", list(RECURRENCE))


class Words(NamedTuple):
    """How a language tells of a step's runs."""

    comma: str
    seed: str
    seeds: str
    good: str
    never: str  # of some seeds among others
    none: str  # of all seeds
    below: str
    end: str
    seconds: str


WORDS = {
    "en": Words(
        ", ",
        "Seed {}: ",
        "Seeds {}: ",
        "the first evaluation at 95% of perfect play or better came after {} frames. ",
        "On seed {} none did. ",
        "no evaluation came to 95% of perfect play. The last one, after {} frames, had a mean score of {}. ",
        "Of the {} evaluations after that, {} fell below it again. ",
        "the last evaluation, after {} frames, had a mean score of {}. ",
        "Training took {} seconds.",
    ),
    "ja": Words(
        "、",
        "シード {}：",  # noqa: RUF001
        "シード {}：",  # noqa: RUF001
        "完璧なプレイの95%以上に初めて届いた評価は、{} フレームの後です。",
        "シード {} では最後まで届きませんでした。",
        "完璧なプレイの95%に届いた評価はありません。最後の評価（{} フレーム後）の平均スコアは {} です。",  # noqa: RUF001
        "その後の評価 {} 回のうち、{} 回がこれを再び下回りました。",
        "最後の評価（{} フレーム後）の平均スコアは {} です。",  # noqa: RUF001
        "学習時間は {} 秒です。",
    ),
}


def step_block(name: str, language: str) -> str:
    """A step's picture, and what its own runs came to."""
    step, words = STEPS[name], WORDS[language]
    runs = of(read(step.file), list(step.runs.values())[-1])
    parts = [picture(f"tutorial-{name}", step.title, "")]
    if runs:
        seeds = listed((row["seed"] for row in runs), words.comma)
        text = (words.seeds if len(runs) > 1 else words.seed).format(seeds)
        text += _ends(runs, words, words.end) if step.perfect is None else _goodness(runs, words, GOOD * step.perfect)
        seconds = [row["train_seconds"] for row in runs]
        text += words.seconds.format(listed((f"{s:,.{1 if s < 10 else 0}f}" for s in seconds), words.comma))
        parts.append(text + "\n")
    return "\n".join(parts)


def _ends(runs: Sequence[Row], words: Words, sentence: str) -> str:
    last = [row["curve"][-1] for row in runs]
    frames = listed(dict.fromkeys(round(point["env_frames"], -3) for point in last), words.comma)
    return sentence.format(frames, listed((short(point[SCORE]) for point in last), words.comma))


def _goodness(runs: Sequence[Row], words: Words, good: float) -> str:
    """When the runs first played well, and how often not again."""
    firsts, never, later = [], [], []
    for row in runs:
        at = next((number for number, point in enumerate(row["curve"]) if point[SCORE] >= good), None)
        if at is None:
            never.append(row["seed"])
        else:
            firsts.append(round(row["curve"][at]["env_frames"], -3))
            later += [point[SCORE] for point in row["curve"][at + 1 :]]
    if not firsts:
        return _ends(runs, words, words.none)
    text = words.good.format(listed(firsts, words.comma))
    text += words.never.format(listed(never, words.comma)) if never else ""
    return text + (words.below.format(len(later), sum(score < good for score in later)) if later else "")


def block(name: str) -> str:
    """The text of a measured part.

    Raises:
      UserError: there is none of this name.
    """
    if name == "learners":
        return learners_block()
    if name == "recurrence":
        return recurrence_block()
    kind, _, rest = name.partition("-")
    if kind == "learner" and rest in LEARNERS:
        return learner_block(rest)
    if kind in WORDS and rest in STEPS:
        return step_block(rest, kind)
    raise UserError(f"{name}: no such measured part of a page")


def with_blocks(text: str) -> str:
    """A page with its measured parts written anew."""
    return BLOCK.sub(lambda match: f"{match[1]}\n{block(match[2])}\n{match[3]}", text)


def pages() -> list[Path]:
    """The pages that have measured parts."""
    return [path for path in sorted(DOCS.rglob("*.md")) if BLOCK.search(path.read_text(encoding="utf-8"))]


if __name__ == "__main__":
    cli.run(main)
