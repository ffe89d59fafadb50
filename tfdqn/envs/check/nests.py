"""Nested tuples of tensors and of arrays: where they are, where they differ, how they are told."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

FLOAT_TOLERANCE = 1e-4  # between eager and compiled floats of size 1: a sine, or a sum in another order


def leaves(nest: Any) -> list[tuple[str, Any]]:
    """Tensors with where they are: [(".player", tensor), ...]."""
    if isinstance(nest, tuple) and hasattr(nest, "_fields"):
        items = [(f".{name}", part) for name, part in zip(nest._fields, nest, strict=True)]
    elif isinstance(nest, dict):
        items = [(f"[{key!r}]", nest[key]) for key in sorted(nest)]
    elif isinstance(nest, list | tuple):
        items = [(f"[{i}]", part) for i, part in enumerate(nest)]
    else:
        return [("", nest)]
    return [(path + rest, leaf) for path, part in items for rest, leaf in leaves(part)]


def arrays(nest: Any) -> Any:
    return tf.nest.map_structure(np.asarray, nest)


def tensors(nest: Any) -> Any:
    return tf.nest.map_structure(tf.constant, nest)


def first(nest: Any, part: slice) -> Any:
    return tf.nest.map_structure(lambda array: array[part], nest)


def is_equal(one: Any, other: Any) -> bool:
    return not difference(one, other)


def difference(one: Any, other: Any, exact: bool = True) -> str:
    """Where two structures of arrays differ first: " (in .stepped.player of environment 3: 1, then 2)"; "" if nowhere.

    Floats may differ by rounding unless `exact`.
    """
    ours, theirs = leaves(one), leaves(other)
    if [path for path, _ in ours] != [path for path, _ in theirs]:
        return " (in its structure)"
    for (path, a), (_, b) in zip(ours, theirs, strict=True):
        place = f"in {path.lstrip('.')} " if path else ""
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            return f" ({place}{form(a)}, then {form(b)})"
        if a.dtype.kind == "f":
            tolerance = 0.0 if exact else FLOAT_TOLERANCE
            differs = ~np.isclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)
        else:
            differs = a != b
        if differs.any():
            index = tuple(np.argwhere(differs)[0])
            which = f"of environment {index[0]}" if index else ""
            return f" ({place}{which}: {a[index]}, then {b[index]})"
    return ""


def gaps(one: Any, other: Any) -> list[float]:
    """The largest distance between the floats of each pair of arrays."""
    pairs = zip(leaves(one), leaves(other), strict=True)
    return [float(np.abs(a - b).max()) for (_, a), (_, b) in pairs if a.dtype.kind == "f" and a.size]


def form(array: Any) -> str:
    return f"{list(array.shape)} {array.dtype.name}"


def kind(nest: Any) -> str:
    return type(nest).__name__ + (f"({', '.join(nest._fields)})" if hasattr(nest, "_fields") else "")
