"""Runs as forks of one process that has imported TensorFlow, for tests that start hundreds.

A fork is then a process like any other: it has its own memory, files and locks, and can be stopped and killed. Only the
import, over half of what a short run costs, is left out.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parent.parent.parent


class Nursery:
    """Starts `tfdqn.train` in forks; to be closed when all have ended."""

    def __init__(self, environment: dict[str, str]):
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.nursery"],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, *request: object) -> int | None:
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())

    def start(self, arguments: Sequence[str], errors: IO) -> Fork:
        return Fork(self, self.ask("start", list(arguments), f"/proc/{os.getpid()}/fd/{errors.fileno()}"))

    def close(self) -> None:
        self._server.communicate()


class Fork:
    """As much of `subprocess.Popen` as the tests use."""

    def __init__(self, nursery: Nursery, pid: int):
        self.nursery, self.pid, self.returncode, self._asked = nursery, pid, None, 0.0

    def poll(self) -> int | None:
        if self.returncode is None and time.monotonic() > self._asked + 0.02:  # each question takes two processes' time
            self.returncode, self._asked = self.nursery.ask("poll", self.pid), time.monotonic()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:  # not waited for yet, so the number is still its own
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float) -> tuple[str, None]:
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("fork", timeout)
            time.sleep(0.02)
        return "", None


def serve() -> None:
    from tfdqn import cli, train
    from tfdqn.programs import (
        training,  # noqa: F401 (what a run imports later)
    )

    for line in iter(sys.stdin.readline, ""):
        what, *rest = json.loads(line)
        if what == "poll":
            pid, status = os.waitpid(rest[0], os.WNOHANG)
            print(json.dumps(os.waitstatus_to_exitcode(status) if pid else None), flush=True)
            continue
        arguments, errors = rest
        pid = os.fork()
        if pid:
            print(json.dumps(pid), flush=True)
            continue
        nothing = os.open(os.devnull, os.O_RDWR)
        for number, descriptor in enumerate((nothing, nothing, os.open(errors, os.O_WRONLY | os.O_APPEND))):
            os.dup2(descriptor, number)
        cli.run(train.main, arguments)


if __name__ == "__main__":
    serve()
