"""Is the tree slower than a revision? `python -m benchmarks.compare --base REV`.

REV is checked out beside the tree; a process for each keeps its programs compiled, and the two take turns.
"""

from __future__ import annotations

import contextlib
import json
import math
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import decision, specs
from benchmarks.worker import ROOT, Worker, WorkerFailed
from tfdqn import cli
from tfdqn.errors import UserError

EXIT_REGRESSION = 1


def parser() -> cli.Parser:
    parser = cli.Parser(
        prog="python -m benchmarks.compare", description="Compare the speed of the tree with a revision."
    )
    parser.add_argument("--base", metavar="REV", default=None, help="the revision to compare with; HEAD if absent")
    parser.add_argument(
        "--case", action="append", default=[], metavar="CASE", help="a case, or the beginning of a row's name"
    )
    parser.add_argument("--pairs", type=cli.converter("--pairs", int), default=9, help="pairs of times for each case")
    parser.add_argument("--quick", action="store_true", help="short times: is all in order?")
    parser.add_argument("--device", default="auto", help="auto, cpu or gpu")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument(
        "--plant",
        metavar="NAME=FACTOR",
        default=None,
        help="do FACTOR times the work in a case of this tree, as a test",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse(argv)
    if arguments.pairs < decision.MIN_PAIRS:
        raise UserError(f"--pairs {arguments.pairs}: must be at least {decision.MIN_PAIRS}; use {decision.MIN_PAIRS}")
    if arguments.device not in ("auto", "cpu", "gpu"):
        raise UserError(f"--device {arguments.device}: choose one of auto, cpu, gpu")
    on_gpu = arguments.device == "gpu"
    names = _compared(arguments.case, on_gpu)
    planted = _planted(arguments.plant, names)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))  # unwinds: the checkout is removed
    with checkout(arguments.base or "HEAD") as base:
        device = "/CPU:0" if arguments.device == "cpu" else _device(arguments.device)
        if "GPU" in device and not on_gpu:
            names = _compared(arguments.case, on_gpu=True)  # presets have other sizes there, and so other names
            planted = _planted(arguments.plant, names)
        comparison = Comparison(base, device, arguments.pairs, arguments.quick, planted)
        verdicts = comparison.compare(names)
    return _report(arguments.base or "HEAD", verdicts, comparison.broken, arguments.json)


def _report(base: str, verdicts: dict[str, decision.Verdict], broken: dict[str, str], as_json: bool) -> int:
    """Say which cases fail: those that are slower, and those that this tree cannot do any more."""
    slower = [name for name, verdict in verdicts.items() if verdict.is_regression]
    failed = [*slower, *(name for name in broken if name not in slower)]
    if as_json:
        rows = {name: {**vars(verdict), "is_regression": verdict.is_regression} for name, verdict in verdicts.items()}
        print(json.dumps({"base": base, "cases": rows, "failed": failed, "broken": broken}))
    if not verdicts and not broken:
        raise UserError(f"nothing could be compared with {base}")
    cli.say(f"{len(verdicts)} compared, {len(slower)} slower, {len(broken)} broken")
    for name in failed:
        cli.say(f"  {name}" + (f": {broken[name]}" if name in broken else ""))
    return EXIT_REGRESSION if failed else 0


