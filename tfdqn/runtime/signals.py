"""Ctrl-C, SIGTERM and SIGHUP: the first lets the run save what it has, a later one ends the process at once."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import contextmanager
from typing import Any

from tfdqn import console

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# A scheduler and a terminal may both tell of one wish to stop, or one of them twice.
SAME_WISH_SECONDS = 2.0


class StopRequest:
    """Watches for signals while it is entered, in the main thread; in another thread nothing comes.

    Python runs its handlers only between two steps of its own, and compiling a program is one step of many seconds. So
    the bytes that Python's C handler writes to a pipe are read by a thread, which can end the process in the middle of
    anything. Nothing on disk minds: checkpoints and models appear by being renamed.

    Args:
      is_guest: the process is someone else's, such as a notebook's, and is never ended here: a later Ctrl-C raises a
        `KeyboardInterrupt`, or whatever that process has it do. The other signals are passed on to it at the exit,
        when all is saved.

    Attributes:
      signal: the signal that asked to stop, or None.
      hint: what to say when the process ends at once, such as how to resume.
    """

    def __init__(self, is_guest: bool = False):
        self._is_guest = is_guest
        self._handlers: dict[int, Any] = {}
        self.signal: int | None = None
        self.hint = "nothing was saved"
        self._waits = False
        self._first_seconds = 0.0
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is not threading.main_thread():
            return self  # only the main thread may set handlers: signals are for whoever has set them
        # SIGHUP stays ignored under nohup.
        numbers = [n for n in NUMBERS if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]
        if self._is_guest:
            for number in numbers:
                self._handlers[number] = signal.signal(number, self._note)
            return self
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._write_end, False)
        # A handler must exist for Python to write to the pipe; what follows from a signal is decided in the thread.
        self._handlers = {number: signal.signal(number, lambda *_: None) for number in numbers}
        self._old_wakeup = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._watch, name="signals", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self._thread is not None:
            signal.set_wakeup_fd(self._old_wakeup)
        for number, handler in self._handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: not set from Python
        if self._thread is not None:
            os.write(self._write_end, b"\0")
            self._thread.join()
            os.close(self._read_end)
            os.close(self._write_end)
        elif self._handlers and self.signal not in (None, signal.SIGINT):
            os.kill(os.getpid(), self.signal)

    @contextmanager
    def waiting(self):
        """Inside, a first signal is only noted in `signal`; outside it ends the process."""
        with self._lock:
            before, self._waits = self._waits, True
        try:
            yield
        finally:
            with self._lock:
                self._waits = before

    def _note(self, number: int, frame: Any) -> None:
        """A guest's handler. Python runs it between two of its steps, in the main thread: it must take no lock."""
        now = time.monotonic()
        if self._waits and self.signal is None:
            self.signal, self._first_seconds = number, now
            return
        if self.signal is not None and now - self._first_seconds < SAME_WISH_SECONDS:
            return
        former = self._handlers.get(number)
        if callable(former):
            former(number, frame)
        elif former != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def _watch(self) -> None:
        while True:
            number = os.read(self._read_end, 1)[0]
            if number == 0:
                return
            if number not in self._handlers:
                continue
            now = time.monotonic()
            with self._lock:
                if self._waits and self.signal is None:
                    self.signal, self._first_seconds = number, now
                    continue
                if self.signal is not None and now - self._first_seconds < SAME_WISH_SECONDS:
                    continue
                console.last_words(f"stopped by {signal.Signals(number).name}; {self.hint}")
                os._exit(128 + number)
