"""Weak scaling: two processes with a core each, and twice the work, beside one process on one core.

`python -m benchmarks.scaling [--pairs 3] [--json FILE]` trains on catch8 for some seconds, one process and two in turn,
and prints the median share of twice the frames that two make, and what an exchange costs: by how much longer they take
where they exchange after every `OFTEN` rounds than where they do after every `SELDOM`.
"""

from __future__ import annotations

import argparse
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

ROOT = Path(__file__).parents[1]
OFTEN, SELDOM = 20, 500
NUM_ENVS, BATCH_SIZE, FRAMES = 64, 32, 600_000  # of each process
SETTINGS = (
    "--env catch8 --device cpu --no-stop-at-goal --eval-every-frames 100000000 --final-eval-episodes 1 --threads 1"
)


def start(core: int, count: int, rank: int, port: int, folder: str, every: int) -> subprocess.Popen:
    """One of so many processes of a run, on a core of its own."""
    addresses = [f"127.0.0.1:{port + number}" for number in range(count)]
    task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": rank}}
    sizes = {"num-envs": NUM_ENVS, "batch-size": BATCH_SIZE, "total-env-frames": FRAMES, "replay-capacity": 100_000}
    words = [word for name, size in sizes.items() for word in (f"--{name}", str(size * count))]
    command = [sys.executable, "-m", "tfdqn.train", *SETTINGS.split(), *words, "--json", "--logdir", folder]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    if count > 1:
        environment["TF_CONFIG"] = json.dumps(task)
        command += ["--trusted-network", "--exchange-every-rounds", str(every), "--run-name", f"two-{every}"]
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )


def measure(cores: Sequence[int], every: int = SELDOM) -> dict[str, Any]:
    """A run's totals, by as many processes as there are cores."""
    port = random.SystemRandom().randrange(20_000, 32_000)
    with tempfile.TemporaryDirectory() as folder:
        started = [start(core, len(cores), rank, port, folder, every) for rank, core in enumerate(cores)]
        said = [process.communicate(timeout=600)[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit(f"a process ended with {[process.returncode for process in started]}")
    return json.loads(said[0].splitlines()[-1])


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=3, help="times that each is measured")
    parser.add_argument("--json", metavar="FILE", default=None, help="write the result to FILE")
    arguments = parser.parse_args(argv)
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        raise SystemExit("needs two cores")
    shares, costs, rows = [], [], []
    for _ in range(arguments.pairs):
        one, two, often = measure(cores[:1]), measure(cores), measure(cores, OFTEN)
        rows.append({"one": one, "two": two, "often": often})
        shares.append(two["env_frames_per_second"] / (2 * one["env_frames_per_second"]))
        rounds = two["env_frames"] / (2 * NUM_ENVS)
        more = often["train_seconds"] - two["train_seconds"] * often["env_frames"] / two["env_frames"]
        costs.append(more / (rounds / OFTEN - rounds / SELDOM))
    result = {
        "share_of_twice_the_frames": statistics.median(shares),
        "shares": shares,
        "exchange_milliseconds": 1e3 * statistics.median(costs),
        "one_frames_per_second": statistics.median(row["one"]["env_frames_per_second"] for row in rows),
        "two_frames_per_second": statistics.median(row["two"]["env_frames_per_second"] for row in rows),
    }
    print(
        f"two processes make {result['share_of_twice_the_frames']:.2f} of twice the frames of one "
        f"({result['two_frames_per_second']:,.0f} and {result['one_frames_per_second']:,.0f} frames/s; "
        f"{', '.join(f'{share:.2f}' for share in shares)}); an exchange costs "
        f"{result['exchange_milliseconds']:.2f} ms"
    )
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(result | {"rows": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
