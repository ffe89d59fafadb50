"""What an observation of a game is: shape, type and bounds. No TensorFlow up here."""

from __future__ import annotations

import dataclasses
import math
import operator
from typing import Any

# The bounds of each type that an observation may have, unless a game names narrower ones.
BOUNDS = {"uint8": (0, 255), "float32": (-math.inf, math.inf), "bool": (0, 1)}
RANKS = "[D], [H, W] or [H, W, C]"


@dataclasses.dataclass(frozen=True)
class ObservationSpec:
    """Shape, type and bounds of what one environment shows in one frame.

    Args:
      shape: of one environment's observation, without N: (D,) numbers, (H, W) a screen of grey levels, or (H, W, C)
        planes.
      dtype: "uint8", "float32" or "bool", or TensorFlow's or NumPy's object for it.
      low: the smallest value, inclusive; None: 0, -inf or 0 by the type.
      high: the largest value, inclusive; None: 255, inf or 1 by the type.

    Raises:
      ValueError: one line; another rank or type, an empty axis, or bounds that the type does not hold.
    """

    shape: tuple[int, ...]
    dtype: str = "uint8"
    low: float | None = None
    high: float | None = None

    def __post_init__(self):
        for name, value in (("shape", _shape(self.shape)), ("dtype", _dtype(self.dtype))):
            object.__setattr__(self, name, value)
        lowest, highest = BOUNDS[self.dtype]
        low = lowest if self.low is None else self.low
        high = highest if self.high is None else self.high
        whole = self.dtype != "float32"
        for name, value in (("low", low), ("high", high)):
            if isinstance(value, str) or math.isnan(value) or not lowest <= value <= highest or (whole and value % 1):
                kind = "a whole number" if whole else "a number"
                raise ValueError(
                    f"observation_spec: {name} {value!r} of {self.dtype}: must be {kind} from {lowest} to {highest}"
                )
            object.__setattr__(self, name, int(value) if whole else float(value))
        if not self.low < self.high:
            raise ValueError(f"observation_spec: low {self.low} must be below high {self.high}")

    def stacked(self, frames: int) -> ObservationSpec:
        """Of an observation that is made of several frames, the newest last: (D * frames,), or the last axis longer.

        A screen (H, W) becomes (H, W, frames), planes (H, W, C) become (H, W, C * frames).
        """
        *rest, last = self.shape if len(self.shape) != 2 else (*self.shape, 1)
        return dataclasses.replace(self, shape=(*rest, last * frames))

    @property
    def bytes(self) -> int:
        """Memory of one observation in a replay, which holds flags as bits."""
        numbers = math.prod(self.shape)
        return {"uint8": numbers, "float32": 4 * numbers, "bool": -(-numbers // 8)}[self.dtype]


def _shape(shape: Any) -> tuple[int, ...]:
    try:
        sizes = tuple(operator.index(size) for size in shape)
    except TypeError:
        hint = f"; write ({shape},)" if isinstance(shape, int) else ""
        raise ValueError(f"observation_spec: shape {shape!r} must be whole numbers, {RANKS}{hint}") from None
    if not 1 <= len(sizes) <= 3:
        raise ValueError(f"observation_spec: shape {sizes} has {len(sizes)} axes: must be {RANKS}, without N")
    if min(sizes) < 1:
        raise ValueError(f"observation_spec: shape {sizes} has an axis of {min(sizes)}: use at least 1")
    return sizes


def _dtype(dtype: Any) -> str:
    """The name of a type: of a string itself, of TensorFlow's and NumPy's objects, or of a Python class."""
    name = dtype if isinstance(dtype, str) else getattr(dtype, "name", None) or getattr(dtype, "__name__", repr(dtype))
    if name not in BOUNDS:
        from tfdqn.errors import nearest

        raise ValueError(f"observation_spec: dtype {name!r}: {nearest(name, BOUNDS)}")
    return name
