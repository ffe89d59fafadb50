"""Memory and file handles of a long run that reports, evaluates and saves all the time."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from tests.faults.harness import Process

FRAMES_PER_UPDATE = 16
SETTINGS = [
    *("--env", "catch8", "--device", "cpu", "--seed", "1", "--num-envs", str(FRAMES_PER_UPDATE)),
    *("--replay-capacity", "20000", "--replay-min-rows", "500", "--log-every-frames", "5000", "--goal-score", "1000"),
    *("--eval-every-frames", "50000", "--eval-episodes", "8", "--final-eval-episodes", "8"),
    *("--checkpoint-every-seconds", "1", "--run-name", "run"),
]


def sample(process, run_dir):
    """Updates so far, MiB of memory and open files, or None while there is no report or if the process has ended."""
    try:
        (_, line) = (run_dir / "metrics.jsonl").read_text().rsplit("\n", 2)[:2]
        status = Path(f"/proc/{process.process.pid}/status").read_text()
        kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
        return json.loads(line)["updates"], kib / 1024, len(os.listdir(f"/proc/{process.process.pid}/fd"))
    except (OSError, ValueError, StopIteration):
        return None


@pytest.mark.slow
@pytest.mark.parametrize("updates", [int(os.environ.get("TFDQN_TEST_UPDATES", 100_000))])
def test_memory_and_file_handles_are_flat(tmp_path, updates):
    process = Process(*SETTINGS, "--total-env-frames", (updates + 2000) * FRAMES_PER_UPDATE, "--logdir", tmp_path)
    samples = []

    def look():
        now = sample(process, tmp_path / "run")
        if now and (not samples or now[0] != samples[-1][0]):
            samples.append(now)

    process.wait_until(look, pause=0.05)
    assert process.finish() == 0, process.errors
    done, memory, files = np.array(samples[len(samples) // 4 :]).T  # the first quarter is for warming up
    growth = 10_000 * np.polyfit(done, memory, 1)[0]
    least = [int(part.min()) for part in np.array_split(files, 4)]  # a save or an evaluation opens some for a moment
    print(
        f"\n{int(done[-1]):,} updates, {len(samples)} samples: {growth:.3f} MiB for 10,000 updates; {memory[0]:.0f} "
        f"MiB after a quarter, {memory[-1]:.0f} at the end; open files {least} by quarters, at most {files.max():.0f}"
    )
    assert done[-1] > updates and len(done) > 50
    assert growth <= 1
    assert len(set(least)) == 1
