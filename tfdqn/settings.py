"""Settings: fields with help, units and bounds, which each room declares beside its code. It names no room itself.

A room's settings are a frozen dataclass made by `@room("table")` of fields made by `setting(...)`. Flags, help texts,
`config.toml` and the checks of single values follow from the fields; what must hold between fields, also those of other
rooms, a room says in a method `check(config)`. Its method `ways_to_fit(config)` yields, for each rule that is broken, a
field and the nearest value that mends it, what costs a run least first: what nobody asked for gives way to what the
user did. Nothing here imports TensorFlow, so bad input is found at once.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

from tfdqn.errors import UserError, nearest

KINDS = {"int": int, "float": float, "bool": bool, "str": str}
_KIND_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}


def setting(
    default: Any,
    help: str,
    *,
    choices: tuple | None = None,
    numbered: str = "",
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    resumable: bool = False,
    common: bool = False,
    size: bool = False,
    code: bool = False,
    path: bool = False,
    once_in: str = "",
    varies: bool = False,
    joined: str = "",
) -> Any:
    """A field of a room's settings.

    Args:
      default: the value where neither a preset nor the user gives one; its type is the annotation's.
      help: one line without a full stop, for `-h`, `config.toml` and the reference.
      choices: all valid values; None for any in the bounds.
      numbered: one of them that may have a number behind it, as in "gpu:1". Which number decides nothing that a frame
        or an update computes.
      low, high: inclusive bounds.
      above: an exclusive lower bound.
      resumable: a run may change it when it goes on, as it decides nothing that a frame or an update computes.
      common: shown by plain `-h`.
      size: how much is played, kept or learnt at a time: what a GPU's presets have more of.
      code: it may name code, as "module:name" or "path/to/file.py:name"; a run's folder alone never has it run.
      path: it names a local file or folder.
      once_in: the tables that held it in `config.toml` of earlier versions, with spaces between.
      varies: it may differ among the members of a population.
      joined: its flag may be given several times; then this stands between the values.
    """
    limits = {"choices": choices, "numbered": numbered, "low": low, "high": high, "above": above}
    marks = {"resumable": resumable, "common": common, "size": size, "code": code, "path": path, "once_in": once_in}
    marks |= {"varies": varies, "joined": joined}
    return dataclasses.field(default=default, metadata={"help": help, **limits, **marks})


def room(table: str, title: str) -> Callable[[type], type]:
    """A class decorator: makes a room's settings, a frozen dataclass.

    Args:
      table: its name in `config.toml`.
      title: what it is about, for `-h`.
    """

    def decorate(cls: type) -> type:
        cls = dataclasses.dataclass(frozen=True)(cls)
        for field in dataclasses.fields(cls):
            field.metadata = MappingProxyType({**field.metadata, "group": table})
        cls.table, cls.title = table, title
        return cls

    return decorate


def kind_of(field: dataclasses.Field) -> type:
    """A field's type (annotations are strings under `from __future__ import annotations`)."""
    return KINDS[field.type]


def flag_of(name: str) -> str:
    """The flag of a field, such as --num-envs of num_envs."""
    return "--" + name.replace("_", "-")


def shown_choices(field: dataclasses.Field) -> list[str]:
    """A field's valid values as help texts show them; `gpu:N` stands for one with a number."""
    choices, numbered = [str(choice) for choice in field.metadata["choices"]], field.metadata["numbered"]
    return [*choices, *([f"{numbered}:N"] if numbered else [])]


def without_number(field: dataclasses.Field, value: Any) -> Any:
    """A value without the number that it may have: "gpu" of "gpu:1"."""
    numbered = field.metadata["numbered"]
    if numbered and isinstance(value, str) and re.fullmatch(rf"{numbered}:(0|[1-9][0-9]{{0,3}})", value):
        return numbered
    return value


def check_value(field: dataclasses.Field, value: Any) -> Any:
    """A field's value, NumPy's numbers made Python's, and a whole number a float where one is wanted.

    Raises:
      UserError: not of the field's type, not among its choices or out of its bounds; it names the nearest valid one.
    """
    limits, flag, kind = field.metadata, flag_of(field.name), kind_of(field)
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            value = float(value)
        except OverflowError:
            value = math.copysign(math.inf, value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UserError(f"{flag} {value!r}: must be {_KIND_WORDS[kind]}")  # as '3' is none, though it looks like one
    if limits["choices"] is not None and without_number(field, value) not in limits["choices"]:
        choices = [str(choice) for choice in limits["choices"]]
        raise UserError(f"{flag} {value}: unknown; {nearest(str(value), choices)}")
    if kind is float and math.isnan(value):
        raise UserError(f"{flag} nan: must be a number; the default is {field.default}")
    low, above, high = limits["low"], limits["above"], limits["high"]
    if low is not None and value < low:
        raise UserError(f"{flag} {value}: must be at least {low}; use {low}")
    if above is not None and value <= above:
        raise UserError(f"{flag} {value}: must be greater than {above}; the default is {field.default}")
    if high is not None and value > high:
        raise UserError(f"{flag} {value}: must be at most {high}; use {high}")
    return value
