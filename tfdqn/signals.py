"""Ctrl-C and SIGTERM: the first lets the run save what it has, a second ends the process at once."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager
from typing import Any

NUMBERS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Watches for signals while it is entered.

    Python runs its handlers only between two steps of its own, and compiling a program is one step of many seconds. So
    the bytes that Python's C handler writes to a pipe are read by a thread, which can end the process in the middle of
    anything. Nothing on disk minds: checkpoints and models appear by being renamed.

    Attributes:
      signal: the signal that asked to stop, or None.
      hint: what to say when the process ends at once, such as how to resume.
    """

    def __init__(self):
        self.signal: int | None = None
        self.hint = "nothing was saved"
        self._waits = False
        self._lock = threading.Lock()

    def __enter__(self) -> StopRequest:
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._write_end, False)
        # A handler must exist for Python to write to the pipe; what follows from a signal is decided in the thread.
        self._handlers = {number: signal.signal(number, lambda *_: None) for number in NUMBERS}
        self._old_wakeup = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._watch, name="signals", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        signal.set_wakeup_fd(self._old_wakeup)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        os.write(self._write_end, b"\0")
        self._thread.join()
        os.close(self._read_end)
        os.close(self._write_end)

    @contextmanager
    def waiting(self):
        """Inside, a first signal is only noted in `signal`; outside it ends the process."""
        with self._lock:
            self._waits = True
        try:
            yield
        finally:
            with self._lock:
                self._waits = False

    def _watch(self) -> None:
        while True:
            number = os.read(self._read_end, 1)[0]
            if number == 0:
                return
            if number not in NUMBERS:
                continue
            with self._lock:
                if self._waits and self.signal is None:
                    self.signal = number
                    continue
                # Not `print`: the main thread may hold the stream's lock.
                os.write(2, f"\nstopped by {signal.Signals(number).name}; {self.hint}\n".encode())
                os._exit(128 + number)
