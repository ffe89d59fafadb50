"""What a process tells people, on standard error: lines, and on a terminal one live line that is written over.

All of it is progress. Where it cannot be shown, because nothing is there, the disk is full or the reader has gone away,
it is dropped: no run ends for it.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

DEFAULT_COLUMNS = 80  # of a terminal that does not tell
ERASE_BELOW = "\x1b[J"  # from the cursor on


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
        self._parts: Sequence[tuple[int, str]] = ()  # of the live line that the cursor is in, if any
        self._hooked: list[Any] = []
        self.is_silent = False

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

    def live(self, parts: Sequence[tuple[int, str]]) -> None:
        """Write (rank, text)s over the live line: all that fit, the lowest ranks first, in the order given.

        The cursor stays in the line's first column. So the next one begins in the right place however the terminal has
        broken this one up since, and so does what a library in C++ writes without asking.
        """
        with self._lock:
            if not self.is_terminal:
                self._write("  ".join(text for _, text in parts) + "\n")
                return
            self._unhook()
            self._parts = parts
            self._write(fit(parts, self._columns() - 1) + ERASE_BELOW + "\r")
            self._hook()

    def end_live(self) -> None:
        """Leave the live line as it stands; what comes next begins a line of its own."""
        with self._lock:
            self._unhook()
            if self._parts:
                self._write(fit(self._parts, self._columns() - 1) + ERASE_BELOW + "\n")
                self._parts = ()

    def last_words(self, message: str) -> None:
        """A line from a thread that is about to end the process, whatever the others are doing."""
        with contextlib.suppress(OSError):
            # Not through the stream: another thread may hold its lock.
            os.write(2, (("\n" if self._parts else "") + message + "\n").encode(errors="backslashreplace"))

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

    def _columns(self) -> int:
        with contextlib.suppress(AttributeError, OSError, ValueError):
            return os.get_terminal_size(sys.stderr.fileno()).columns or DEFAULT_COLUMNS
        return DEFAULT_COLUMNS

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
