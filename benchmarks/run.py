"""Measure: `python -m benchmarks.run [--case env] [--json FILE] [--quick]`."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import specs
from benchmarks.specs import PROCESS_CASES, Spec
from tfdqn import cli
from tfdqn import config as configuration
from tfdqn.errors import EXIT_IO, UserError
from tfdqn.runtime import devices

EXIT_WRONG = 1  # a benchmark computed something else than it should
PROCESS_REPEATS = 3


def parser() -> cli.Parser:
    parser = cli.Parser(prog="python -m benchmarks.run", description="Measure tfdqn next to the machine's limits.")
    cases = ", ".join(specs.CASES)
    parser.add_argument(
        "--case", action="append", default=[], metavar="CASE", help=f"one of {cases}, or the beginning of a row's name"
    )
    parser.add_argument(
        "--json", metavar="FILE", type=cli.path("--json"), default=None, help="write the rows to FILE as a JSON list"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, few and short repeats: is all in order?")
    parser.add_argument("--device", default="auto", help="auto, cpu or gpu")
    parser.add_argument(
        "--threads",
        type=cli.converter("--threads", int),
        default=0,
        help=f"CPU threads that share one operation, 0 for all cores; {', '.join(PROCESS_CASES)} take their preset's",
    )
    parser.add_argument("--list", action="store_true", help="print the names of what would be measured, and end")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse(argv)
    if arguments.device not in ("auto", "cpu", "gpu"):  # a number would not reach the processes that are started
        raise UserError(f"--device {arguments.device}: choose one of auto, cpu, gpu")
    configuration.check(configuration.Config(threads=arguments.threads))
    chosen = specs.select(arguments.case, quick=arguments.quick, on_gpu=arguments.device == "gpu")
    if arguments.list:
        print("\n".join(spec.name for spec in chosen))
        return 0
    check_writable(arguments.json)
    device = devices.choose_device(arguments.device, threads=arguments.threads)
    chosen = specs.select(arguments.case, quick=arguments.quick, on_gpu="GPU" in device)
    from benchmarks import results
    from benchmarks.timing import WrongResult

    where = results.machine(device)
    if where["load_before"] > 0.5:
        cli.say(f"this machine is busy (load {where['load_before']}): medians will be low and spreads wide")
    rows: list[dict[str, Any]] = []
    code = 0
    for case in specs.CASES:
        members = [spec for spec in chosen if spec.case == case]
        if not members:
            continue
        cli.say(f"{case}: {len(members)} to measure")
        try:
            measure = _processes if case in PROCESS_CASES else _rates
            found = measure(members, device, arguments.quick)
        except WrongResult as error:
            cli.say(f"benchmarks: WRONG RESULT: {error}; nothing of {case} is reported")
            code = EXIT_WRONG
            continue
        code = EXIT_WRONG if any(row.get("failed") for row in found) else code
        rows += [results.placed(row, where | {"quick": arguments.quick}) for row in found]
        write(arguments.json, rows)  # after each case: a run that is cut short has what it measured
        print(results.table(found), flush=True)
    derived = results.derived_rows(rows)
    if derived:
        write(arguments.json, rows + derived)
        print(results.table(derived), flush=True)
    return code


def _rates(members: Sequence[Spec], device: str, quick: bool) -> list[dict[str, Any]]:
    """Rows of one case, all measured in turn with the machine's limits."""
    from benchmarks import floor, results, timing
    from benchmarks.build import build

    benches = floor.benches(device, quick=quick)
    by_name, skipped = {}, []
    for spec in members:
        cli.say(f"  building and checking {spec.name}")
        try:
            bench = build(spec, device)
        except UserError as error:
            cli.say(f"  skipped {spec.name}: {error}")
            skipped.append(results.skipped_row(spec, str(error)))
            continue
        bench.check()
        benches[spec.name], by_name[spec.name] = bench, spec
    if not by_name:
        return skipped
    samples = timing.interleave(benches, timing.QUICK if quick else timing.FULL, cli.say)
    rows = results.limit_rows(members[0].case, samples)
    for name, spec in by_name.items():
        rows += results.rate_rows(spec, benches[name], samples[name], samples)
    return rows + skipped


def _processes(members: Sequence[Spec], device: str, quick: bool) -> list[dict[str, Any]]:
    """Rows of one of `PROCESS_CASES`: every process once, then every one again."""
    from benchmarks import process_case, results

    found: dict[str, list[dict[str, Any]]] = {spec.name: [] for spec in members}
    skipped: dict[str, dict[str, Any]] = {}
    for _ in range(1 if quick or members[0].case == "reports" else PROCESS_REPEATS):  # those take repeats of their own
        for spec in members:
            if spec.name in skipped:
                continue
            cli.say(f"  running {spec.name}")
            try:
                found[spec.name].append(process_case.measure(spec.case, dict(spec.settings), device, quick))
            except (UserError, process_case.ProcessFailed) as error:
                failed = isinstance(error, process_case.ProcessFailed)
                cli.say(f"  {'FAILED' if failed else 'skipped'} {spec.name}: {error}")
                skipped[spec.name] = results.skipped_row(spec, str(error), failed=failed)
    rows = []
    for spec in members:
        if spec.name in skipped:
            rows.append(skipped[spec.name])
        else:
            rows += _process_rows(spec, found[spec.name])
    return rows


def _process_rows(spec: Spec, each: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of what the processes of one specification found."""
    from benchmarks import results

    rows, first = [], each[0]
    if spec.case == "compile":
        rows.append(results.cost_row(spec, "compile", "s", [one["seconds"] for one in each], None, None))
    if spec.case == "reports":
        rows.append(results.cost_row(spec, "time with reports", "1", first["ratios"], 1.0, "the same run without"))
    for place in ("host", "device") if spec.case == "memory" else ():
        if f"{place}_bytes" in first:
            values, bound = [one[f"{place}_bytes"] for one in each], first[f"{place}_floor_bytes"]
            rows.append(results.cost_row(spec, f"peak_{place}", "B", values, bound, "bytes that must be held"))
    return [row | {"threads": first["threads"]} for row in rows]  # those of its own process


def check_writable(path: str | None) -> None:
    """Refuse a file that cannot be written, before anything is measured."""
    if path is None:
        return
    folder = Path(path).resolve().parent
    if Path(path).is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UserError(f"--json {path}: not a file that can be written", EXIT_IO)


def write(path: str | None, rows: list[dict[str, Any]]) -> None:
    """All rows, one a line, put in place at once."""
    if path is None:
        return
    text = "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n"
    try:
        scratch = Path(f"{path}.part")
        scratch.write_text(text, encoding="utf-8")
        os.replace(scratch, path)
    except OSError as error:
        raise UserError(f"--json {path}: {error.strerror or error}", EXIT_IO) from None


if __name__ == "__main__":
    cli.run(main)
