"""What takes a fresh process: `compile`, `memory` and `reports`. `python -m benchmarks.process_case '{request}'` is it.

A second compilation in the same process is not the first, a peak only ever rises, and a preset's number of threads is
settled before TensorFlow starts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import trees
from tfdqn.errors import UserError

if TYPE_CHECKING:
    from tfdqn.config import Config

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 50  # played and learnt before the peak is read


class ProcessFailed(Exception):
    """A process ended without a result; the message is the last line it wrote."""


def measure(case: str, settings: dict[str, Any], device: str, quick: bool = False) -> dict[str, Any]:
    """Run one process and return what it found: seconds, bytes, or ratios of times; and its threads.

    Raises:
      UserError: it does not fit into this machine.
      ProcessFailed: it went wrong.
    """
    request = {"case": case, "settings": settings, "device": device, "quick": quick}
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    result = subprocess.run(
        [sys.executable, "-P", "-m", "benchmarks.process_case", json.dumps(request)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        encoding="utf-8",
    )
    if result.returncode:
        lines = result.stderr.strip().splitlines() or [f"exit code {result.returncode}"]
        raise ProcessFailed(lines[-1])
    found = json.loads(result.stdout.splitlines()[-1])
    if "does_not_fit" in found:
        raise UserError(found["does_not_fit"])
    return found


def _probe(request: dict[str, Any]) -> dict[str, Any]:
    """What a process answers. That a preset does not fit is an answer, too, and no fault of what is measured."""
    import tensorflow as tf

    from benchmarks import results

    try:
        config, device = _start(request)
    except UserError as error:
        return {"does_not_fit": str(error)}
    probe = _reports if request["case"] == "reports" else _needs
    try:
        return probe(request, config, device) | {"threads": results.threads()}
    except tf.errors.ResourceExhaustedError:
        return {"does_not_fit": "does not fit into the device's memory"}


def _start(request: dict[str, Any]) -> tuple[Config, str]:
    """The preset as it is on the device, with its own number of threads, whatever the one that started this has.

    Raises:
      UserError: its replay does not fit into memory.
    """
    from tfdqn import config as configuration
    from tfdqn.runtime import devices

    on_gpu = "GPU" in request["device"]
    config = configuration.resolve(request["settings"], on_gpu=on_gpu)
    if config.threads:
        os.environ.pop("TF_NUM_INTRAOP_THREADS", None)
    device = devices.choose_device("gpu" if on_gpu else "cpu", False, config.threads)
    if not on_gpu:
        trees.check_memory(config)
    return config, device


def _needs(request: dict[str, Any], config: Config, device: str) -> dict[str, float]:
    """Seconds to the first chunk, and peak bytes."""
    import tensorflow as tf

    from benchmarks import operations
    from benchmarks.network_cases import SLOTS
    from benchmarks.replay_case import fill
    from tfdqn.programs.training import Trainer

    tf.zeros([]).numpy()  # starts the device
    before_bytes = _peak_host_bytes()
    start = time.perf_counter()
    trainer = Trainer(config, device)
    carry = trainer.run_chunk(trainer.initial_carry(), 0, 0)
    int(carry.env_frames)
    found = {"seconds": time.perf_counter() - start}
    if request["case"] == "compile":
        return found
    fill(trainer.replay, trainer.replay.capacity, device)
    int(trainer.run_chunk(carry, ROUNDS, 2**62).env_frames)
    weights = operations.learn_bytes(trainer.agent.online, SLOTS[config.optimizer]) / 2
    held = trees.replay_bytes(config) + weights + 4 * trainer.agent.online.count_params()  # and the target network
    found |= {"host_bytes": _peak_host_bytes(), "host_floor_bytes": before_bytes + ("GPU" not in device) * held}
    if "GPU" in device:
        peak = tf.config.experimental.get_memory_info("GPU:0")["peak"]
        found |= {"device_bytes": peak, "device_floor_bytes": held}
    return found


def _reports(request: dict[str, Any], config: Config, device: str) -> dict[str, list[float]]:
    """Times of a run that reports as its preset says over those of one that does not, in turn; see `RunBench`."""
    from benchmarks import timing
    from benchmarks.loop_case import RunBench

    with tempfile.TemporaryDirectory() as folder:
        benches = {name: RunBench(config, name == "with", Path(folder) / name, device) for name in ("with", "without")}
        for bench in benches.values():
            bench.check()
        effort = timing.QUICK if request["quick"] else timing.Effort(repeats=15, repeat_seconds=1.0)
        samples = timing.interleave(benches, effort)
    rates = {name: [one.work["env_frames"] / one.seconds for one in found] for name, found in samples.items()}
    return {"ratios": [off / on for on, off in zip(rates["with"], rates["without"], strict=True)]}


def _peak_host_bytes() -> int:
    """The largest resident set of this process so far."""
    try:
        with open("/proc/self/status", encoding="utf-8") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        pass  # not Linux, where `getrusage` would begin at what the parent held when it started this process
    import resource  # not on every system, and only needed here

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    print(json.dumps(_probe(json.loads(sys.argv[1]))))
