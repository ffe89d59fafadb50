"""What the training programs look like on a GPU: `python -m benchmarks.aot [--case catch8] [--json FILE] [--base REV]`.

No GPU is needed: XLA compiles each program, with the sizes that it has on a GPU, for an H200 that is only described.
What is read in the result decides much of the speed there; how long it takes, or what XLA would choose by trying it on
the chip, cannot be known here.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import line
from benchmarks.aot import cases, rows
from benchmarks.compare import EXIT_REGRESSION, checkout, git
from benchmarks.peers import environments
from benchmarks.run import EXIT_WRONG, check_writable, write
from tfdqn import cli
from tfdqn.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
# Environment of `peers.environments`, the chip in the form that its XLA takes, and flags for XLA. The program's is of
# about the age of TensorFlow's own; only a later one writes down what becomes a CUDA graph.
PROGRAM = ("xla-0.9", "h200.txtpb", "")
GRAPHS = ("xla-0.10", "h200_with_driver.txtpb", "--xla_gpu_enable_command_buffer=+WHILE,+CONDITIONAL")
# On a chip XLA tries its ways to a product and keeps one that works; without, it takes Triton's, and may fail.
WITHOUT_TRITON = {"xla_gpu_enable_triton_gemm": False}


def parser() -> cli.Parser:
    parser = cli.Parser(
        prog="python -m benchmarks.aot", description="Compile the training programs for a GPU that is not there."
    )
    parser.add_argument(
        "--case", action="append", default=[], metavar="CASE", help="a case, or the beginning of its name"
    )
    parser.add_argument(
        "--json", metavar="FILE", type=cli.path("--json"), default=None, help="write the rows to FILE as a JSON list"
    )
    parser.add_argument(
        "--base", metavar="REV", default=None, help="fail where a program is worse than that revision's"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse(argv)
    chosen = cases.select(arguments.case)
    check_writable(arguments.json)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))  # unwinds: workers end, the checkout is removed
    with contextlib.ExitStack() as stack:
        base = stack.enter_context(checkout(arguments.base)) if arguments.base else None
        found = measure(ROOT, chosen, arguments.json)
        earlier = measure(base, chosen) if base else []
    print(rows.table(found), flush=True)
    if base:
        return compare(arguments.base, earlier, found)
    return EXIT_WRONG if any(not row["compiled"] for row in found) else 0


def compare(revision: str, base: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]]) -> int:
    """Say what is worse than in a revision, and how the command ends."""
    found = [(row, words) for row, earlier in zip(new, base, strict=True) for words in rows.worse(earlier, row)]
    for earlier in base:
        if not earlier["compiled"]:
            cli.say(f"not compared: {earlier['case']} {earlier['learner']}: {earlier['error']}")
    compared = sum(earlier["compiled"] for earlier in base)
    if not compared:
        raise UserError(f"nothing could be compared with {revision}")
    cli.say(f"{compared} compared with {revision}, {len(found)} worse")
    for row, words in found:
        cli.say(f"  {row['case']} {row['learner']}: {words}")
    return EXIT_REGRESSION if found else 0


def measure(tree: Path, chosen: Sequence[cases.Case], path: str | None = None) -> list[dict[str, Any]]:
    """A row of each case of a tree, written to `path` as they come."""
    found: list[dict[str, Any]] = []
    commit = git("-C", str(tree), "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*").stdout.strip()
    with tempfile.TemporaryDirectory(prefix="tfdqn-aot-") as folder, Workers(tree, Path(folder)) as workers:
        for case in chosen:
            cli.say(f"{case.name}")
            found.append(workers.row(case) | {"commit": commit})
            write(path, found)  # after each: a run that is cut short has what it found
    return found


class Workers:
    """The processes that take a program from TensorFlow and that compile it; each is started again if it is gone."""

    def __init__(self, tree: Path, folder: Path):
        self._tree, self._folder = tree, folder
        self._running: dict[str, line.Process] = {}

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: Any) -> None:
        for worker in self._running.values():
            worker.__exit__()

    def row(self, case: cases.Case) -> dict[str, Any]:
        """What a case's program is like, or why there is none."""
        program, text = self._folder / "program.pb", self._folder / "optimized.txt"
        asked = {"env": case.env, "preset": case.preset, "learner": case.learner, "population": case.population}
        note: dict[str, Any] = {}
        try:
            told = self._ask("lowering", do="lower", **asked, path=str(program))
            request = {"do": "compile", "program": str(program), "path": str(text)}
            try:
                compiled = self._ask("program", **request, options={})
            except line.WorkerFailed as error:
                compiled = self._ask("program", **request, options=WITHOUT_TRITON)
                note = {"compiled": False, "with": "without Triton's products", "error": str(error)}
            found = rows.row(case, told, compiled, text.read_text(encoding="utf-8")) | note
            graphs = self._ask("graphs", **request, options=WITHOUT_TRITON if note else {})
        except (line.WorkerFailed, ValueError) as error:
            cli.say(f"  {error}")
            return rows.failed_row(case, str(error))
        versions = {"tensorflow": told["tensorflow"], "xla of jaxlib": compiled["jaxlib"], "graphs": graphs["jaxlib"]}
        return found | {"one_graph": graphs["one_graph"], "chip": compiled["chip"], "versions": versions}

    def _ask(self, name: str, **request: Any) -> dict[str, Any]:
        if name not in self._running:
            self._running[name] = self._start(name)
        try:
            return self._running[name].ask(**request)
        except line.WorkerFailed as error:
            if error.is_gone:
                self._running.pop(name).__exit__()
            raise

    def _start(self, name: str) -> line.Process:
        if name == "lowering":
            path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
            command = [sys.executable, "-P", "-m", "benchmarks.aot.lowering", str(self._tree)]
            return line.Process(command, {"PYTHONPATH": path})
        environment, chip, flags = {"program": PROGRAM, "graphs": GRAPHS}[name]
        dumps = self._folder / name
        dumps.mkdir(exist_ok=True)
        target = Path(__file__).with_name(chip)
        command = [str(environments.python(environment)), "-P", "-m", "benchmarks.aot.compiling", target, dumps]
        # Nothing that lies on this process's path may stand before what the environment was made of.
        variables = {"PYTHONPATH": str(ROOT), "XLA_FLAGS": f"--xla_dump_to={dumps} --xla_dump_hlo_as_text {flags}"}
        return line.Process(command, variables)


if __name__ == "__main__":
    cli.run(main)
