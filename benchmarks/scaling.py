"""Weak scaling: two processes with a core each, and twice the work, beside one process on one core.

`python -m benchmarks.scaling [--case catch8] [--pairs 3] [--json FILE]` trains for some seconds, one process and two in
turn, with the sizes of the game's preset for each process. It prints the median share of twice the frames that two
make, and what an exchange costs: by how much longer they take where they exchange ten times as often.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfdqn import cli
from tfdqn import config as configuration
from tfdqn.errors import UserError
from tfdqn.settings import flag_of

ROOT = Path(__file__).parents[1]
# Frames of each process, and rounds between two exchanges: some hundreds of milliseconds.
CASES = {"catch8": (12_000_000, 4000), "cave": (150_000, 100)}
SETTINGS = "--device cpu --no-stop-at-goal --eval-every-frames 100000000 --final-eval-episodes 1 --threads 1"
SIZES = ("num_envs", "batch_size", "replay_capacity", "replay_min_rows")


def start(case: str, core: int, count: int, rank: int, port: int, folder: str, every: int) -> subprocess.Popen:
    """One of so many processes of a run, on a core of its own."""
    addresses = [f"127.0.0.1:{port + number}" for number in range(count)]
    task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": rank}}
    preset = configuration.resolve({"env": case})
    sizes = {name: getattr(preset, name) for name in SIZES} | {"total_env_frames": CASES[case][0]}
    words = [word for name, size in sizes.items() for word in (flag_of(name), str(size * count))]
    command = [sys.executable, "-m", "tfdqn.train", "--env", case, *SETTINGS.split(), *words, "--json"]
    command += ["--logdir", folder, "--run-name", f"{count}-{every}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    if count > 1:
        environment["TF_CONFIG"] = json.dumps(task)
        command += ["--trusted-network", "--exchange-every-rounds", str(every)]
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )


def measure(case: str, cores: Sequence[int], every: int = 0) -> dict[str, Any]:
    """A run's totals, by as many processes as there are cores."""
    port = random.SystemRandom().randrange(20_000, 32_000)
    with tempfile.TemporaryDirectory() as folder:
        started = [start(case, core, len(cores), rank, port, folder, every) for rank, core in enumerate(cores)]
        said = [process.communicate(timeout=600)[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit(f"a process ended with {[process.returncode for process in started]}")
    return json.loads(said[0].splitlines()[-1])


def measured(case: str, pairs: int, cores: Sequence[int]) -> dict[str, Any]:
    """One case's medians, and what was measured."""
    every, shares, costs, rows = CASES[case][1], [], [], []
    num_envs = configuration.resolve({"env": case}).num_envs
    for _ in range(pairs):
        one, two, often = measure(case, cores[:1]), measure(case, cores, every), measure(case, cores, every // 10)
        rows.append({"one": one, "two": two, "often": often})
        shares.append(two["env_frames_per_second"] / (2 * one["env_frames_per_second"]))
        rounds = two["env_frames"] / (len(cores) * num_envs)
        more = often["train_seconds"] - two["train_seconds"] * often["env_frames"] / two["env_frames"]
        costs.append(1e3 * more / (rounds / (every // 10) - rounds / every))
    speeds = {name: statistics.median(row[name]["env_frames_per_second"] for row in rows) for name in ("one", "two")}
    return {
        "case": case,
        "exchange_every_rounds": every,
        "share_of_twice_the_frames": statistics.median(shares),
        "shares": shares,
        "exchange_milliseconds": statistics.median(costs),
        "frames_per_second": speeds,
        "rows": rows,
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.Parser(prog="python -m benchmarks.scaling", description="Measure how two processes scale.")
    parser.add_argument("--case", choices=list(CASES), default=None, help="one of the cases; all if not said")
    parser.add_argument("--pairs", type=int, default=3, help="times that each is measured")
    parser.add_argument("--json", metavar="FILE", default=None, help="write what was measured to FILE")
    arguments = parser.parse(argv)
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        raise UserError("benchmarks.scaling needs two cores")
    results = []
    for case in [arguments.case] if arguments.case else CASES:
        result = measured(case, arguments.pairs, cores)
        results.append(result)
        speeds = result["frames_per_second"]
        cli.print_result(
            f"{case}: two processes make {result['share_of_twice_the_frames']:.2f} of twice the frames of one "
            f"({speeds['two']:,.0f} and {speeds['one']:,.0f} frames/s; "
            f"{', '.join(f'{share:.2f}' for share in result['shares'])}) with an exchange every "
            f"{result['exchange_every_rounds']} rounds; one costs {result['exchange_milliseconds']:.1f} ms\n"
        )
        if arguments.json:
            Path(arguments.json).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    cli.run(main)
