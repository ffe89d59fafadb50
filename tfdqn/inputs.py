"""What enters from Python: converted where that loses nothing, and refused in one line where it does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf


def as_float32(numbers: Any) -> Any:
    """Numbers of the host as NumPy's float32, and a variable or tensor of any width as a tensor of such."""
    return tf.cast(numbers, tf.float32) if tf.is_tensor(numbers) else np.float32(numbers)


def as_tensor(
    value: Any,
    dtype: tf.DType,
    shape: Sequence[int | None],
    what: str,
    low: int | None = None,
    high: int | None = None,
) -> tf.Tensor:
    """A tensor of the dtype and shape that are expected.

    Any floats or whole numbers become floats; floats never become whole numbers. Whole numbers become those of another
    type if all of them fit, which only numbers on the host can show: inside a `tf.function` none become bytes, and
    `low` and `high` are not looked at.

    Args:
      value: a tensor, an array, or lists of numbers.
      dtype: a float, an integer type, or bool.
      shape: None stands for any size.
      what: its name, for messages.
      low, high: inclusive bounds of whole numbers; those of the dtype if None.

    Raises:
      TypeError: the numbers are of another kind.
      ValueError: the shape is another, or a number is out of range.
    """
    wanted = f"expected {dtype.name} {_sizes(shape)}"
    if not tf.is_tensor(value):
        try:
            value = np.asarray(value)
        except (ValueError, TypeError):
            raise refusal(ValueError, f"{what}: rows of different lengths; {wanted}") from None
    try:
        given = tf.as_dtype(value.dtype)
    except TypeError:
        raise refusal(TypeError, f"{what}: {type(value).__name__} of {value.dtype}; {wanted}") from None
    if not _is_same_kind(given, dtype):
        hint = " of 0 to 255; multiply by 255 and round what is from 0 to 1" if dtype == tf.uint8 else ""
        raise refusal(TypeError, f"{what}: {given.name} {_sizes(value.shape)}; {wanted}{hint}")
    if not tf.TensorShape(shape).is_compatible_with(value.shape):
        raise refusal(ValueError, f"{what}: {given.name} {_sizes(value.shape)}; {wanted}")
    if dtype.is_integer:
        if tf.is_symbolic_tensor(value):
            if given != dtype and dtype.size < 4:
                raise refusal(TypeError, f"{what}: {given.name} inside a tf.function; {wanted}: tf.cast it before")
        elif given != dtype or low is not None or high is not None:
            _check_range(
                np.asarray(value), dtype.min if low is None else low, dtype.max if high is None else high, what
            )
    value = tf.convert_to_tensor(value, dtype) if given == dtype else tf.cast(value, dtype)
    known = value.shape.merge_with(shape)
    # What a data set does not tell of its shapes is looked at as it comes.
    is_told = value.shape.rank is not None and value.shape.as_list() == known.as_list()
    return value if is_told else tf.ensure_shape(value, known)


def refusal(kind: type[Exception], message: str) -> Exception:
    """An error whose message stays one line: by these marks AutoGraph and Keras add no trace of theirs to it."""
    error = kind(message)
    error.ag_pass_through = error._keras_call_info_injected = True
    return error


def _is_same_kind(given: tf.DType, dtype: tf.DType) -> bool:
    if dtype.is_floating:
        return given.is_floating or given.is_integer
    return given.is_integer if dtype.is_integer else given == dtype


def _check_range(values: np.ndarray, low: int, high: int, what: str) -> None:
    if values.size and (values.min() < low or values.max() > high):
        raise refusal(ValueError, f"{what}: from {values.min()} to {values.max()}; must lie between {low} and {high}")


def _sizes(shape: Any) -> str:
    """A shape as "[?, 8, 8, 1]"."""
    shape = tf.TensorShape(shape)
    if shape.rank is None:
        return "of unknown shape"
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"
