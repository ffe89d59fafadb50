"""What is learnt, in score and seconds: `python -m benchmarks.learning presets`.

Each experiment is a training command run as a user would run it, once for each seed; its last line of JSON and its
curve of evaluations go into one file. What is finished is not run again, so a campaign can be cut short and taken up.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfdqn import cli, files
from tfdqn.errors import UserError, nearest

ROOT = Path(__file__).parent.parent
EXIT_BELOW = 1  # the learning gate failed


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A training command, to be run for seeds 0, 1, ...; `floor` is the least mean score that the gate takes."""

    name: str
    flags: str
    seeds: int
    floor: float | None = None


_CATCH16 = "--env catch16 --total-env-frames 800000 --no-stop-at-goal --eval-every-frames 100000"
# A tenth of the preset's updates, and the rate falls as far within them.
_CAVE = (
    "--env cave --network columns --total-env-frames 1600000 --learning-rate-decay-updates 6000 "
    "--eval-every-frames 800000 --final-eval-episodes 64"
)
# What each rule changes. The base has none of them: plain DQN with a target network and 1-step returns.
_PLAIN = "--no-double --no-dueling --no-prioritized --n-step 1 --head scalar"
_RULES = {
    "plain": "",
    "double": "--double",
    "dueling": "--dueling",
    "expected-sarsa": "--target-epsilon 0.1",
    "advantage-learning": "--advantage-alpha 0.9",
    "n-step": "--n-step 4",
    "prioritized": "--prioritized",
    "categorical": "--head categorical",
    "soft-target": "--target soft",
    "gradient-clipping": "--max-gradient-norm 1",
}
# On the cave, too, each is added to the plain one; "together" is the preset, which has all but advantage learning, and
# dueling and Expected Sarsa besides, with Double and once with the 2 atoms that it had before.
_CAVE_PLAIN = f"{_PLAIN} --start-curriculum 0 --restart-share 0 --target-epsilon 0 --advantage-alpha 0"
_CAVE_RULES = {
    "plain": _CAVE_PLAIN,
    "n-step": f"{_CAVE_PLAIN} --n-step 5",
    "prioritized": f"{_CAVE_PLAIN} --prioritized",
    "categorical": f"{_CAVE_PLAIN} --head categorical --atoms 2",
    "categorical-21-atoms": f"{_CAVE_PLAIN} --head categorical --atoms 21",
    "curriculum": f"{_CAVE_PLAIN} --start-curriculum 0.8",
    "practice": f"{_CAVE_PLAIN} --restart-share 0.5",
    "advantage-learning": f"{_CAVE_PLAIN} --advantage-alpha 0.9",
    "together": "--double --atoms 2",
    "together-21-atoms": "--double --atoms 21",
}
# Every learner on the same games, each with the game's preset of it, or what it begins with; none stops at a goal.
LEARNERS = {
    "dqn": "",
    "dqn-quantile": "--head quantile",
    "dqn-iqn": "--head iqn",
    "dqn-munchausen": "--munchausen-alpha 0.9",
    "dqn-rainbow": "--preset rainbow",
    "pqn": "--learner pqn",
    "pqn-gru": "--learner pqn --cell gru",
    "a2c": "--learner a2c",
    "r2d2": "--learner r2d2",
}
_LEARNERS_GAMES = {
    "catch16": "--env catch16 --network columns --total-env-frames 1000000 --eval-every-frames 100000 --minutes 10",
    "cave": "--env cave --network columns --minutes 10 --final-eval-episodes 64",
    "minatar_breakout": "--env minatar_breakout --total-env-frames 1000000 --eval-max-frames 1000 --minutes 10",
    "minatar_asterix": "--env minatar_asterix --total-env-frames 1000000 --eval-max-frames 1000 --minutes 10",
}
# A memory against what stacked frames tell of the past, after equally many updates (64 a round of 4,096 decisions).
_MEMORY = (
    "--env cave --network columns --learner pqn --total-env-frames 2000000 --eval-every-frames 500000 "
    "--final-eval-episodes 64 --no-stop-at-goal"
)
_SIGHT = {"gru-1-frame": "--cell gru --frame-stack 1", "4-frames": "--frame-stack 4", "1-frame": "--frame-stack 1"}
# The steps of docs/tutorial.md, from the article's naive DQN to its last one and on; each has the flags of that page.
_CATCH8_NAIVE = (
    "--env catch8 --preset article --total-env-frames 40000 --eval-every-frames 2000 --optimizer rmsprop --loss mse "
    "--target none --no-double --replay-capacity 32 --replay-min-rows 32"
)
_CATCH8_REPLAY = _CATCH8_NAIVE.replace("--replay-capacity 32 --replay-min-rows 32", "").strip()
_CATCH8_TARGET = _CATCH8_REPLAY.replace("--target none", "--target hard")
_CATCH8_DOUBLE = _CATCH8_TARGET.replace("--no-double", "--double")
_CATCH8_HUBER = _CATCH8_DOUBLE.replace("--loss mse", "--loss huber")
_CATCH8_GRAVES = _CATCH8_HUBER.replace("--optimizer rmsprop", "--optimizer rmsprop_graves")
_CATCH16_CONV = (
    "--env catch16 --total-env-frames 400000 --eval-every-frames 50000 --no-stop-at-goal --n-step 1 --network conv"
)
_CATCH16_COLUMNS = (
    "--env catch16 --total-env-frames 1200000 --eval-every-frames 100000 --no-stop-at-goal --n-step 1 --network columns"
)
_TUTORIAL = {
    "naive": (_CATCH8_NAIVE, 3),
    "replay": (_CATCH8_REPLAY, 3),
    "target": (_CATCH8_TARGET, 3),
    "double": (_CATCH8_DOUBLE, 3),
    "huber": (_CATCH8_HUBER, 3),
    "graves": (_CATCH8_GRAVES, 3),
    "many": ("--env catch8 --total-env-frames 200000 --eval-every-frames 10000 --no-stop-at-goal", 3),
    "catch16": ("--env catch16 --preset article --total-env-frames 80000 --eval-every-frames 10000", 1),
    "catch16-many": (_CATCH16_CONV, 2),
    "catch16-columns": (_CATCH16_COLUMNS, 2),
    "cave": ("--env cave --preset article --total-env-frames 50000 --eval-every-frames 10000", 1),
}
# The article's own settings (2,000 episodes are some 300,000 frames), for its figure of two optimizers.
_ARTICLE = "--env catch8 --preset article --no-stop-at-goal --total-env-frames 400000 --log-every-frames 2000"

