"""One side of a comparison: a process that keeps its programs compiled and times them when asked.

`python -m benchmarks.worker TREE DEVICE` measures the tfdqn of TREE with the benchmarks of the tree it was started
from, so both sides do the same work, whatever benchmarks the base had.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from benchmarks import line
from benchmarks.line import WorkerFailed  # noqa: F401 (what a comparison has to catch)

ROOT = Path(__file__).resolve().parent.parent


class Worker(line.Process):
    """The comparison's end of the line."""

    def __init__(self, tree: Path, device: str):
        # Isolated from the folder it is started in; the benchmarks of this tree, then whatever is installed.
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        command = [sys.executable, "-P", "-m", "benchmarks.worker", str(tree), device]
        super().__init__(command, {"PYTHONPATH": path, "XLA_FLAGS": _users_xla_flags()})


def _users_xla_flags() -> str:
    """XLA_FLAGS without what this tree's tfdqn has added: each side has its own say on that."""
    import tfdqn  # not above: in the worker's own process it must be that of another tree

    return " ".join(flag for flag in os.environ.get("XLA_FLAGS", "").split() if flag != tfdqn.ONE_KERNEL_OPTION)


class Side:
    """What a worker does when asked."""

    def __init__(self, tree: Path, device: str):
        self._tree, self._device = tree, device
        self._bench = self._effort = None

    def build(self, name: str, quick: bool) -> None:
        self._bench = None  # frees the memory of the last one first
        self._bench, self._effort = _build(self._tree, self._device, name, quick)

    def count(self) -> int:
        from benchmarks.timing import burn_in

        return burn_in(self._bench, self._effort)

    def time(self, count: int, claimed: int) -> float:
        from benchmarks.timing import timed

        sample = timed(self._bench, count)
        # Rounds of a loop may play a few frames more or less, as episodes end: time by frame, not by round.
        metric = next(iter(self._bench.units))
        return sample.seconds / (sample.work[metric] * claimed / count)


def serve(tree: Path, device: str) -> None:
    """Answer requests until the line is closed."""
    sys.path.insert(0, str(tree))  # `benchmarks` is loaded already, and stays this tree's
    side = Side(tree, device)
    line.answer({"build": side.build, "count": side.count, "time": side.time})


def _build(tree: Path, device: str, name: str, quick: bool):
    import tfdqn

    found = Path(tfdqn.__file__).resolve().parent.parent
    if found != tree.resolve():
        raise RuntimeError(f"tfdqn was loaded from {found}, not from {tree}")
    if device == "/CPU:0":
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    from benchmarks import specs, timing
    from benchmarks.build import build

    known = {spec.name: spec for spec in specs.all_specs(on_gpu="GPU" in device)}
    if name not in known:
        raise LookupError(f"{name} is no row here: its preset has other sizes, or is missing")
    spec = known[name]
    bench = build(spec, device)
    bench.check()
    return bench, timing.QUICK if quick else timing.FULL


if __name__ == "__main__":
    serve(Path(sys.argv[1]), sys.argv[2])
