"""What enters a game from Python: converted to the tensors that its rules are written for, or refused in one line.

A list of Python's numbers compares with nothing as a tensor does, and a batch of one would be broadcast to any number
of environments: both are wrong results without a word. Dtypes and shapes are checked while tracing, too, and cost a
compiled program nothing; ranges where the numbers are on the host.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf


def actions(values: Any, num_envs: int | None, num_actions: int) -> tf.Tensor:
    """Actions [N] int32.

    Args:
      values: whole numbers in 0..num_actions-1, [N]: a tensor, an array or a list.
      num_envs: N; None where it is not known while tracing.
      num_actions: of the game.

    Raises:
      TypeError: not whole numbers.
      ValueError: another shape, or out of range.
    """
    values = _plain("action", values)
    dtype = tf.as_dtype(values.dtype)
    if not dtype.is_integer:
        raise TypeError(f"action: is {dtype.name}, expected whole numbers (int32)")
    _check_shape("action", values, [num_envs])
    on_host = _on_host(values)
    if on_host is not None and on_host.size:
        for number in (int(on_host.min()), int(on_host.max())):
            if not 0 <= number < num_actions:
                raise ValueError(f"action: holds {number}, but this game has the actions 0..{num_actions - 1}")
    return tf.cast(values, tf.int32)


def like(name: str, values: Any, specs: Any, num_envs: int | None) -> Any:
    """Nested NamedTuples, tuples, lists and dicts of tensors [N, ...], of the dtypes and shapes of `specs`, of N = 1.

    Raises:
      TypeError: another structure or dtype.
      ValueError: another shape, or a number that the dtype does not hold.
    """
    if isinstance(specs, dict):
        if not isinstance(values, dict) or values.keys() != specs.keys():
            raise TypeError(f"{name}: must be a dict of {', '.join(map(repr, specs))}")
        return type(specs)((key, like(f"{name}.{key}", values[key], spec, num_envs)) for key, spec in specs.items())
    if not isinstance(specs, tuple | list):
        return _tensor(name, values, specs, num_envs)
    fields = getattr(specs, "_fields", None)
    if not isinstance(values, tuple | list) or getattr(values, "_fields", None) != fields:
        raise TypeError(f"{name}: is a {type(values).__name__}, expected the game's own {type(specs).__name__}")
    if len(values) != len(specs):
        raise TypeError(f"{name}: has {len(values)} parts, expected {len(specs)}")
    parts = zip(fields or range(len(specs)), values, specs, strict=True)
    made = [like(f"{name}.{field}", value, spec, num_envs) for field, value, spec in parts]
    return type(specs)(made) if fields is None else type(specs)(*made)


def count_envs(values: Any, specs: Any) -> int | None:
    """N of what `like` takes; None where it is not known while tracing, or there is none."""
    while isinstance(specs, dict | tuple | list) and len(specs):
        if not isinstance(values, dict | tuple | list):
            return None
        first = next(iter(specs)) if isinstance(specs, dict) else 0
        try:
            values, specs = values[first], specs[first]
        except (KeyError, IndexError):
            return None
    if tf.is_tensor(values):
        return values.shape[0] if values.shape.rank else None
    return len(values) if hasattr(values, "__len__") and len(values) else None


def _tensor(name: str, values: Any, spec: tf.TensorSpec, num_envs: int | None) -> tf.Tensor:
    values = _plain(name, values)
    dtype = tf.as_dtype(values.dtype)
    is_near = not tf.is_tensor(values) and dtype.is_integer and spec.dtype.is_integer
    if dtype != spec.dtype and not is_near:
        raise TypeError(f"{name}: is {dtype.name}, expected {spec.dtype.name}")
    _check_shape(name, values, [num_envs, *spec.shape[1:]])
    if is_near and values.size and not spec.dtype.min <= values.min() <= values.max() <= spec.dtype.max:
        raise ValueError(f"{name}: holds numbers that are too large for {spec.dtype.name}")
    return tf.cast(values, spec.dtype)


def _plain(name: str, values: Any) -> Any:
    """A tensor as it is, anything else as an array."""
    if isinstance(values, tf.Tensor):
        return values  # one at hand keeps its numbers at hand, also while tracing
    if tf.is_tensor(values):  # a variable
        return tf.convert_to_tensor(values)
    try:
        array = np.asarray(values)
    except ValueError:
        array = np.asarray(None)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name}: is no tensor, array or list of numbers")
    return array


def _on_host(values: Any) -> np.ndarray | None:
    """The numbers, where looking at them costs nothing."""
    if isinstance(values, np.ndarray):
        return values
    if hasattr(values, "numpy") and "CPU" in values.device:
        return values.numpy()
    return None


def _check_shape(name: str, values: Any, expected: list[int | None]) -> None:
    if not tf.TensorShape(values.shape).is_compatible_with(expected):
        found, wanted = list(values.shape), ["N" if size is None else size for size in expected]
        raise ValueError(f"{name}: has the shape {found}, expected [{', '.join(map(str, wanted))}]")
