"""A GPU's first figures, in one command of at most six minutes: `scripts/bench --gpu`, or `python -m benchmarks.gpu`.

Does it learn there (catch8 to perfection, the cave beyond 600 frames within a minute), and how quick is the whole
training loop with how many environments? Rows are written after each measurement; what there is no time for says so.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.learning import curve
from benchmarks.run import EXIT_WRONG, check_writable, write
from benchmarks.specs import Spec
from tfdqn import cli, console
from tfdqn import config as configuration
from tfdqn.errors import UserError
from tfdqn.runtime import devices

ROOT = Path(__file__).resolve().parent.parent
LIMIT_SECONDS = 360.0
LOOP_SECONDS = 40.0  # a loop that may take longer than what is left, compiled and timed, is not begun
# Game, what the training command is given, the score that is wanted, and within how many seconds of training.
LEARNING = (
    ("catch8", "--minutes 1", 99.0, 60.0),
    ("cave", "--minutes 1.5 --eval-every-frames 1000000 --final-eval-episodes 64", 600.0, 60.0),
)
_SMALL = "--num-envs 16 --batch-size 16 --updates-per-iteration 1 --replay-capacity 2000 --replay-min-rows 200"
QUICK_LEARNING = (
    ("catch8", f"{_SMALL} --total-env-frames 4000 --eval-every-frames 2000 --final-eval-episodes 4", None, None),
)
# Game and environments, what matters most first.
LOOPS = (
    *(("catch8", 16_384), ("cave", 16_384), ("catch8", 2_048), ("cave", 2_048), ("minatar_breakout", 16_384)),
    *(("catch8", 65_536), ("catch8", 256), ("cave", 256)),
)
QUICK_LOOPS = (("catch8", 16), ("catch8", 64))


def parser() -> cli.Parser:
    parser = cli.Parser(prog="python -m benchmarks.gpu", description="A GPU's first figures, in at most six minutes.")
    parser.add_argument("--device", default="gpu", help="gpu, of several gpu:1, or cpu to try this out")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes, nothing asked of what is learnt: is all in order?"
    )
    parser.add_argument(
        "--json",
        metavar="FILE",
        type=cli.path("--json"),
        default=None,
        help="where the rows go; benchmarks/results/, by date and device, if absent and not --quick",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    start = time.monotonic()
    arguments = parser().parse(argv)
    configuration.check(configuration.Config(device=arguments.device))
    if arguments.device == "auto":
        raise UserError("--device auto: say which: gpu, or cpu to try this out")
    check_writable(arguments.json)
    device = devices.choose_device(arguments.device)
    where = described(device) | {"quick": arguments.quick}
    path = arguments.json or (None if arguments.quick else str(_path(where)))
    check_writable(path)
    clock = Clock(start, LIMIT_SECONDS)
    with clock.watched(path):
        rows = measure(arguments.device, device, where, clock, path, quick=arguments.quick)
    return report(rows, clock, path)


class Clock:
    """What is left of the time, and what ends the process when nothing is.

    Args:
      start: the `time.monotonic()` from which it counts.
      limit: seconds.
    """

    def __init__(self, start: float, limit: float):
        self._start, self._limit = start, limit

    @property
    def spent(self) -> float:
        return time.monotonic() - self._start

    @property
    def left(self) -> float:
        return max(self._limit - self.spent, 0.0)

    def watched(self, path: str | None) -> _Watch:
        """Have the process end when the time is over, whatever it is doing: a compiler cannot be asked to stop."""
        return _Watch(self.left, path)


class _Watch:
    def __init__(self, seconds: float, path: str | None):
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon, self._path = True, path

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: Any) -> None:
        self._timer.cancel()

    def _end(self) -> None:
        kept = f"; what was measured is in {self._path}" if self._path else ""
        console.last_words(f"benchmarks: the {LIMIT_SECONDS:.0f} seconds are over{kept}")
        os._exit(EXIT_WRONG)


def measure(
    wanted: str, device: str, where: dict[str, Any], clock: Clock, path: str | None, *, quick: bool
) -> list[dict[str, Any]]:
    """All rows, of which `path` has those that there are at any time.

    Args:
      wanted: as `--device`.
      device: TensorFlow's name of it.
      where: what every row says of where it comes from.
      clock: when to stop.
      path: the file, or None.
      quick: tiny sizes.
    """
    from benchmarks import results

    rows: list[dict[str, Any]] = []

    def add(row: dict[str, Any]) -> None:
        rows.append(results.placed(row, where))
        write(path, rows)
        print(_line(row), flush=True)

    # In processes of their own, before this one has taken any of the device.
    for experiment in QUICK_LEARNING if quick else LEARNING:
        add(learnt(*experiment, wanted, clock))
    for env, num_envs in QUICK_LOOPS if quick else LOOPS:
        spec = loop_spec(env, num_envs, quick=quick)
        if clock.left < LOOP_SECONDS:
            add(results.skipped_row(spec, "no time was left"))
            continue
        for row in looped(spec, device, quick=quick):
            add(row)
    return rows


def report(rows: Sequence[dict[str, Any]], clock: Clock, path: str | None) -> int:
    """Say what came of it; the exit code."""
    failed = [row["name"] for row in rows if row.get("failed")]
    if path is not None:
        cli.say(f"{path}: {len(rows)} rows in {clock.spent:.0f} s")
    if failed:
        cli.say(f"benchmarks: NOT AS WANTED: {', '.join(failed)}")
    return EXIT_WRONG if failed else 0


# Where.


def described(device: str) -> dict[str, Any]:
    """The machine as other results have it, with the GPU's driver, memory and CUDA."""
    import tensorflow as tf

    from benchmarks import results

    found = results.machine(device)
    if "GPU" not in device:
        return found
    built = tf.sysconfig.get_build_info()
    cuda = {name: str(built.get(f"{name}_version", "")) for name in ("cuda", "cudnn")}
    return found | {"driver": driver_version(), "versions": found["versions"] | cuda}