class Comparison:
    """Two trees, timed in pairs.

    Attributes:
      broken: what the new tree could not do where the base could, and its words.
    """

    def __init__(self, base: Path, device: str, pairs: int, quick: bool, planted: dict[str, float]):
        self._base, self._device, self._pairs, self._quick, self._planted = base, device, pairs, quick, planted
        self.broken: dict[str, str] = {}

    def compare(self, names: Sequence[str]) -> dict[str, decision.Verdict]:
        """A verdict for each case that both trees can do; what the base cannot do is named and left out."""
        ratios = self._measure(names)
        suspects = [name for name, found in ratios.items() if decision.decide(found).is_regression]
        if suspects:
            # Again in fresh processes: where a process's memory happens to lie can cost some percent for its life.
            cli.say(f"measuring {len(suspects)} again in new processes")
            for name, found in self._measure(suspects).items():
                ratios[name] += found
        verdicts = {name: decision.decide(found) for name, found in ratios.items()}
        for name, verdict in verdicts.items():
            print(f"{name:<44} {verdict}", flush=True)
        return verdicts

    def _measure(self, names: Sequence[str]) -> dict[str, list[float]]:
        """Ratios of each case that both trees can do."""
        found, waiting = {}, list(names)
        while waiting:  # new workers after one that is gone: what broke in one case says nothing of the others
            with Worker(self._base, self._device) as base, Worker(ROOT, self._device) as new:
                is_gone = False
                while waiting and not is_gone:
                    name = waiting.pop(0)
                    try:
                        found[name] = self._ratios(base, new, name)
                    except WorkerFailed as error:
                        is_gone = error.is_gone
                        self._note(name, error, error.worker is new)
                    else:
                        cli.say(f"  {name}: {decision.decide(found[name])}")
        return found

    def _note(self, name: str, error: WorkerFailed, is_new: bool) -> None:
        if is_new:
            self.broken[name] = str(error)
        cli.say(f"  {'BROKEN' if is_new else 'not compared'}: {name}: {error}")

    def _ratios(self, base: Worker, new: Worker, name: str) -> list[float]:
        for worker in (base, new):  # one after the other: no compilation while the other is timed
            worker.ask(do="build", name=name, quick=self._quick)
        count = min(worker.ask(do="count") for worker in (base, new))
        return [self._pair(base, new, name, count, i) for i in range(self._pairs)]

    def _pair(self, base: Worker, new: Worker, name: str, count: int, number: int) -> float:
        """New time over base time: one tree, the other twice, the first again, so that a drift hits both alike."""
        factor = self._planted.get(name, 1.0)
        totals = {base: 0.0, new: 0.0}
        order = (base, new, new, base) if number % 2 == 0 else (new, base, base, new)
        for worker in order:
            # The planted work is really done, and not counted.
            done = math.ceil(count * factor) if worker is new else count
            totals[worker] += worker.ask(do="time", count=done, claimed=count)
        return totals[new] / totals[base]


@contextlib.contextmanager
def checkout(revision: str) -> Iterator[Path]:
    """A revision's files in a temporary folder.

    Raises:
      UserError: no such revision, or no repository.
    """
    found = git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    if found.returncode:
        raise UserError(f"--base {revision}: no such revision in this repository; try HEAD~1 or a branch's name")
    with tempfile.TemporaryDirectory(prefix="tfdqn-base-") as folder:
        tree = Path(folder).resolve() / "tree"
        made = git("worktree", "add", "--detach", "--quiet", str(tree), found.stdout.strip())
        try:
            if made.returncode:
                raise UserError(f"--base {revision}: git cannot check it out: {made.stderr.strip().splitlines()[-1]}")
            yield tree
        finally:
            git("worktree", "remove", "--force", str(tree))


def git(*arguments: str) -> subprocess.CompletedProcess:
    """Git's answer about this tree.

    Raises:
      UserError: there is no git.
    """
    try:
        return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, encoding="utf-8")
    except FileNotFoundError:
        raise UserError("git is not installed: it is needed to check the base out") from None


def _device(wanted: str) -> str:
    """Found in a process that ends: the workers must have a GPU's memory to themselves."""
    code = f"from tfdqn.runtime import devices; print(devices.choose_device({wanted!r}))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, encoding="utf-8")
    if result.returncode:
        raise UserError(f"--device {wanted}: TensorFlow sees no such device on this machine")
    return result.stdout.split()[-1]


def _compared(patterns: Sequence[str], on_gpu: bool) -> list[str]:
    """The names of what patterns choose, or of the gate's cases.

    Raises:
      UserError: a pattern that names nothing, or something that is not compared.
    """
    compared = [case for case in specs.CASES if case not in specs.PROCESS_CASES]
    for pattern in patterns:
        if pattern.split("/")[0] in specs.PROCESS_CASES:
            raise UserError(f"--case {pattern}: nothing in it is compared; compared are {', '.join(compared)}")
    names = [spec.name for spec in specs.select(patterns, gate=True, on_gpu=on_gpu)]
    if not names:
        raise UserError(f"--case {' '.join(patterns)}: nothing in it is compared; name a row of `run --list`")
    return names


def _planted(text: str | None, names: Sequence[str]) -> dict[str, float]:
    if text is None:
        return {}
    name, _, factor = text.partition("=")
    try:
        value = float(factor)
    except ValueError:
        value = 0.0
    if not 1.0 <= value <= 100.0:
        raise UserError(f"--plant {text}: give a name and a factor from 1 to 100, such as {names[0]}=1.3")
    if name not in names:
        raise UserError(f"--plant {text}: {name} is not compared; such as {names[0]}=1.3")
    return {name: value}


if __name__ == "__main__":
    cli.run(main)
