"""Runs to break, and the comparison of two runs bit by bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np

from tests.faults.nursery import Nursery
from tfdqn.runs import checkpoints

ROOT = Path(__file__).parent.parent.parent

# About twelve seconds of training on two cores, with a checkpoint each second, reports and evaluations in between.
SETTINGS = [
    *("--env", "catch8", "--device", "cpu", "--seed", "5", "--num-envs", "16", "--replay-capacity", "20000"),
    *(
        "--replay-min-rows",
        "500",
        "--eval-every-frames",
        "50000",
        "--eval-episodes",
        "8",
        "--final-eval-episodes",
        "20",
    ),
    *("--log-every-frames", "7000", "--goal-score", "1000", "--run-name", "run", "--checkpoint-every-seconds", "0.5"),
]
FRAMES = ("--total-env-frames", "450000")


def is_timing(tag: str) -> bool:
    return tag.startswith("speed/") or tag.endswith("_seconds")


def reports(run_dir: Path) -> list[dict]:
    """Lines of `metrics.jsonl` without what depends on time; fails on half a line."""
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{tag: value for tag, value in line.items() if not is_timing(tag)} for line in lines]


def events(run_dir: Path) -> dict[tuple[str, str, int], list[bytes]]:
    """All values in the TensorBoard files by folder, tag and step, without those that depend on time."""
    from tensorflow.core.util import event_pb2
    from tensorflow.python.lib.io import tf_record

    found: dict[tuple[str, str, int], list[bytes]] = {}
    for folder in ("train", "eval"):
        for path in sorted((run_dir / folder).iterdir()):
            for record in tf_record.tf_record_iterator(str(path)):
                event = event_pb2.Event.FromString(record)
                for value in event.summary.value:
                    if not is_timing(value.tag) and value.tag != "config":
                        found.setdefault((folder, value.tag, event.step), []).append(
                            value.tensor.SerializeToString(deterministic=True)
                        )
    return found


def weights(path: Path) -> dict[str, np.ndarray]:
    import io

    import h5py

    found = {}
    with zipfile.ZipFile(path) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return found


def state(run_dir: Path) -> dict[str, bytes]:
    """Every tensor of the newest checkpoint and every count that does not depend on time."""
    path = checkpoints._committed(run_dir / checkpoints.FOLDER)[0]
    manifest = checkpoints._verify(path)
    data = (path / checkpoints.DATA).read_bytes()
    found = {t["name"]: data[t["offset"] : t["offset"] + t["bytes"]] for t in manifest["tensors"]}
    counts = {k: v for k, v in manifest["progress"].items() if "second" not in k and k != "rounds"}
    return {**found, "counts": json.dumps([counts, manifest["updates"], manifest["env_frames"]]).encode()}


def differences(first: Path, second: Path) -> list[str]:
    """What is not bit-equal between two finished runs, or written twice in the second; empty if all is well."""
    found = []
    for name in ("model.keras", "final.keras"):
        ours, theirs = weights(first / name), weights(second / name)
        found += [f"{name}: {k}" for k in sorted(ours.keys() | theirs.keys()) if not _equal(ours.get(k), theirs.get(k))]
    ours, theirs = state(first), state(second)
    found += [f"checkpoint: {k}" for k in sorted(ours.keys() | theirs.keys()) if ours.get(k) != theirs.get(k)]
    if reports(first) != reports(second):
        found.append("metrics.jsonl")
    ours, theirs = events(first), events(second)
    found += [f"events: {k}" for k in sorted(ours.keys() | theirs.keys()) if ours.get(k) != theirs.get(k)]
    found += [f"events written {len(v)} times: {k}" for k, v in theirs.items() if len(v) != 1]
    return found


def _equal(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    return a is not None and b is not None and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def committed(run_dir: Path) -> list[str]:
    folder = run_dir / checkpoints.FOLDER
    return [path.name for path in checkpoints._committed(folder)] if folder.is_dir() else []


def newest(run_dir: Path) -> dict:
    """The newest checkpoint's manifest."""
    return json.loads((checkpoints._committed(run_dir / checkpoints.FOLDER)[0] / checkpoints.MANIFEST).read_text())


def partial(run_dir: Path) -> list[Path]:
    """Checkpoints being written, or left half written."""
    return list((run_dir / checkpoints.FOLDER).glob(f"{checkpoints.PARTIAL}*"))


class Process:
    """`python -m tfdqn.train` in a process of its own, or in a fork of `nursery`."""

    def __init__(self, *arguments: object, nursery: Nursery | None = None):
        words = [str(argument) for argument in arguments]
        self.begin = time.monotonic()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (a pipe can fill, and could be read only at the end)
        if nursery:
            self.process = nursery.start(words, self._errors)
        else:
            command = [sys.executable, "-m", "tfdqn.train", *words]
            self.process = subprocess.Popen(
                command, cwd=ROOT, stdout=subprocess.PIPE, stderr=self._errors, text=True, env=os.environ
            )
        self.output = ""

    @property
    def errors(self) -> str:
        """What it has said so far."""
        size = os.fstat(self._errors.fileno()).st_size
        return os.pread(self._errors.fileno(), size, 0).decode(errors="replace")  # leaves its place in the file alone

    def wait_until(self, condition, timeout: float = 3600, pause: float = 0.01) -> bool:
        """Whether `condition` came true before the process ended."""
        end = time.monotonic() + timeout
        while self.process.poll() is None and time.monotonic() < end:
            if condition():
                return True
            time.sleep(pause)
        return condition()

    def wait_for(self, text: str) -> bool:
        """Whether it said `text` before it ended."""
        return self.wait_until(lambda: text in self.errors)

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.finish()

    def finish(self, timeout: float = 3600) -> int:
        try:
            self.output, _ = self.process.communicate(timeout=timeout)
        except BaseException:
            self.process.kill()  # no test leaves a run behind
            raise
        return self.process.returncode


def start(folder: Path, *arguments: object, nursery: Nursery | None = None) -> Process:
    """A new run in `folder`/run."""
    return Process(*SETTINGS, *(arguments or FRAMES), "--logdir", folder, nursery=nursery)


def resume(folder: Path, *arguments: object, nursery: Nursery | None = None) -> Process:
    """Go on with it."""
    return Process("--resume", folder / "run", *arguments, nursery=nursery)