def driver_version(file: Path = Path("/proc/driver/nvidia/version")) -> str:
    """The NVIDIA driver's version, or "" where nothing tells it."""
    try:
        match = re.search(r"\s(\d+\.\d+(?:\.\d+)?)\s", file.read_text(encoding="utf-8"))
        if match:
            return match[1]
    except OSError:
        pass
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip().splitlines()[0] if done.stdout.strip() else ""


def _path(where: dict[str, Any]) -> Path:
    words = re.sub(r"[^a-z0-9]+", "-", where["device"].lower()).strip("-")
    commit = where["commit"][:7] or "unknown"
    return ROOT / "benchmarks" / "results" / f"{where['date'][:10]}-{words}-{commit}.json"


# Learning.


def learnt(
    env: str, flags: str, score: float | None, seconds: float | None, wanted: str, clock: Clock
) -> dict[str, Any]:
    """Train by the command, as a user would; a row.

    Args:
      env: the game.
      flags: of the command.
      score: the mean score that is to be reached, or None for none.
      seconds: of training, evaluations included and compilation not, within which.
      wanted: as `--device`.
      clock: when to stop.
    """
    cli.say(f"learning {env}: {flags}")
    row: dict[str, Any] = dict.fromkeys(("num_envs", "batch", "spread", "ratio", "game_version"))
    row |= {"name": f"learning/{env}", "case": "learning", "env": env, "variant": "preset", "metric": "score"}
    row |= {"unit": "score", "median": None, "floor": score, "reference": "wanted", "flags": flags, "failed": False}
    with tempfile.TemporaryDirectory(prefix="tfdqn-gpu-") as folder:
        command = [sys.executable, "-m", "tfdqn.train", "--env", env, "--device", wanted, *flags.split()]
        command += ["--json", "--logdir", folder, "--run-name", "run"]
        try:
            # Before the watch ends this process, which would leave that one alone.
            limit = max(clock.left - 5.0, 1.0)
            done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, encoding="utf-8", timeout=limit)
        except subprocess.TimeoutExpired:
            return row | {"failed": score is not None, "skipped": "no time was left"}
        if done.returncode:
            return row | {"failed": True, "skipped": f"training ended with code {done.returncode}"}
        result = json.loads(done.stdout.splitlines()[-1])
        points = curve(Path(folder) / "run")
    del result["run_dir"]
    row |= {"median": result["score_mean"], "result": result, "curve": points}
    if score is not None:
        row |= judged(points, result, score, seconds)
    return row


