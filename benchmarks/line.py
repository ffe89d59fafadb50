"""A process that does what it is asked: one JSON object a line goes in, one comes out. Standard library only."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


class WorkerFailed(Exception):
    """A worker could not do what it was asked; the message is its own.

    Attributes:
      worker: which one.
      is_gone: its process has ended, and it can be asked nothing more.
    """

    def __init__(self, worker: Any, message: str, *, is_gone: bool = False):
        super().__init__(message)
        self.worker, self.is_gone = worker, is_gone


class Process:
    """The asking end of the line.

    Args:
      command: what to start; it has to call `answer`.
      environment: variables on top of those of this process.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]):
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
            encoding="utf-8",
        )

    def ask(self, **request: Any) -> Any:
        """Send one request and wait for its answer.

        Raises:
          WorkerFailed: it went wrong over there.
        """
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise WorkerFailed(self, f"the process ended with code {self._process.wait()}", is_gone=True)
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerFailed(self, answer["error"])
        return answer["value"]

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: Any) -> None:
        with contextlib.suppress(BrokenPipeError):  # it is gone already
            self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def answer(handlers: Mapping[str, Callable[..., Any]]) -> None:
    """Answer requests until the line is closed: `do` names the handler, all else are its arguments."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the asker's; this ends when the line is closed
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever is printed meanwhile is no answer
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = {"value": handlers[request.pop("do")](**request)}
        except Exception as error:  # whatever an old tree or a peer lacks
            reply = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
        answers.write(json.dumps(reply) + "\n")
        answers.flush()
