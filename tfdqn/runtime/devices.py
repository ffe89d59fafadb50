"""Where everything lives: the choice of a device, and what TensorFlow and XLA must be told before they start."""

from __future__ import annotations

import os

from tfdqn.errors import UserError


def gpu_names() -> list[str]:
    """GPUs that TensorFlow sees. Imports TensorFlow."""
    import tensorflow as tf

    return [device.name for device in tf.config.list_physical_devices("GPU")]


# Deterministic kernels, and the same ones in every process: XLA otherwise times several and keeps the fastest, which
# may be another one the next time. (TensorFlow 2.21; XLA ends the process where it does not know a flag.)
DETERMINISTIC_XLA_FLAG = "--xla_gpu_deterministic_ops=true"
# Every operation of a program by its name in a profiler's trace. On a CPU it doubles the time of small programs.
TRACE_XLA_FLAG = "--xla_cpu_enable_xprof_traceme=true"


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


def choose_device(wanted: str, deterministic: bool = False, threads: int = 0, profile: bool = False) -> str:
    """The TensorFlow device for "auto", "cpu" or "gpu"; imports TensorFlow, unless "cpu" and nothing more is asked for.

    Args:
      wanted: as `--device`.
      deterministic: as `--deterministic`.
      threads: as `--threads`; TF_NUM_INTRAOP_THREADS wins where the user has set it.
      profile: a trace is to be taken, in which a CPU's operations shall have their names.

    Raises:
      UserError: "gpu" was asked for and there is none, or `add_xla_flag` has raised it.
    """
    if wanted == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # leave the GPU's memory to others
    if threads:
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(threads))  # read when TensorFlow starts its devices
    if profile:
        add_xla_flag(TRACE_XLA_FLAG, "--profile")
    if deterministic:
        make_deterministic()
    if wanted == "cpu":
        return "/CPU:0"
    if gpu_names():
        return "/GPU:0"
    if wanted == "gpu":
        raise UserError("--device gpu: TensorFlow sees no GPU on this machine; use --device cpu (or auto)")
    return "/CPU:0"