def judged(points: Sequence[dict[str, float]], result: dict[str, Any], score: float, seconds: float) -> dict[str, Any]:
    """Whether the score was reached in time, and in how many seconds of training; by the curve of evaluations."""
    times = [
        point["wall_seconds"] - result["compile_seconds"]
        for point in points
        if point["eval/score_mean"] >= score - 1e-3  # a mean of float32
    ]
    reached = min(times, default=None)
    return {"seconds_to_wanted": reached, "failed": reached is None or reached > seconds}


# The loop.


def loop_spec(env: str, num_envs: int, *, quick: bool = False) -> Spec:
    """The loop of a game's preset for a GPU with so many environments, and as many transitions learnt a frame."""
    preset = configuration.resolve({"env": env}, on_gpu=True)
    batch = max(preset.batch_size * num_envs // preset.num_envs, 1)
    settings = {"env": env, "num_envs": num_envs, "batch_size": batch}
    settings["updates_per_iteration"] = preset.updates_per_iteration
    if quick:
        settings |= {"replay_capacity": 50 * num_envs, "replay_min_rows": 20 * num_envs}
    else:
        least = preset.window_rows * num_envs
        settings["replay_capacity"] = max(preset.replay_capacity, 2 * least)
        settings["replay_min_rows"] = max(preset.replay_min_rows, least)
    rest = {name: value for name, value in configuration.plain(preset).items() if name not in settings}
    del rest["device"]
    return Spec("loop", env, "gpu", num_envs, batch, rest | settings)


def looped(spec: Spec, device: str, *, quick: bool) -> list[dict[str, Any]]:
    """Compile and time it; a row for each of its rates, or one that says why there are none."""
    from benchmarks import loop_case, results, timing

    cli.say(f"timing {spec.name}")
    effort = timing.QUICK if quick else timing.Effort(repeats=5)
    try:
        bench = loop_case.make(spec.variant, dict(spec.settings), device)
        bench.check()
        count = timing.burn_in(bench, effort)
    except UserError as error:  # it does not fit
        return [results.skipped_row(spec, str(error))]
    except timing.WrongResult as error:
        return [results.skipped_row(spec, str(error), failed=True)]
    samples = [timing.timed(bench, count) for _ in range(effort.repeats)]
    rows = []
    for metric, unit in bench.units.items():
        row = results.empty_row(spec, metric, unit)
        rates = [sample.work[metric] / sample.seconds for sample in samples]
        row["median"], row["spread"] = timing.median_and_spread(rates)
        rows.append(row)
    return rows


def _line(row: dict[str, Any]) -> str:
    from benchmarks.results import number

    said = f"{row['name']:<44} {row['metric'] or 'skipped':<12} {number(row['median']):>14}"
    if row["case"] == "learning" and row["floor"] is not None:
        reached = row.get("seconds_to_wanted")
        when = "not reached" if reached is None else f"after {reached:.1f} s of training"
        said += f"  {row['floor']:g} wanted: {when}{', NOT IN TIME' if row['failed'] else ''}"
    return f"{said}  {row.get('skipped') or ''}".rstrip()


if __name__ == "__main__":
    cli.run(main)
