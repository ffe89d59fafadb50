"""Processes in a terminal, and what it shows: enough of one for what tfdqn writes."""

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent
_PIECES = re.compile(r"\x1b\[\??[\d;]*[A-Za-z]|\x1b[()=>][A-Z0]?|.|\n", re.DOTALL)


class Terminal:
    """A process in a terminal of its own, which is its controlling one.

    Args:
      command: words; Python's own are put before them.
      columns, rows: of the terminal.
      cwd: where it starts.
      **environment: variables; None for one that is not to be there.
    """

    def __init__(self, command, columns=80, rows=24, cwd=ROOT, **environment):
        self._ours, theirs = pty.openpty()
        self._theirs_name = os.ttyname(theirs)
        self.written = b""
        self.resize(columns, rows)
        merged = {**os.environ, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT), "NO_COLOR": None, **environment}
        self.process = subprocess.Popen(
            [sys.executable, *map(str, command)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=cwd,
            env={name: value for name, value in merged.items() if value is not None},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        self._theirs = theirs  # kept open: what was written last is not lost then

    def resize(self, columns, rows=24):
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read_until(self, is_enough: Callable[[str], bool], seconds: float = 240.0):
        """Read until what was written is enough; a test that waits so long fails."""
        end = time.monotonic() + seconds
        while not is_enough(self.text):
            assert time.monotonic() < end, self.text[-3000:]
            is_over = self.process.poll() is not None
            if not self._read_some(0.1) and is_over:
                assert is_enough(self.text), self.text[-3000:]

    def _read_some(self, seconds):
        if not select.select([self._ours], [], [], seconds)[0]:
            return False
        try:
            self.written += os.read(self._ours, 65536)
        except OSError:
            return False
        return True

    def press(self, keys: str):
        os.write(self._ours, keys.encode())

    def settings(self):
        """How the terminal treats what is typed."""
        return termios.tcgetattr(self._theirs)

    @property
    def text(self) -> str:
        return self.written.decode(errors="replace")

    def end(self, seconds: float = 240.0) -> int:
        """Wait for its end, and return its exit code."""
        end = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < end, self.text[-3000:]
            self._read_some(0.1)
        while self._read_some(0.05):
            pass
        return self.process.returncode

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        os.close(self._theirs)
        os.close(self._ours)


def rows_of(written: str, columns: int) -> list[str]:
    """What a terminal of endless rows shows in the end; what is too long for a row goes on in the next."""
    rows, row, column = [""], 0, 0

    def reach(number):
        rows.extend([""] * (number + 1 - len(rows)))

    for piece in _PIECES.findall(written.replace("\r\n", "\n\r")):
        code = re.fullmatch(r"\x1b\[(\??[\d;]*)([A-Za-z])", piece)
        if code:
            count = int(code[1]) if code[1].isdigit() else 1
            if code[2] == "J" and code[1] in ("", "0"):
                rows[row:] = [rows[row][:column]]
            elif code[2] == "J":
                rows[:] = [""]
            elif code[2] == "K":
                rows[row] = rows[row][:column]
            elif code[2] == "A":
                row = max(row - count, 0)
            elif code[2] == "H":
                place = [int(part or 1) - 1 for part in [*code[1].split(";"), "1"]]
                row, column = place[:2]
                reach(row)
        elif piece == "\r":
            column = 0
        elif piece == "\n":
            row += 1
            reach(row)
        elif not piece.startswith("\x1b"):
            if column == columns:
                row, column = row + 1, 0
                reach(row)
            rows[row] = rows[row][:column].ljust(column) + piece + rows[row][column + 1 :]
            column += 1
    return [text.rstrip() for text in rows]
