"""Many agents in one program: which settings differ among them, and how. Nothing here imports TensorFlow."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tfdqn.errors import UserError, nearest
from tfdqn.settings import check_value, flag_of, kind_of

if TYPE_CHECKING:
    from tfdqn.config import Config

MAX_MEMBERS = 256  # each keeps three files of reports open
LEAST_SELECTED = 4  # members among which `--pbt` can tell a worst part from a best one
# What decides a member's games, which stay its own when it takes over another's agent.
OWN = ("seed", "start_curriculum", "restart_share")


def grid(**settings: Any) -> str:
    """What `--vary` and `vary` take, from values by name: `tfdqn.grid(seed=range(8), learning_rate=[1e-4, 3e-4])`.

    Every combination is one agent.

    Raises:
      UserError: a setting without values.
    """
    parts = []
    for name, values in settings.items():
        values = list(values) if isinstance(values, Iterable) and not isinstance(values, str) else [values]
        if not values:
            raise UserError(f"grid: {name} has no values; give at least one")
        parts.append(f"{name}={','.join(map(str, values))}")
    return ";".join(parts)


def is_one(config: Config) -> bool:
    """Whether a configuration trains a population, if only of one."""
    return getattr(config, "population", 1) > 1 or bool(getattr(config, "vary", ""))


def members(config: Config) -> tuple[Config, ...]:
    """The configuration of each member, as if it were trained alone, on one device; of a lone agent, the one it has.

    Raises:
      UserError: `vary` cannot be read, or it names a setting that may not vary or a value that it may not have.
    """
    if not is_one(config):
        return (config,)
    varied = _all_varied(config)
    count = math.prod(len(values) for values in varied.values())
    if count > MAX_MEMBERS:
        raise UserError(f"--vary {config.vary}: makes {count} agents; at most {MAX_MEMBERS} are trained side by side")
    alone = config.replace(population=1, vary="", pbt=False, replicas=0)
    return tuple(
        alone.replace(**dict(zip(varied, values, strict=True))) for values in itertools.product(*varied.values())
    )


def parts(config: Config, count: int) -> list[Config]:
    """What so many equal parts of the members are trained by, each of those that follow one another.

    Raises:
      ValueError: `divides` says that they cannot be made.
    """
    if not divides(config, count):
        raise ValueError(f"{count} parts of {config.vary}")
    name, values = _first_that_differs(config)
    size, varied = len(values) // count, _all_varied(config)
    return [
        config.replace(population=1, vary=grid(**{**varied, name: values[first : first + size]}))
        for first in range(0, len(values), size)
    ]


def divides(config: Config, count: int) -> bool:
    """Whether the members go into so many parts: by the first setting in which they differ."""
    return len(_first_that_differs(config)[1]) % count == 0


def _first_that_differs(config: Config) -> tuple[str, list[Any]]:
    """The slowest setting of several values, and these; the last one where none has."""
    varied = list(_all_varied(config).items())
    return next((each for each in varied if len(each[1]) > 1), varied[-1])


def count(config: Config) -> int:
    """How many agents a configuration trains."""
    return len(members(config))


def tuned(config: Config) -> tuple[str, ...]:
    """The settings that change in training: with `pbt` those that `vary` names, but for `OWN`, if only one value."""
    if not getattr(config, "pbt", False):
        return ()
    return tuple(name for name, _ in _varied(config) if name not in OWN)


def check_used(config: Config, needs: Mapping[str, tuple[str, Callable[[Any], bool]]]) -> None:
    """Refuse a setting in `vary` that changes nothing: members that are to differ in it would be all the same.

    Args:
      config: a run's.
      needs: by the setting, what it needs, as a flag, and whether a configuration has that.

    Raises:
      UserError: there is one, or `vary` cannot be read.
    """
    for name, _ in _varied(config) if is_one(config) else ():
        flag, is_there = needs.get(name, ("", lambda config: True))
        if not is_there(config):
            raise UserError(f"--vary {name}: changes nothing without {flag}; add that, or leave it out")


def check_pbt(config: Config) -> None:
    """Refuse population based training of what is no population, has nothing to tune, or never selects.

    Raises:
      UserError: so it is, or `vary` cannot be read.
    """
    if not config.pbt:
        return
    number = count(config)
    if number < LEAST_SELECTED:
        raise UserError(
            f"--pbt: selects among {LEAST_SELECTED} agents or more, not {number}; add --population {LEAST_SELECTED}, "
            "or more values to --vary"
        )
    if not tuned(config):
        raise UserError(
            f"--pbt: --vary names no setting to tune, as {', '.join(OWN)} stay each member's own; add --vary "
            "learning_rate=1e-4,1e-3 or another"
        )
    if config.eval_every_frames > config.total_env_frames:
        raise UserError(
            f"--pbt: selects at evaluations, and --eval-every-frames {config.eval_every_frames} leaves none before the "
            f"end, --total-env-frames {config.total_env_frames}; use at most that"
        )


def differences(configs: Sequence[Config]) -> tuple[str, ...]:
    """The names of the settings in which members differ."""
    names = [name for name, field in _fields(configs[0]).items() if field.metadata["varies"]]
    return tuple(name for name in names if len({getattr(config, name, None) for config in configs}) > 1)


def _fields(config: Config) -> dict[str, dataclasses.Field]:
    """The settings of a run by name."""
    return {field.name: field for each in config.rooms.values() for field in dataclasses.fields(each)}


def _all_varied(config: Config) -> dict[str, list[Any]]:
    """The values by setting, the slowest first."""
    varied = dict(_varied(config))
    if config.population > 1:
        if "seed" in varied:
            raise UserError(f"--population {config.population}: --vary names the seeds already; leave one out")
        varied = {"seed": list(range(config.seed, config.seed + config.population)), **varied}
    return varied


def _varied(config: Config) -> Iterator[tuple[str, list[Any]]]:
    fields = _fields(config)
    may = [name for name, field in fields.items() if field.metadata["varies"]]
    seen: set[str] = set()
    for part in config.vary.split(";") if config.vary else ():
        name, equals, text = part.strip().partition("=")
        name = name.strip().removeprefix("--").replace("-", "_")
        if not equals or not text.strip():
            raise UserError(f"--vary {part.strip()}: must be NAME=VALUE,VALUE, as learning_rate=1e-4,3e-4 or seed=0:8")
        if name not in may:
            known = f"{flag_of(name)} has to be the same for all; " if name in fields else ""
            raise UserError(f"--vary {name}: {known}{nearest(name, may)}")
        if name in seen:
            raise UserError(f"--vary {name}: is there twice; leave one out")
        seen.add(name)
        yield name, list(_values(fields[name], text.strip()))


def _values(field: dataclasses.Field, text: str) -> Iterator[Any]:
    kind, seen = kind_of(field), set()
    for word in text.split(","):
        first, colon, end = word.partition(":")
        try:
            values = list(range(int(first), int(end))) if colon and kind is int else [kind(word)]
        except ValueError:
            values = []
        if not values:
            wanted = "a whole number, or FIRST:END" if kind is int else "a number"
            raise UserError(f"--vary {field.name}={word}: must be {wanted}")
        for value in values[: MAX_MEMBERS + 1]:
            try:
                value = check_value(field, value)
            except UserError as error:
                raise UserError(f"--vary {field.name}={value}: {str(error).split(': ', 1)[1]}") from None
            if value in seen:
                raise UserError(f"--vary {field.name}={value}: is there twice; leave one out")
            seen.add(value)
            yield value