SUITES: dict[str, list[Experiment]] = {
    "presets": [
        Experiment("catch8", "--env catch8 --final-eval-episodes 1000", 5),
        Experiment("catch8_single", "--env catch8_single --final-eval-episodes 1000", 5),
        Experiment("catch16", "--env catch16 --final-eval-episodes 1000", 5),
        Experiment("cave", "--env cave", 3),
    ],
    "rules-catch16": [
        Experiment(f"catch16-{name}", f"{_CATCH16} {_PLAIN} {flags}", 1) for name, flags in _RULES.items()
    ],
    "rules-cave": [Experiment(f"cave-{name}", f"{_CAVE} {flags}", 1) for name, flags in _CAVE_RULES.items()],
    "learners": [
        Experiment(f"{game}-{name}", f"{of_game} --no-stop-at-goal {flags}".strip(), 3)
        for game, of_game in _LEARNERS_GAMES.items()
        for name, flags in LEARNERS.items()
    ],
    "recurrence": [Experiment(f"cave-pqn-{name}", f"{_MEMORY} {flags}", 3) for name, flags in _SIGHT.items()],
    "tutorial": [Experiment(f"tutorial-{name}", flags, seeds) for name, (flags, seeds) in _TUTORIAL.items()],
    "article": [
        Experiment(f"article-{optimizer}", f"{_ARTICLE} --optimizer {optimizer}", 5)
        for optimizer in ("rmsprop", "rmsprop_graves")
    ],
    "gate": [
        Experiment("gate-catch8", "--env catch8 --total-env-frames 1000000", 3, floor=98.5),
        Experiment("gate-cave", "--env cave --total-env-frames 1400000 --eval-every-frames 1400000", 3, floor=600.0),
    ],
}


