"""What a process tells people, on standard error: lines, and on a terminal a live line or picture that is written over.

All of it is progress. Where it cannot be shown, because nothing is there, the disk is full or the reader has gone away,
it is dropped: no run ends for it.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

DEFAULT_COLUMNS, DEFAULT_ROWS = 80, 24  # of a terminal that does not tell
ERASE_BELOW = "\x1b[J"  # from the cursor on
ERASE_REST = "\x1b[K"  # of its line

# Lines of at most so many columns, as many as there are rows at most; colours take no room.
Picture = Callable[[int, int], Sequence[str]]


def fit(parts: Sequence[tuple[int, str]], columns: int) -> str:
    """As many (rank, text) as fit into a line of `columns`, those of the lowest ranks, in the order given."""
    kept: set[int] = set()
    for rank in sorted(rank for rank, _ in parts):
        text = "  ".join(text for other, text in parts if other in kept | {rank})
        if len(text) > columns:
            break
        kept.add(rank)
    return "  ".join(text for rank, text in parts if rank in kept)


def has_colours(stream: Any) -> bool:
    """Whether a stream is a terminal with colours, and nobody has asked for none (https://no-color.org)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb":
        return False
    try:
        return stream.isatty()
    except (AttributeError, OSError, ValueError):  # None, or closed
        return False


class Console:
    """The one writer of messages; `sys.stderr` is looked up anew each time, for others may exchange it."""

    def __init__(self):
        self._lock = threading.RLock()
        self._draw: Picture | None = None  # what is live, if anything is: the cursor is at the start of it
        self._height = 0  # lines of it, as it was drawn last
        self._hooked: list[Any] = []
        self.is_silent = False

    @property
    def shows_pictures(self) -> bool:
        """Whether a picture can be drawn, and drawn over: in colours, and in more than ASCII."""
        encoding = (getattr(sys.stderr, "encoding", None) or "").lower()
        return self.is_terminal and has_colours(sys.stderr) and encoding.startswith("utf") and not self.is_silent

    @property
    def is_terminal(self) -> bool:
        """Whether a line can be written over."""
        try:
            return sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        except (AttributeError, OSError, ValueError):  # None, or closed
            return False

    def say(self, message: str) -> None:
        """A line for people."""
        with self._lock:
            self.end_live()
            self._write(message + "\n")

    def live(self, parts: Sequence[tuple[int, str]], picture: Picture | None = None) -> None:
        """Write (rank, text)s over the live line: all that fit, the lowest ranks first, in the order given.

        The cursor stays in the line's first column. So the next one begins in the right place however the terminal has
        broken this one up since, and so does what a library in C++ writes without asking.

        Args:
          parts: of the line.
          picture: drawn in its place, in the same way, where the terminal can show it (see `shows_pictures`).
        """
        with self._lock:
            if not self.is_terminal:
                self._write("  ".join(text for _, text in parts) + "\n")
                return
            self._unhook()
            self._draw = picture if picture and self.shows_pictures else lambda columns, rows: [fit(parts, columns)]
            text = self._drawn()
            self._write(text + "\r" + (f"\x1b[{self._height - 1}A" if self._height > 1 else ""))
            self._hook()

    def _drawn(self) -> str:
        """What is live, to be written from the cursor on, which is then in its last line."""
        columns, rows = self._size()
        # A terminal goes on in the next line after the last column, or stays there: no line has it.
        lines = list(self._draw(columns - 1, rows - 1))[: rows - 1]
        self._height = len(lines)
        # From the first column on: a terminal has written what was typed, such as ^C, where the cursor was.
        return "\r" + f"{ERASE_REST}\n".join(lines) + ERASE_BELOW

    def end_live(self) -> None:
        """Leave what is live as it stands; what comes next begins a line of its own."""
        with self._lock:
            self._unhook()
            if self._draw is not None:
                self._write(self._drawn() + "\n")
                self._draw = None

    def last_words(self, message: str) -> None:
        """A line from a thread that is about to end the process, whatever the others are doing."""
        with contextlib.suppress(OSError):
            # Not through the stream: another thread may hold its lock.
            below = "\n" * self._height if self._draw is not None else ""
            os.write(2, (below + message + "\n").encode(errors="backslashreplace"))

    def _hook(self) -> None:
        """Have anyone else's `print`, warning or traceback end the live line first."""
        for stream in {id(stream): stream for stream in (sys.stdout, sys.stderr)}.values():
            with contextlib.suppress(AttributeError, OSError, ValueError):
                if stream.isatty():
                    stream.write = self._ending(stream)
                    self._hooked.append(stream)

    def _ending(self, stream: Any) -> Any:
        def write(text: str) -> int:
            self.end_live()
            return stream.write(text)

        return write

    def _unhook(self) -> None:
        for stream in self._hooked:
            with contextlib.suppress(AttributeError):
                del stream.write
        self._hooked.clear()

    def _size(self) -> tuple[int, int]:
        """Columns and rows of the terminal."""
        with contextlib.suppress(AttributeError, OSError, ValueError):
            size = os.get_terminal_size(sys.stderr.fileno())
            return size.columns or DEFAULT_COLUMNS, size.lines or DEFAULT_ROWS
        return DEFAULT_COLUMNS, DEFAULT_ROWS

    def _write(self, text: str) -> None:
        if self.is_silent:
            return
        stream = sys.stderr
        with contextlib.suppress(AttributeError, OSError, ValueError):  # None; cannot be written; closed
            stream.flush()
            try:
                descriptor = stream.fileno() if isinstance(stream, io.TextIOWrapper) else None
            except io.UnsupportedOperation:
                descriptor = None
            if descriptor is None:
                stream.write(text)
                stream.flush()
            else:
                # What a stream could not write it keeps, and tries again for ever, the last time when Python ends.
                data = text.encode(stream.encoding, stream.errors or "backslashreplace")
                while data:
                    data = data[os.write(descriptor, data) :]


def settle(stream: Any) -> None:
    """Have a stream whose end has gone away keep nothing: Python ends with code 120 where it cannot write the rest."""
    try:
        stream.flush()
    except (AttributeError, ValueError):
        pass  # None, or closed
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, stream.fileno())
            os.close(nothing)
            stream.flush()


_console = Console()


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Say nothing meanwhile, in this process."""
    before, _console.is_silent = _console.is_silent, True
    try:
        yield
    finally:
        _console.is_silent = before


say, live, end_live, last_words = _console.say, _console.live, _console.end_live, _console.last_words


def is_terminal() -> bool:
    """Whether standard error is a terminal on which a line can be written over."""
    return _console.is_terminal
