"""One side of a comparison: a process that keeps its programs compiled and times them when asked.

`python -m benchmarks.worker TREE DEVICE` measures the tfdqn of TREE with the benchmarks of the tree it was started
from, so both sides do the same work, whatever benchmarks the base had. One JSON object a line comes in, one goes out.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


class WorkerFailed(Exception):
    """A worker could not do what it was asked; the message is its own."""


class Worker:
    """The comparison's end of the line."""

    def __init__(self, tree: Path, device: str):
        # Isolated from the folder it is started in; the benchmarks of this tree, then whatever is installed.
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "benchmarks.worker", str(tree), device],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )

    def ask(self, **request: Any) -> Any:
        """Send one request and wait for its answer.

        Raises:
          WorkerFailed: it went wrong over there.
        """
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise WorkerFailed(f"the process ended with code {self._process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerFailed(answer["error"])
        return answer["value"]

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: Any) -> None:
        with contextlib.suppress(BrokenPipeError):  # it is gone already
            self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def serve(tree: Path, device: str) -> None:
    """Answer requests until the line is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the comparison's; this ends when the line is closed
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever is printed meanwhile is no answer
    sys.path.insert(0, str(tree))  # `benchmarks` is loaded already, and stays this tree's
    bench, effort = None, None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            value = None
            if request["do"] == "build":
                bench = None  # frees the memory of the last one first
                bench, effort = _build(tree, device, request["name"], request["quick"])
            elif request["do"] == "count":
                from benchmarks.timing import burn_in

                value = burn_in(bench, effort)
            elif request["do"] == "time":
                from benchmarks.timing import timed

                sample = timed(bench, request["count"])
                # Rounds of a loop may play a few frames more or less, as episodes end: time by frame, not by round.
                metric = next(iter(bench.units))
                value = sample.seconds / (sample.work[metric] * request["claimed"] / request["count"])
            answer = {"value": value}
        except Exception as error:  # whatever an old tree lacks
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _build(tree: Path, device: str, name: str, quick: bool):
    import tfdqn

    found = Path(tfdqn.__file__).resolve().parent.parent
    if found != tree.resolve():
        raise RuntimeError(f"tfdqn was loaded from {found}, not from {tree}")
    if device == "/CPU:0":
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    from benchmarks import specs, timing
    from benchmarks.build import build

    spec = next(spec for spec in specs.all_specs() if spec.name == name)
    bench = build(spec, device)
    bench.check()
    return bench, timing.QUICK if quick else timing.FULL


if __name__ == "__main__":
    serve(Path(sys.argv[1]), sys.argv[2])
