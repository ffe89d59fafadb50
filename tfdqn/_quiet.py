"""Keeps TensorFlow's start-up chatter off the screen, unless the user asks for it with TF_CPP_MIN_LOG_LEVEL below 3."""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator

# Notes (I), the header that absl prints above the first line, and the errors that every GPU build of TensorFlow prints
# about registering the same CUDA library twice. Anything else, such as a missing CPU feature, still comes through.
NOISE = r"^WARNING: All log messages before absl::InitializeLog|^I[0-9]{4} [0-9:.]+|Unable to register cu[A-Z]+ factory"
# What the filter's process does. It needs no package, and nothing of what its folder or its variables hold.
_FILTER = f"""
import os, re, sys
is_noise = re.compile({NOISE.encode()!r}).search
for line in sys.stdin.buffer:
    is_noise(line) or os.write(1, line)
"""


def open_standard_streams() -> None:
    """Have nothing lie behind standard input, output and error where they are closed.

    The next file that is opened would take the place, and what C++ code writes to descriptor 2 would land in it.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # opens as the lowest free number, which is this


def silence_tensorflow() -> None:
    """Quieten what TensorFlow's C++ code prints from its import to its first compilation."""
    # Level 3 drops everything but fatal errors, such as `failed call to cuInit` on a machine without a GPU.
    if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "3" and "tensorflow" not in sys.modules:
        sys.meta_path.insert(0, _QuietImport())


class _QuietImport(importlib.abc.MetaPathFinder):
    """Finds `tensorflow` once, as usual, and filters standard error while it is imported.

    No setting reaches the lines that TensorFlow 2.21's libraries write while they are loaded: their logger reads
    TF_CPP_MIN_LOG_LEVEL later.
    """

    def find_spec(self, name, path=None, target=None):
        if name != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module):
                with _filtered_stderr():
                    execute(module)

            spec.loader.exec_module = exec_module
        return spec


@contextlib.contextmanager
def _filtered_stderr() -> Iterator[None]:
    """Send file descriptor 2 through a filter of `NOISE`: C++ code does not write to `sys.stderr`.

    A process of its own, because a library that ends this process while loading must still get its last words out: a
    thread would be ended with it, and does not run while a library is loaded.
    """
    try:
        saved = os.dup(2)
    except OSError:  # no standard error at all
        yield
        return
    try:
        command = [sys.executable or "python3", "-I", "-S", "-c", _FILTER]
        # In a session of its own, or Ctrl-C would end the filter before the program has said goodbye.
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=saved, stderr=subprocess.DEVNULL, start_new_session=True
        )
    except OSError:  # no Python to be found, as in a program that embeds it: chatter is better than silence
        os.close(saved)
        yield
        return
    os.dup2(child.stdin.fileno(), 2)
    child.stdin.close()
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        with contextlib.suppress(subprocess.TimeoutExpired):  # a process started meanwhile may still hold the pipe
            child.wait(timeout=1)
