"""One run, broken again and again: where each break fell, what it cost, and whether the end is the unbroken run's."""

from __future__ import annotations

import collections
import errno
import json
import os
import random
import signal
import statistics
import time
from pathlib import Path
from typing import Any

from tests.faults.harness import Process, committed, differences, newest, partial
from tests.faults.nursery import Nursery
from tfdqn.runs import checkpoints

EVAL_EVERY = 150_000
# Checkpoints and reports come so often that both are hit often; the learning rate is so low that the best agent goes on
# changing. Every evaluation falls on a report, which tells when one is going on.
SETTINGS = [
    *("--env", "catch8", "--device", "cpu", "--seed", "5", "--num-envs", "16", "--learning-rate", "3e-6"),
    *("--replay-capacity", "2000", "--replay-min-rows", "500", "--log-every-frames", "5000", "--goal-score", "1000"),
    *("--eval-every-frames", str(EVAL_EVERY), "--eval-episodes", "8", "--final-eval-episodes", "20"),
    *("--checkpoint-every-seconds", "0.5", "--run-name", "run"),
]
ENDLESS = 10**9  # frames; a chain says where its run ends only when it has been broken often enough
COMPILED = "training program compiled"


class Chain:
    """A run in `folder`, started and broken until `end` lets it finish.

    Attributes:
      places: how often it was broken, by how and where.
      lost_updates, lost_seconds: of training, with each break there.
      exit_seconds: from a signal to the end of the process.
    """

    def __init__(self, folder: Path, seed: object, nursery: Nursery | None = None):
        self.folder, self.run_dir, self.dice = folder, folder / "run", random.Random(f"chain {seed}")
        self.nursery, self.frames = nursery, ENDLESS
        self.places: collections.Counter[str] = collections.Counter()
        self.lost_updates: list[int] = []
        self.lost_seconds: list[float] = []
        self.exit_seconds: list[float] = []
        self.process = Process(*SETTINGS, "--total-env-frames", ENDLESS, "--logdir", folder, nursery=nursery)
        assert self.process.wait_until(lambda: committed(self.run_dir)), self.process.errors
        self.startup_seconds = time.monotonic() - self.process.begin

    def kill_anywhere(self) -> None:
        """Kill while it starts, restores and compiles (two of five) or in what comes after, and go on."""
        if self.dice.random() < 0.4:
            time.sleep(self.dice.uniform(0, self.startup_seconds))
        else:
            self._until_compiled()
            self.startup_seconds = time.monotonic() - self.process.begin
            time.sleep(self.dice.uniform(0, 3))
        self._kill("killed anywhere")

    def kill_in_a_save(self) -> None:
        """Kill as it begins to write a checkpoint, or some milliseconds later, and go on."""
        self._until_newer()  # or it would never get any further
        self._until_saving()
        time.sleep(self.dice.choice((0, self.dice.uniform(0, 0.01))))
        self._kill("killed at a save")

    def stop(self) -> None:
        """SIGINT or SIGTERM in training: nothing may be lost. Then go on."""
        self._until_compiled()
        time.sleep(self.dice.uniform(0, 2))
        number, place, sent = self.dice.choice((signal.SIGINT, signal.SIGTERM)), self._place(), time.monotonic()
        self.process.send(number)
        assert self.process.finish() == 128 + number, self.process.errors
        self.exit_seconds.append(time.monotonic() - sent)
        assert "Traceback" not in self.process.errors and "--resume" in self.process.errors, self.process.errors
        assert self._lost() == (0, 0.0)
        self.places[f"stopped, {place}"] += 1
        self._resume()

    def damage(self) -> None:
        """Kill, flip a bit of the newest checkpoint, and go on from the one before."""
        self._until_newer()
        self.process.kill()
        self.places["killed and damaged"] += 1
        latest, before = committed(self.run_dir)[:2]
        path = self.run_dir / checkpoints.FOLDER / latest / self.dice.choice((checkpoints.DATA, checkpoints.MANIFEST))
        data = bytearray(path.read_bytes())
        data[self.dice.randrange(len(data))] ^= 1 << self.dice.randrange(8)
        path.write_bytes(data)
        self._resume()
        assert self.process.wait_for("going on from"), self.process.errors
        assert f"checkpoint {latest} is not whole" in self.process.errors
        assert f"checkpoints/{before}:" in self.process.errors

    def fill_the_disk(self) -> None:
        """Fill a small disk, wait until a checkpoint has failed, kill, free the space, and go on."""
        self._until_compiled()
        filler = self.folder / "filler"
        with open(filler, "wb", buffering=0) as file:
            while os.statvfs(self.folder).f_bavail * os.statvfs(self.folder).f_bsize > 2**20:
                file.write(bytes(2**16))
        assert self.process.wait_for("no checkpoint made"), self.process.errors
        assert os.strerror(errno.ENOSPC) in self.process.errors or "are free" in self.process.errors
        self._kill("killed on a full disk", clear=filler)

    def end(self) -> list[str]:
        """Let the run end soon, and what is different from a run that nothing has ever broken."""
        self.process.kill()
        self.frames = newest(self.run_dir)["env_frames"] + 50_000
        self._resume("--total-env-frames", self.frames)
        self.process.wait_until(lambda: newest(self.run_dir)["env_frames"] >= self.frames)
        time.sleep(self.dice.uniform(0, 1))
        if self.process.process.poll() is None:
            self._kill("killed anywhere")
        assert self.process.finish() == 0, self.process.errors
        assert not partial(self.run_dir) and len(committed(self.run_dir)) == checkpoints.KEPT
        arguments = (*SETTINGS, "--total-env-frames", self.frames, "--logdir", self.folder / "unbroken")
        unbroken = Process(*arguments, nursery=self.nursery)
        assert unbroken.finish() == 0, unbroken.errors
        return differences(self.folder / "unbroken" / "run", self.run_dir)

    def _until_compiled(self) -> None:
        assert self.process.wait_for(COMPILED), self.process.errors

    def _until_newer(self) -> None:
        before = committed(self.run_dir)

        def is_newer() -> bool:
            now = committed(self.run_dir)
            return now != before and len(now) >= checkpoints.KEPT

        assert self.process.wait_until(is_newer), self.process.errors

    def _until_saving(self) -> None:
        assert self.process.wait_until(lambda: partial(self.run_dir), pause=0.0005), self.process.errors

    def _kill(self, how: str, clear: Path | None = None) -> None:
        self.process.kill()
        assert self.process.process.returncode == -signal.SIGKILL, self.process.errors
        place = self._place()
        self.places[f"{how}, {place}"] += 1
        if place in ("training", "saving", "evaluating") and clear is None:
            updates, seconds = self._lost()
            self.lost_updates.append(updates)
            self.lost_seconds.append(seconds)
        if clear:
            clear.unlink()
        self._resume()

    def _resume(self, *arguments: object) -> None:
        self.process = Process("--resume", self.run_dir, *arguments, nursery=self.nursery)

    def _lines(self) -> list[dict[str, Any]]:
        """The whole lines of `metrics.jsonl`."""
        text = (self.run_dir / "metrics.jsonl").read_text()
        return [json.loads(line) for line in text.split("\n")[:-1]]

    def _place(self) -> str:
        """Where in a run the process is, or was when it was killed, from what it has said and written."""
        said = self.process.errors
        if COMPILED not in said and "nothing more to train" not in said:
            return "compiling" if "compiling" in said else "building" if "going on from" in said else "starting"
        if partial(self.run_dir):
            return "saving"
        if newest(self.run_dir)["env_frames"] >= self.frames:
            return "ending"
        lines = self._lines()
        evaluated = [line["env_frames"] for line in lines if "eval/score_mean" in line]
        is_due = lines and lines[-1]["env_frames"] // EVAL_EVERY > (evaluated or [0])[-1] // EVAL_EVERY
        return "evaluating" if is_due else "training"

    def _lost(self) -> tuple[int, float]:
        """Updates and seconds between the newest checkpoint and the last report, which is all that can be known."""
        kept, lines = newest(self.run_dir), self._lines()
        updates, seconds = (lines[-1]["updates"], lines[-1]["wall_seconds"]) if lines else (0, 0.0)
        return max(0, updates - kept["updates"]), max(0.0, seconds - kept["progress"]["wall_seconds"])

    def __str__(self) -> str:
        text = (
            f"{sum(self.places.values())} breaks survived: {dict(sorted(self.places.items()))}; {self.frames:,} frames"
        )
        for name, unit in (("lost_updates", "updates lost"), ("lost_seconds", "s lost"), ("exit_seconds", "s to exit")):
            values = getattr(self, name)
            if values:
                text += f"; {unit}: median {statistics.median(values):.3g}, max {max(values):.3g}, {len(values)} times"
        return text
