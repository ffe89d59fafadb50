"""A browser for tests: Chromium without a window, told what to do over a pipe (the Chrome DevTools Protocol)."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WAIT_SECONDS = 120  # for anything; a busy machine is slow
# Chromium reads commands from file 3 and writes to file 4; a process can be given neither by number but so.
_LAUNCHER = """
import os, sys

# First out of each other's way.
reads, writes = (os.dup(os.dup(os.dup(int(end)))) for end in sys.argv[1:3])
os.dup2(reads, 3)
os.dup2(writes, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Page:
    """One page of a browser; `problems` are its errors so far, as text."""

    def __init__(self, commands: int, answers: int):
        self._commands, self._answers = commands, answers
        self._buffer, self._count, self._session = b"", 0, None
        self.problems: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a command of the protocol."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._count:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression, waited for."""
        found = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(f"{script}: {_text(found['exceptionDetails'])}")
        return found["result"].get("value")

    def wait_for(self, script: str) -> Any:
        """The value of an expression once it is true."""
        end = time.monotonic() + WAIT_SECONDS
        while not (value := self.run(script)):
            if time.monotonic() > end:
                raise TimeoutError(f"{script} has not become true; problems of the page: {self.problems}")
            time.sleep(0.02)
        return value

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        self.wait_for(f"location.href === {json.dumps(url)} && document.readyState === 'complete'")

    def size(self, width: int, height: int, is_phone: bool = False) -> None:
        """Show the page in so many CSS pixels; a phone has two of its own for each, and fingers for a mouse."""
        scale = 2 if is_phone else 1
        self.call(
            "Emulation.setDeviceMetricsOverride",
            **{"width": width, "height": height, "deviceScaleFactor": scale, "mobile": is_phone},
        )
        self.call("Emulation.setTouchEmulationEnabled", enabled=is_phone)

    def key(self, code: str, key: str, is_down: bool) -> None:
        self.call("Input.dispatchKeyEvent", type="keyDown" if is_down else "keyUp", code=code, key=key)

    def picture(self, path: Path) -> None:
        """Save what the page shows as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            if not select.select([self._answers], [], [], WAIT_SECONDS)[0]:
                raise TimeoutError("Chromium does not answer")
            part = os.read(self._answers, 2**20)
            if not part:
                raise RuntimeError("Chromium has ended")
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(line)
        self._note(message.get("method"), message.get("params", {}))
        return message

    def _note(self, method: str | None, parameters: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.problems.append(_text(parameters["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning", "assert"):
            self.problems.append(" ".join(str(each.get("value")) for each in parameters["args"]))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            self.problems.append(parameters["entry"]["text"])


def _text(details: dict[str, Any]) -> str:
    return details.get("exception", {}).get("description") or details["text"]


@contextlib.contextmanager
def page(profile: Path) -> Iterator[Page]:
    """A page of a browser of its own, whose settings and stored data lie in the folder `profile`."""
    ends = [*os.pipe(), *os.pipe()]
    theirs_in, ours_out, ours_in, theirs_out = ends
    command = [sys.executable, "-c", _LAUNCHER, str(theirs_in), str(theirs_out), PROGRAM]
    command += ["--headless", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    command += ["--no-first-run", "--disable-background-networking", f"--user-data-dir={profile}"]
    process = subprocess.Popen(
        command, pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(ends.pop(ends.index(theirs_in)))
    os.close(ends.pop(ends.index(theirs_out)))
    try:
        shown = Page(ours_out, ours_in)
        yield shown
        with contextlib.suppress(RuntimeError, OSError, TimeoutError):
            shown._session = None
            shown.call("Browser.close")
    finally:
        for end in ends:
            os.close(end)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
