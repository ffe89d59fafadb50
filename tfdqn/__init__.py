"""Deep Q-learning on small games, with everything in one XLA program.

Importing this package starts no device and does not import TensorFlow. It prepares the process for TensorFlow with
Keras 2 (the `tf-keras` package), which TF-Agents 0.19 needs and which is chosen by an environment variable that
must be set before `tf.keras` is first touched.
"""

import os
import sys
import time

from tfdqn import _quiet

__version__ = "0.1.0"

# `--minutes` counts from here: the package is the first thing that every command imports.
PROCESS_START_SECONDS = time.monotonic()


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


_choose_keras_2()
_quiet.silence_tensorflow()
