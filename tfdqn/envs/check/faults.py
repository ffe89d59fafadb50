"""What a check says: what is wrong with a game, or what the game raised, in one line."""

from __future__ import annotations

import re
import traceback
from pathlib import Path
from typing import Any


class Fault(Exception):
    """What is wrong, and what to change."""


class Unseen(str):
    """Why a check could not tell."""


def require(condition: Any, message: str) -> None:
    if not condition:
        raise Fault(message)


_HINTS = (
    (
        "Using a symbolic `tf.Tensor` as a Python `bool`",
        "Python's if, and, or cannot see into a tensor: use tf.where, &, |",
    ),
    ("has no attribute 'numpy'", "a compiled game has no .numpy(): use TensorFlow's functions"),
    ("Cannot convert a symbolic", "a compiled game cannot use NumPy on tensors: use TensorFlow's functions"),
    ("is out of scope", "a tensor was kept from another call: keep it in the state"),
)


def raised(error: Exception) -> str:
    """An exception of the game's as one line: what, where, and what to do about it."""
    text = str(error)
    where = ""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        is_ours = Path(__file__).parent in path.parents or path.name == "compiled.py"
        if not is_ours and not {"tensorflow", "numpy", "tf_keras"} & set(path.parts):
            where = f" ({path.name} line {frame.lineno})"
            break
    if "unsupported operations" in text:
        names = re.findall(r"(\w+) \(No registered", text) or re.findall(r"{{node (\S+?)}}", text)
        return f"XLA cannot compile {', '.join(dict.fromkeys(names)) or 'it'}: use other TensorFlow functions"
    hint = next((f": {advice}" for sign, advice in _HINTS if sign in text), "")
    first = next(iter(text.strip().splitlines()), "")
    return f"raised {type(error).__name__}: {first[:200]}{where}{hint}"
