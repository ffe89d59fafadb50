"""Where everything lives: the choice of a device, and what TensorFlow and XLA must be told before they start."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tfdqn import console
from tfdqn.errors import UserError

# Deterministic kernels, and the same ones in every process: XLA otherwise times several and keeps the fastest, which
# may be another one the next time. (TensorFlow 2.21; XLA ends the process where it does not know a flag.)
DETERMINISTIC_XLA_FLAG = "--xla_gpu_deterministic_ops=true"
# Every operation of a program by its name in a profiler's trace. On a CPU it doubles the time of small programs.
TRACE_XLA_FLAG = "--xla_cpu_enable_xprof_traceme=true"
# CUDA graphs of loops and conditions, too: a whole chunk becomes one graph where XLA can, and none of its kernels waits
# for the host. (TensorFlow 2.21 knows the flag; XLA leaves it out where the driver is too old for it.)
GRAPHS_XLA_FLAG = "--xla_gpu_enable_command_buffer=+WHILE,+CONDITIONAL"
# Threads of its own for each part of a CPU (TensorFlow 2.21). Otherwise all parts share them, and with two parts of a
# population those hand each other the pieces of programs which one thread runs faster.
OWN_THREADS_VARIABLE = "TF_OVERRIDE_GLOBAL_THREADPOOL"


def add_xla_flag(flag: str, reason: str) -> None:
    """Have XLA read a flag beside what the user gave it; call it before TensorFlow is imported.

    Raises:
      UserError: XLA_FLAGS names a file of flags, to which none can be added; `reason` is whose flag it is.
    """
    flags = os.environ.get("XLA_FLAGS", "").strip()
    if flags and not flags.startswith("-"):
        raise UserError(f"{reason}: XLA_FLAGS names a file, {flags}; put the flags themselves into XLA_FLAGS")
    # The last one counts where a flag is given twice.
    os.environ["XLA_FLAGS"] = f"{flags} {flag}".strip()


def make_deterministic() -> None:
    """Have the same program give the same bits in every run, on a GPU too; call it before TensorFlow is imported."""
    add_xla_flag(DETERMINISTIC_XLA_FLAG, "--deterministic")

    import tensorflow as tf

    # For what runs outside XLA; a random operation without a seed raises from now on.
    tf.config.experimental.enable_op_determinism()


def is_gpu(wanted: str) -> bool:
    """Whether a `--device` asks for a GPU: "gpu", or "gpu:1" for the second."""
    return str(wanted).split(":")[0] == "gpu"


def choose_device(
    wanted: str,
    deterministic: bool = False,
    threads: int = 0,
    profile: bool = False,
    replicas: Callable[[int], int] = lambda gpus: 1,
    insists: bool = True,
) -> str:
    """The TensorFlow device for "auto", "cpu" or "gpu"; imports TensorFlow, unless "cpu" and nothing more is asked for.

    Of several GPUs TensorFlow sees the chosen ones alone, and takes of their memory what is needed and no more: others
    may use the rest, and the other GPUs. (The user's TF_FORCE_GPU_ALLOW_GROWTH=false wins.)

    Args:
      wanted: as `--device`.
      deterministic: as `--deterministic`.
      threads: as `--threads`, of each device; TF_NUM_INTRAOP_THREADS wins where the user has set it.
      profile: a trace is to be taken, in which a CPU's operations shall have their names.
      replicas: from the number of GPUs that there are, that of devices that are needed: the first is returned, and the
        others have the next numbers. Of a CPU they are parts of it that TensorFlow counts apart.
      insists: parts of a CPU must be as many; else a process that has begun to compute keeps those that it has.

    Raises:
      UserError: "gpu" was asked for and there is none, or not as many; this process computes on another GPU already; or
        `add_xla_flag` has raised it.
    """
    if wanted == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # leave the GPU's memory to others
    if profile:
        add_xla_flag(TRACE_XLA_FLAG, "--profile")
    if deterministic:
        make_deterministic()
    if wanted == "cpu":
        return _cpus(replicas(0), threads, insists)
    if has_driver():
        _ask_for_graphs()
    config = _tensorflow_config()
    gpus = config.list_physical_devices("GPU")
    if gpus:
        _use_threads(threads)
        return _take(config, gpus, wanted, replicas(len(_free(config, gpus)) if wanted == "gpu" else 1))
    reason = _why_no_gpu()
    if is_gpu(wanted):
        because = f" ({reason})" if reason else ""
        raise UserError(f"--device {wanted}: TensorFlow sees no GPU on this machine{because}; use --device cpu or auto")
    if reason and not _hidden():
        console.say(
            f"tfdqn: warning: this machine has an NVIDIA driver, but TensorFlow sees no GPU ({reason}); going on on "
            "the CPU, as --device cpu does without this line"
        )
    return _cpus(replicas(0), threads, insists)


def count_gpus() -> int:
    """How many GPUs this process uses."""
    return len(_tensorflow_config().get_visible_devices("GPU"))


def count_cpus() -> int:
    """How many CPUs TensorFlow counts, from now on: the parts of the one that there is."""
    return len(_tensorflow_config().list_logical_devices("CPU"))


def count_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _free(config: Any, gpus: list[Any]) -> list[Any]:
    """The GPUs that this process can use: all, unless it has begun to compute with some of them."""
    with contextlib.suppress(RuntimeError):
        config.set_visible_devices(gpus, "GPU")
    return config.get_visible_devices("GPU")


def _use_threads(count: int) -> None:
    """Have TensorFlow use so many threads of a CPU, which it reads when it starts its devices; 0 leaves it to it."""
    if count:
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(count))


def _cpus(count: int, threads: int, insists: bool) -> str:
    """Have TensorFlow count so many CPUs with so many threads each, and name the first."""
    if count == 1:
        _use_threads(threads)
        return "/CPU:0"
    config = _tensorflow_config()
    (cpu,) = config.list_physical_devices("CPU")
    try:
        config.set_logical_device_configuration(cpu, [config.LogicalDeviceConfiguration()] * count)
    except RuntimeError:  # whoever runs this process has begun to compute in it
        found = len(config.list_logical_devices("CPU"))
        if found < count and insists:
            raise UserError(
                f"--replicas {count}: this process has begun to compute with {found}; use that, or another process"
            ) from None
        return "/CPU:0"  # what TensorFlow would read below is of no use to it any more, but child processes would
    _use_threads(threads or max(count_cores() // count, 1))
    os.environ.setdefault(OWN_THREADS_VARIABLE, "1")
    return "/CPU:0"


def _ask_for_graphs() -> None:
    """Have XLA make CUDA graphs of loops, unless the user has said what it makes of what, or named a file of flags."""
    flags = os.environ.get("XLA_FLAGS", "").strip()
    if GRAPHS_XLA_FLAG.partition("=")[0] not in flags and (not flags or flags.startswith("-")):
        add_xla_flag(GRAPHS_XLA_FLAG, "--device")


def _tensorflow_config() -> Any:
    import tensorflow as tf

    return tf.config


def _take(config: Any, gpus: list[Any], wanted: str, replicas: int) -> str:
    """Have TensorFlow see one GPU alone, or as many as are needed, and name the first as TensorFlow then does."""
    if replicas > 1:
        return _take_several(config, gpus, wanted, replicas)
    number = int(wanted.partition(":")[2] or 0)
    if number >= len(gpus):
        names = ", ".join(f"gpu:{i}" for i in range(len(gpus)))
        count = f"{len(gpus)} GPU" + "s" * (len(gpus) > 1)
        raise UserError(f"--device {wanted}: TensorFlow sees {count} on this machine; use {names}")
    gpu = gpus[number]
    try:
        config.set_visible_devices([gpu], "GPU")
        config.experimental.set_memory_growth(gpu, True)
    except RuntimeError:  # whoever runs this process has begun to compute in it
        pass
    visible = config.get_visible_devices("GPU")
    if gpu not in visible:
        others = ", ".join(f"gpu:{gpus.index(each)}" for each in visible) or "no GPU"
        raise UserError(
            f"--device {wanted}: this process has begun to compute with {others}; use that, or another process"
        )
    return f"/GPU:{visible.index(gpu)}"


def _take_several(config: Any, gpus: list[Any], wanted: str, count: int) -> str:
    if wanted not in ("auto", "gpu"):
        raise UserError(f"--device {wanted}: is one GPU, for --replicas {count}; use --device gpu")
    if count > len(gpus):
        raise UserError(f"--replicas {count}: TensorFlow sees fewer GPUs on this machine; use at most {len(gpus)}")
    try:
        config.set_visible_devices(gpus[:count], "GPU")
        for gpu in gpus[:count]:
            config.experimental.set_memory_growth(gpu, True)
    except RuntimeError:  # whoever runs this process has begun to compute in it
        pass
    if config.get_visible_devices("GPU")[:count] != gpus[:count]:
        raise UserError(f"--replicas {count}: this process has begun to compute with other GPUs; use another process")
    return "/GPU:0"


# What tells that the machine has, or had, an NVIDIA GPU.
_DRIVER_FILES = ("proc/driver/nvidia", "dev/nvidia0", "dev/nvidiactl")
# TensorFlow's lines about it that say most, the first the most; each up to where it begins to give advice.
_REASONS = (
    r"failed call to cuInit: .*",
    r"[^.]*driver version is insufficient[^.]*",
    r"Could not load dynamic library '[^']+'",
    r"Cannot dlopen some GPU libraries",
    r"Ignoring visible gpu device .*",
    r"Could not find cuda drivers on your machine",
    r"Error loading CUDA libraries",
)
_LINE = re.compile(r"^[IWEF]\d{4} \S+\s+\d+ \S+\] (.*)$", re.MULTILINE)
_LONGEST_REASON = 200
_ASK = (
    "import tensorflow as tf; "
    "print('' if tf.test.is_built_with_cuda() else 'this TensorFlow is built without CUDA', flush=True); "
    "tf.config.list_physical_devices('GPU')"
)


def has_driver(root: Path = Path("/")) -> bool:
    """Whether an NVIDIA driver is installed on this machine."""
    return any((root / name).exists() for name in _DRIVER_FILES) or shutil.which("nvidia-smi") is not None


def _hidden() -> bool:
    """Whether whoever began this process has hidden all GPUs from it."""
    value = os.environ.get("CUDA_VISIBLE_DEVICES")
    return value is not None and (not value.strip() or value.strip().startswith("-"))


def _why_no_gpu() -> str:
    """Why TensorFlow sees no GPU, for people; empty where there is no driver, and so nothing to be expected.

    Another process is asked: TensorFlow writes the reason where nobody could read it back, and not at all in this one,
    which was told to be quiet (see `tfdqn._quiet`; it reads that but once).
    """
    if _hidden():
        return f"CUDA_VISIBLE_DEVICES is {os.environ['CUDA_VISIBLE_DEVICES']!r}"
    if not has_driver():
        return ""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "0"}
    command = [sys.executable, "-P", "-c", _ASK]
    try:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return "it does not say why"
    said, chatter = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
    return said.strip() or reason_in(chatter)


def reason_in(chatter: str) -> str:
    """What TensorFlow's start-up messages say about GPUs that cannot be used: one line, at most two of its reasons."""
    lines = [line.strip() for line in _LINE.findall(chatter)]
    found = list(dict.fromkeys(_matches(lines)))[:2]
    if not found:  # another version says it in other words: its last warning or error
        found = re.findall(r"(?m)^[WE]\d{4} \S+\s+\d+ \S+\] (.*)$", chatter)[-1:] or ["it does not say why"]
    return "; ".join(reason[:_LONGEST_REASON].strip() for reason in found)


def _matches(lines: list[str]) -> Iterator[str]:
    for reason in _REASONS:
        for line in lines:
            match = re.search(reason, line)
            if match:
                yield match[0]
