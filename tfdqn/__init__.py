"""Deep Q-learning on small games, with everything in one XLA program.

Importing this package starts no device and does not import TensorFlow. It prepares the process for TensorFlow with
Keras 2 (the `tf-keras` package), which TF-Agents 0.19 needs and which is chosen by an environment variable that
must be set before `tf.keras` is first touched.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from tfdqn import _quiet

if TYPE_CHECKING:
    from tfdqn.agent_api import Agent, load
    from tfdqn.envs.check import check_env
    from tfdqn.envs.registry import register
    from tfdqn.population import grid

__all__ = ["Agent", "__version__", "check_env", "grid", "load", "register"]

__version__ = "0.1.0"

# A command's `--minutes` count from here: the package is the first thing that it imports.
PROCESS_START_SECONDS = time.monotonic()

# The public names and the modules that have them, which are imported when a name is first used.
_HOMES = {
    "Agent": "tfdqn.agent_api",
    "grid": "tfdqn.population",
    "load": "tfdqn.agent_api",
    "register": "tfdqn.envs.registry",
}


def __getattr__(name: str) -> Any:
    if name == "check_env":  # a module that can be called
        return importlib.import_module("tfdqn.check_env")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _choose_keras_2() -> None:
    """Bind `tf.keras` to the `tf-keras` package, or say in one line that it is too late for that."""
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is None:
        return
    # `tf.keras` binds when it is first touched. If nobody has, setting the variable was in time, and this binds it.
    if not tensorflow.keras.Model.__module__.startswith("tf_keras"):
        raise ImportError(
            "tfdqn needs Keras 2, but tf.keras is already Keras 3 here: import tfdqn before tf.keras is used, or set "
            "TF_USE_LEGACY_KERAS=1 before Python starts"
        )
    # TensorFlow chose its path for `import tensorflow.keras` when it was imported: without this, the first library to
    # write that (TF-Agents does) would put Keras 3 in the place of what has just been bound.
    sys.modules["tensorflow.keras"] = tensorflow.keras


# Bytes that a loop of a compiled program may touch in a round for XLA to make one kernel of it on a CPU (XLA's own
# limit is 1,024). Otherwise each of its operations is started by itself: for one environment, 126 of them in 3 frames.
# Larger loops hold products that XLA hands to a library, but not from inside a kernel.
ONE_KERNEL_BYTES = 60_000
ONE_KERNEL_OPTION = f"--xla_backend_extra_options=xla_cpu_small_while_loop_byte_threshold={ONE_KERNEL_BYTES}"


def _make_small_loops_one_kernel() -> None:
    """Ask XLA for it, unless XLA_FLAGS has such options already or names a file. It is read when XLA starts."""
    flags = os.environ.get("XLA_FLAGS", "").strip()
    if "--xla_backend_extra_options" not in flags and (not flags or flags.startswith("-")):
        os.environ["XLA_FLAGS"] = f"{flags} {ONE_KERNEL_OPTION}".strip()


_quiet.open_standard_streams()
_choose_keras_2()
_make_small_loops_one_kernel()
_quiet.silence_tensorflow()
