"""A whole terminal: drawn over frame by frame, its keys heard at once, and left as it was found."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any

from tfdqn import console
from tfdqn.errors import UserError

# What a terminal shows meanwhile, and what was there before; the cursor.
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l\x1b[2J", "\x1b[0m\x1b[?25h\x1b[?1049l"
_HOME = "\x1b[H"
_ARROWS = {"A": "up", "B": "down", "C": "right", "D": "left"}
_KEY = re.compile(r"\x1b[\[O][\d;]*([A-Za-z~])|.", re.DOTALL)
_NAMES = {" ": "space", "\r": "enter", "\n": "enter", "\x1b": "escape", "\x03": "ctrl-c"}


def require() -> None:
    """Refuse to begin where there is no terminal to play in.

    Raises:
      UserError: standard input or output is none, or its kind cannot move its cursor.
    """
    for stream, what in ((sys.stdin, "standard input"), (sys.stdout, "standard output")):
        try:
            is_terminal = stream.isatty()
        except (AttributeError, ValueError):  # None, or closed
            is_terminal = False
        if not is_terminal:
            raise UserError(f"{what} is no terminal, which this needs; tfdqn record writes a film to a file")
    if os.environ.get("TERM", "dumb") == "dumb":
        raise UserError(
            "TERM=dumb: this needs a terminal that can move its cursor; tfdqn record writes a film to a file"
        )


def keys_in(text: str) -> list[str]:
    """The keys in what a terminal sends: letters as they are, and words such as "left" and "space"."""
    found = []
    for match in _KEY.finditer(text):
        if match[1]:
            found.append(_ARROWS.get(match[1], "other"))
        else:
            found.append(_NAMES.get(match[0], match[0].lower()))
    return found


class Screen:
    """The terminal of this process, entered once; `draw` and `wait` until it is left.

    SIGTERM and SIGHUP leave it, too, before they end the process.
    """

    def __init__(self):
        self.colours = console.has_colours(sys.stdout)
        self.colours_are_true = os.environ.get("COLORTERM", "").lower() in ("truecolor", "24bit")
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Screen:
        import termios
        import tty

        self._input = sys.stdin.fileno()
        self._settings = termios.tcgetattr(self._input)
        for number in (signal.SIGTERM, signal.SIGHUP):
            self._handlers[number] = signal.signal(number, self._end)
        # A stopped process would leave its picture behind: q ends it.
        self._handlers[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, signal.SIG_IGN)
        tty.setcbreak(self._input)
        self._write(_ENTER)
        return self

    def __exit__(self, *_: Any) -> None:
        import termios

        with contextlib.suppress(OSError):
            self._write(_LEAVE)
        with contextlib.suppress(OSError, termios.error):  # gone
            termios.tcsetattr(self._input, termios.TCSADRAIN, self._settings)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _end(self, number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows."""
        with contextlib.suppress(OSError, ValueError):
            size = os.get_terminal_size(sys.stdout.fileno())
            if size.columns and size.lines:
                return size.columns, size.lines
        return console.DEFAULT_COLUMNS, console.DEFAULT_ROWS

    def draw(self, lines: Sequence[str]) -> None:
        """Show lines, none wider than the terminal; those that are too many are left out."""
        _, rows = self.size
        shown = f"\x1b[0m{console.ERASE_REST}\r\n".join(lines[:rows])
        self._write(f"{_HOME}{shown}\x1b[0m{console.ERASE_REST}{console.ERASE_BELOW}")

    def wait(self, seconds: float) -> list[str]:
        """The keys that are pressed; the first ends the wait, and so do so many seconds."""
        if not select.select([self._input], [], [], max(seconds, 0.0))[0]:
            return []
        data = os.read(self._input, 1024)
        if not data:
            raise SystemExit(0)  # nobody is there any more
        return keys_in(data.decode(errors="replace"))

    def _write(self, text: str) -> None:
        data = text.encode(errors="replace")
        while data:
            data = data[os.write(sys.stdout.fileno(), data) :]


class Clock:
    """When the next frame is due; the first one is at once."""

    def __init__(self):
        self._due = time.monotonic()

    def begin(self, seconds: float) -> None:
        """The next frame is due so long after the last one was, or now if that is later."""
        self._due = max(self._due + seconds, time.monotonic())

    @property
    def left(self) -> float:
        """Seconds until it is due."""
        return max(self._due - time.monotonic(), 0.0)
