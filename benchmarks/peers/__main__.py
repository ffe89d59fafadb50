"""tfdqn beside its peers: `python -m benchmarks.peers [--peer NAME] [--row NAME] [--json FILE] [--learn]`.

Every contender of a row is a process that has built, checked and warmed up its loop; then each is timed once, in
shuffled order, and again. The others wait on their line meanwhile.
"""

from __future__ import annotations

import contextlib
import random
import signal
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks import line
from benchmarks.peers import contenders
from benchmarks.peers.contenders import OURS, PEERS, ROWS
from benchmarks.run import EXIT_WRONG, check_writable, write
from tfdqn import cli
from tfdqn.errors import UserError

MIN_REPEATS = 3


def parser() -> cli.Parser:
    parser = cli.Parser(prog="python -m benchmarks.peers", description="Measure tfdqn beside its peers.")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME", help=f"one of {', '.join(PEERS)}")
    parser.add_argument("--row", action="append", default=[], metavar="NAME", help=f"one of {', '.join(ROWS)}")
    parser.add_argument(
        "--json", metavar="FILE", type=cli.path("--json"), default=None, help="write the rows to FILE as a JSON list"
    )
    parser.add_argument(
        "--repeats", type=cli.converter("--repeats", int), default=9, help="times each contender is timed, in turn"
    )
    parser.add_argument(
        "--repeat-seconds", type=cli.converter("--repeat-seconds", float), default=1.0, help="length of each, about"
    )
    parser.add_argument("--learn", action="store_true", help="also train each to a perfect catch8, from nothing")
    parser.add_argument(
        "--learn-seconds",
        type=cli.converter("--learn-seconds", float),
        default=3600.0,
        help="give a contender up after so many seconds of training",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse(argv)
    peers = contenders.choose(arguments.peer, list(PEERS), "--peer")
    rows = contenders.choose(arguments.row, ROWS, "--row")
    if arguments.repeats < MIN_REPEATS:
        raise UserError(f"--repeats {arguments.repeats}: must be at least {MIN_REPEATS}; use {MIN_REPEATS}")
    for flag, seconds in (("--repeat-seconds", arguments.repeat_seconds), ("--learn-seconds", arguments.learn_seconds)):
        if not 0 < seconds <= 86_400:
            raise UserError(f"{flag} {seconds:g}: must be above 0 and at most 86400")
    wanted = {row: [peer for peer in peers if row in PEERS[peer].rows] for row in rows}
    if not any(wanted.values()):
        raise UserError(f"--row {rows[0]}: {peers[0]} does not play it; it plays {', '.join(PEERS[peers[0]].rows)}")
    check_writable(arguments.json)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))  # unwinds: the workers end
    from benchmarks import results
    from benchmarks.peers import report

    found: list[dict[str, Any]] = []
    where = report.machine()
    code = 0
    for row, members in wanted.items():
        if not members:
            continue
        timed, failed = measure(row, [OURS, *members], arguments.repeats, arguments.repeat_seconds)
        code = EXIT_WRONG if failed else code
        if OURS in timed:  # the others are held against it
            of_row = report.rate_rows(row, timed)
            for name in timed if arguments.learn and contenders.spec(row).env == "catch8" else ():
                learnt = learn(row, name, arguments.learn_seconds)
                code = code if learnt else EXIT_WRONG
                of_row += learnt
            report.judge(of_row)
            found += [results.placed(line, where) for line in of_row]
        write(arguments.json, found)  # after each row: a run that is cut short has what it measured
    print(report.table(found), flush=True)
    return code


def measure(row: str, names: Sequence[str], repeats: int, seconds: float) -> tuple[dict[str, list[dict]], bool]:
    """Samples of each contender that could be measured to the end, taken in turn; and whether any could not."""
    timed: dict[str, list[dict[str, float]]] = {}
    counts, failed = {}, False
    with contextlib.ExitStack() as stack:
        workers = {}
        for name in names:  # one after the other: nothing is compiled while another is timed
            cli.say(f"{row}: building, checking and warming {name}")
            try:
                worker = stack.enter_context(contenders.start(name))
                settings = contenders.settings(row, name)
                # As late in training: while most actions are random, a loop that asks the network only for the others
                # looks quick.
                worker.ask(do="build", settings={**settings, "epsilon_start": settings["epsilon_end"]})
                counts[name] = worker.ask(do="count", seconds=seconds)
                workers[name], timed[name] = worker, []
            except line.WorkerFailed as error:
                cli.say(f"{row}: {name} is not measured: {error}")
                failed = True
        limit = _matmul() if workers else None
        order = random.Random(0)
        for number in range(repeats):
            if OURS not in workers:
                break
            turns = list(workers)
            order.shuffle(turns)  # so that none always runs behind the same other one
            operations = limit()
            for name in turns:
                try:
                    sample = workers[name].ask(do="time", count=counts[name])
                except line.WorkerFailed as error:
                    cli.say(f"{row}: {name} is dropped in repeat {number + 1}: {error}")
                    failed = True
                    del workers[name], timed[name]
                    continue
                timed[name].append({**sample, "matmul_operations_per_second": operations})
            cli.say(f"{row}: repeat {number + 1} of {repeats}")
    return timed, failed


def _matmul():
    """Measures the machine's matmul rate, as `benchmarks.run` does."""
    from benchmarks import floor, timing

    bench = floor.Matmul("/CPU:0")
    count = timing.burn_in(bench, timing.Effort(repeat_seconds=0.3, burn_in_seconds=0.3))

    def rate() -> float:
        sample = timing.timed(bench, count)
        return sample.work["operations"] / sample.seconds

    return rate


def learn(row: str, name: str, max_seconds: float) -> list[dict[str, Any]]:
    """Train one contender, alone, until it plays perfectly; no rows where it failed."""
    from benchmarks.peers import report

    cli.say(f"{row}: {name} learns, {max_seconds:g} s at most")
    try:
        with contenders.start(name) as worker:
            result = worker.ask(do="learn", settings=contenders.settings(row, name), max_seconds=max_seconds)
    except line.WorkerFailed as error:
        cli.say(f"{row}: {name} did not learn: {error}")
        return []
    return report.learning_rows(row, name, result, max_seconds)


if __name__ == "__main__":
    cli.run(main)