def parser() -> cli.Parser:
    parser = cli.Parser(prog="python -m benchmarks.learning", description="Train, and write down what was learnt.")
    parser.add_argument("suite", help=f"one of {', '.join(SUITES)}")
    parser.add_argument(
        "--json", metavar="FILE", type=cli.path("--json"), default=None, help="write all results of the suite to FILE"
    )
    parser.add_argument(
        "--folder",
        type=cli.path("--folder"),
        default=None,
        help="where runs are kept and found finished: .bench/learning",
    )
    parser.add_argument("--only", metavar="NAME", default=None, help="one experiment of the suite")
    parser.add_argument("--flags", default="", help="more training flags, such as a fault: --flags='--target none'")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse(argv)
    if arguments.suite not in SUITES:
        raise UserError(f"{arguments.suite}: no such suite; {nearest(arguments.suite, SUITES)}")
    experiments = SUITES[arguments.suite]
    if arguments.only is not None:
        names = [experiment.name for experiment in experiments]
        if arguments.only not in names:
            raise UserError(f"--only {arguments.only}: not in {arguments.suite}; {nearest(arguments.only, names)}")
        experiments = [experiments[names.index(arguments.only)]]
    folder = folder_of(arguments.folder)
    if arguments.suite == "gate":  # asks whether today's code learns: nothing of an earlier call may answer
        folder.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="gate-", dir=folder))
    results = []
    for experiment in experiments:
        for seed in range(experiment.seeds):
            results.append(run(experiment, seed, folder, arguments.flags.split()))
            if arguments.json is not None:
                write(Path(arguments.json), results)
        print(row(experiment, [result for result in results if result["name"] == experiment.name]), flush=True)
    failures = below_floor(experiments, results)
    for failure in failures:
        print(failure)
    return EXIT_BELOW if failures else 0


def folder_of(given: str | None) -> Path:
    """Where runs and what came of them are kept."""
    return ROOT / ".bench" / "learning" if given is None else Path(given).absolute()


def run_name(experiment: Experiment, seed: int, more: Sequence[str] = ()) -> str:
    """The name of a run's folder, and of the file with its result."""
    return f"{experiment.name}-s{seed}" + ("-" + "".join(more).strip("-").replace("/", "_") if more else "")


def run(experiment: Experiment, seed: int, folder: Path, more: Sequence[str] = ()) -> dict[str, Any]:
    """Train once, or read what an earlier call has trained with the same flags."""
    flags = [*experiment.flags.split(), *more, "--seed", str(seed), "--device", "cpu"]
    name = run_name(experiment, seed, more)
    run_dir, kept = folder / name, folder / f"{name}.json"
    if kept.is_file():
        result = json.loads(kept.read_text(encoding="utf-8"))
        if result["flags"] != " ".join(flags):
            raise UserError(f"{kept}: was made with other flags; name another --folder")
        if (run_dir / "metrics.jsonl").is_file():  # which the article's figure reads
            return result
    started = folder / f"{name}.flags"
    checkpoints = list((run_dir / "checkpoints").glob("[0-9]*"))
    if checkpoints and started.is_file() and started.read_text(encoding="utf-8") == " ".join(flags):
        arguments = ["--resume", str(run_dir)]
    else:
        shutil.rmtree(run_dir, ignore_errors=True)  # it never came to a checkpoint, or was another run
        folder.mkdir(parents=True, exist_ok=True)
        started.write_text(" ".join(flags), encoding="utf-8")
        arguments = [*flags, "--logdir", str(folder), "--run-name", name]
    cli.say(f"{name}: {' '.join(arguments)}")
    command = [sys.executable, "-m", "tfdqn.train", *arguments, "--json"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, encoding="utf-8")
    if done.returncode:
        raise UserError(f"{name}: training ended with code {done.returncode}", done.returncode)
    result = {
        "name": experiment.name,
        "seed": seed,
        "flags": " ".join(flags),
        **json.loads(done.stdout.splitlines()[-1]),
        "curve": curve(run_dir),
    }
    del result["run_dir"]
    write(kept, result)
    return result


def curve(run_dir: Path) -> list[dict[str, float]]:
    """Every evaluation of a run."""
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    keys = ("env_frames", "updates", "wall_seconds", "eval/score_mean")
    return [{key: line[key] for key in keys} for line in lines if "eval/score_mean" in line]


def row(experiment: Experiment, results: Sequence[dict[str, Any]]) -> str:
    """One line of the table: scores of all seeds, seconds of training, and the flags."""
    scores = ", ".join(f"{result['score_mean']:.1f}" for result in results)
    seconds = ", ".join(f"{result['train_seconds']:.0f}" for result in results)
    return f"{experiment.name:<24} score {scores:<32} training s {seconds:<24} {experiment.flags}"


def below_floor(experiments: Sequence[Experiment], results: Sequence[dict[str, Any]]) -> list[str]:
    """A line for each experiment whose mean score over seeds lies below its floor."""
    lines = []
    for experiment in experiments:
        scores = [result["score_mean"] for result in results if result["name"] == experiment.name]
        mean = sum(scores) / len(scores)
        if experiment.floor is not None and not mean >= experiment.floor:
            lines.append(
                f"{experiment.name}: mean score {mean:.1f} over {len(scores)} seeds is below {experiment.floor}"
            )
    return lines


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_atomically(
        path, lambda temporary: temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    )


if __name__ == "__main__":
    cli.run(main)
