"""What people see: lines that begin at the left, one live line that fits, and nothing that ends a run."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from tfdqn import console

ROOT = Path(__file__).parent.parent
PARTS = [(0, "1,000 frames"), (3, "99 frames/s"), (2, "greedy 5.0"), (1, "left 0:07")]


def in_terminal(code, columns, script=None):
    """Every byte that `code` writes to a terminal that is so wide; after "resize N" it has N columns."""
    ours, theirs = pty.openpty()

    def resize(columns):
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    resize(columns)
    process = subprocess.Popen(
        [sys.executable, "-c", code, *(script or [])],
        stdin=subprocess.PIPE,
        stdout=theirs,
        stderr=theirs,
        cwd=ROOT,
        env={**os.environ, "TERM": "xterm", "PYTHONPATH": str(ROOT)},
    )
    written, done = b"", 0
    while True:
        asked = [int(n) for n in re.findall(rb"resize (\d+)", written)][done:]
        for wanted in asked:
            resize(wanted)
            process.stdin.write(b"\n")
            process.stdin.flush()
            done += 1
        if process.poll() is not None:
            os.close(theirs)
        try:
            more = os.read(ours, 65536) if process.poll() is not None or is_ready(ours) else b""
        except OSError:  # the other end is closed and all is read
            break
        written += more
    os.close(ours)
    assert process.returncode == 0, written.decode()
    return written.decode()


def is_ready(descriptor):
    import select

    return bool(select.select([descriptor], [], [], 0.05)[0])


def rows_of(written, columns):
    """What a terminal shows in the end, row by row; a row too long for it goes on in the next."""
    rows, row, column = [""], 0, 0
    for piece in re.findall(r"\x1b\[J|.|\n", written.replace("\r\n", "\n\r"), re.DOTALL):
        if piece == "\x1b[J":
            rows[row:] = [rows[row][:column]]
        elif piece == "\r":
            column = 0
        elif piece == "\n":
            row += 1
            rows += [""] * (row + 1 - len(rows))
        else:
            if column == columns:
                row, column = row + 1, 0
                rows += [""] * (row + 1 - len(rows))
            rows[row] = rows[row][:column].ljust(column) + piece + rows[row][column + 1 :]
            column += 1
    return [text.rstrip() for text in rows]


def test_a_line_has_what_fits_by_rank_in_its_order():
    whole = "1,000 frames  99 frames/s  greedy 5.0  left 0:07"
    assert console.fit(PARTS, 80) == console.fit(PARTS, len(whole)) == whole
    assert console.fit(PARTS, len(whole) - 1) == "1,000 frames  greedy 5.0  left 0:07"
    assert console.fit(PARTS, 30) == "1,000 frames  left 0:07"
    assert console.fit(PARTS, 12) == "1,000 frames"
    assert console.fit(PARTS, 11) == ""


TALK = """
import os, sys, warnings
from tfdqn import console
def live(n): console.live([(0, f"{n:,} frames"), (2, "y" * 30), (1, "left 0:07")])
console.say("begin")
for n in range(50): live(n)
console.say("a message")
live(51)
print("a result", flush=True)
live(52)
print("a library's complaint", file=sys.stderr)
live(53)
warnings.warn("a warning")
live(54)
"""


@pytest.mark.parametrize("columns", [80, 40])
def test_the_live_line_is_one_row_and_everything_else_begins_a_row(columns):
    rows = rows_of(in_terminal(TALK + "console.end_live()\nprint('end')", columns), columns)
    line = {n: f"{n} frames  {'y' * 30}  left 0:07" if columns == 80 else f"{n} frames  left 0:07" for n in range(60)}
    warning = next(i for i, row in enumerate(rows) if row.endswith(": UserWarning: a warning"))
    assert rows[:warning] == [
        *("begin", line[49], "a message", line[51], "a result", line[52], "a library's complaint", line[53]),
    ]
    assert [row for row in rows[warning + 1 :] if row] == [line[54], "end"]


def test_the_live_line_follows_the_terminals_width():
    code = TALK + "console.say('resize 30'); input(); live(55)\nconsole.say('resize 100'); input(); live(56)\n"
    written = in_terminal(code + "console.say('end')", 40)
    before, narrow, wide = re.split(r"resize \d+\r\n", written)
    assert "yyy" not in before + narrow and "55 frames  left 0:07" in narrow and "y" * 30 in wide


def test_the_end_of_a_process_by_a_signal_does_not_stick_to_the_live_line():
    code = TALK + "console.last_words('stopped by SIGTERM; nothing was saved')"
    assert rows_of(in_terminal(code, 40), 40)[-3:] == [
        "54 frames  left 0:07",
        "stopped by SIGTERM; nothing was saved",
        "",
    ]


DROP = """
import contextlib, os, sys
from tfdqn import cli, console
def command(argv):
    for n in range(2000):
        console.say("some words of progress")
        console.live([(0, "more")])
    with open(sys.argv[1], "wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            os.write(2, b"a library in C\\n")
        file.write(b"all well")
    cli.print_result("the result\\n") if sys.argv[2:] else None
    return 0
cli.run(command)
"""


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "0>&- 2>&-", "2>&1 >/dev/null | head -n 3"])
def test_progress_that_cannot_be_shown_is_dropped_and_the_command_goes_on(tmp_path, redirection):
    line = f'set -o pipefail; {sys.executable} -c "$CODE" file {redirection}'
    result = subprocess.run(
        ["bash", "-c", line],
        cwd=tmp_path,
        env={**os.environ, "CODE": DROP, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "file").read_text() == "all well"
    assert "Exception ignored" not in result.stderr + result.stdout


@pytest.mark.parametrize(
    ("redirection", "code", "message"),
    [
        (">&-", 5, "standard output is closed"),
        (">/dev/full", 5, "standard output: No space left on device"),
        ("| true", 2, ""),
    ],
)
def test_a_result_that_cannot_be_written_is_an_error(tmp_path, redirection, code, message):
    line = f'sleep 0.5; exec {sys.executable} -c "$CODE" file result'
    result = subprocess.run(
        ["bash", "-c", f"( {line} ) {redirection}; exit ${{PIPESTATUS[0]}}"],
        cwd=tmp_path,
        env={**os.environ, "CODE": DROP, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == code
    last = result.stderr.splitlines()[-1]
    assert last.startswith("tfdqn: error: ") and message in last if message else "Error" not in result.stderr
