"""What a run is made of: the settings of the rooms that take part in it, as one value; TOML, presets, checks.

Which rooms take part follows from the game and the learner, whose registries name them; no game's or learner's name
stands here. Nothing here imports TensorFlow, so bad input is found in well under a second.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from tfdqn import learners, population, replicas, run_settings
from tfdqn.envs import registry
from tfdqn.envs.spec import ObservationSpec
from tfdqn.errors import UserError, nearest
from tfdqn.settings import check_value, flag_of, kind_of


@functools.cache
def rooms(env: str, learner: str) -> tuple[type, ...]:
    """The rooms of a run, in the order of `config.toml`."""
    game, *rest = run_settings.ROOMS
    own = registry.entry(env).settings
    return (game, *([own] if own else []), *learners.settings_of(learner).ROOMS, *rest)


@functools.cache
def all_rooms() -> tuple[type, ...]:
    """Every room there is, each once."""
    envs, names = [entry.name for entry in registry.games()] or [""], list(learners.LEARNERS)
    found = dict.fromkeys(each for env in envs for learner in names for each in rooms(env, learner))
    return tuple(found)


def _fields(of: Iterable[type]) -> dict[str, dataclasses.Field]:
    return {field.name: field for each in of for field in dataclasses.fields(each)}


FIELDS = _fields(all_rooms())
FIELD_TYPES = {name: kind_of(field) for name, field in FIELDS.items()}
# What may change when a run is resumed: none of these decides what any frame or update computes.
RESUMABLE_FIELDS = tuple(name for name, field in FIELDS.items() if field.metadata["resumable"])
# And what may change though not in kind, such as gpu:0 to gpu:1.
CHANGEABLE_FIELDS = (*RESUMABLE_FIELDS, *(name for name, field in FIELDS.items() if field.metadata["numbered"]))
CODE_FIELDS = tuple(name for name, field in FIELDS.items() if field.metadata["code"])
PATH_FIELDS = tuple(name for name, field in FIELDS.items() if field.metadata["path"])
SIZE_FIELDS = tuple(name for name, field in FIELDS.items() if field.metadata["size"])
SCHEDULE_ENDINGS = ("_updates", "_env_frames")  # of settings that say after how much something has changed


class Config:
    """Every setting of a run, read by its name alone: `config.num_envs`. Units are in the names; `inf`: no limit.

    Args:
      **values: settings by name; the others have their defaults. Nothing is checked (see `resolve`) but the names.

    Attributes:
      rooms: an instance of each room's settings, by its table in `config.toml`.

    Raises:
      UserError: a setting that no room of this game and learner has, unless its value is the one that changes nothing.
    """

    __slots__ = ("_values", "rooms")

    def __init__(self, **values: Any):
        chosen = rooms(values.get("env", FIELDS["env"].default), values.get("learner", FIELDS["learner"].default))
        here = _fields(chosen)
        for name in values.keys() - here.keys():
            _refuse_elsewhere(name, values[name], values)
        made = {}
        for each in chosen:
            fields = dataclasses.fields(each)
            made[each.table] = each(**{field.name: values[field.name] for field in fields if field.name in values})
        object.__setattr__(self, "rooms", made)
        flat = {name: value for each in made.values() for name, value in vars(each).items()}
        object.__setattr__(self, "_values", flat)

    def __getattr__(self, name: str) -> Any:
        try:
            return self._values[name]
        except KeyError:
            raise AttributeError(f"no setting {name!r} in a run of {self._values['env']}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        raise dataclasses.FrozenInstanceError(f"cannot assign to {name!r}: use replace()")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Config) and self.rooms == other.rooms

    def __hash__(self) -> int:
        return hash(tuple(self._values.items()))

    def __repr__(self) -> str:
        return f"Config({', '.join(f'{name}={value!r}' for name, value in self._values.items())})"

    def __reduce__(self):
        return functools.partial(Config, **self._values), ()

    def replace(self, **changes: Any) -> Config:
        """The same with other values of some settings."""
        return Config(**{**self._values, **changes})

    @property
    def game_settings(self) -> Any:
        """The game's own settings; None if it has none."""
        own = registry.entry(self.env).settings
        return self.rooms[own.table] if own else None

    @property
    def observation_spec(self) -> ObservationSpec | None:
        """What the game shows; None where only the game itself knows."""
        spec = registry.entry(self.env).observation_spec
        return spec(self.game_settings) if spec else None

    @property
    def num_practisers(self) -> int:
        """How many environments only practise (see `tfdqn.programs.restarts`): the last ones."""
        return int(self.num_envs * self.restart_share)

    @property
    def window_rows(self) -> int:
        """Consecutive replay rows of an environment that are needed to draw from, as its learner's room says."""
        return next(each.window_rows(self) for each in self.rooms.values() if hasattr(each, "window_rows"))

    def replay_bytes(self, spec: ObservationSpec, legal_actions: int = 0) -> int:
        """Memory of the replay; 0 without one.

        A row: an observation, 8 bytes of action, 4 of each float, two flags, and what a room adds (`row_bytes`).

        Args:
          spec: what the game shows.
          legal_actions: A of a game whose rules do not always allow every action: a byte of each more.
        """
        if "replay_capacity" not in self._values:
            return 0
        more = sum(each.row_bytes(self) for each in self.rooms.values() if hasattr(each, "row_bytes"))
        row = spec.bytes + 8 + 4 + 4 + 2 + legal_actions + 4 * self.prioritized + more
        return population.count(self) * self.replay_capacity * row


def _refuse_elsewhere(name: str, value: Any, values: Mapping[str, Any]) -> None:
    """A setting of a room that takes no part: fine where it changes nothing, as files list all that there was."""
    if name not in FIELDS:
        raise UserError(f"{flag_of(name)}: unknown setting; {nearest(name, FIELDS)}")
    if value == FIELDS[name].default:
        return
    env, learner = (values.get(each, FIELDS[each].default) for each in ("env", "learner"))
    table = FIELDS[name].metadata["group"]
    owners, who = [game.name for game in registry.games() if game.settings and game.settings.table == table], env
    if not owners:
        owners = [f"--learner {each}" for each in learners.LEARNERS if table in _tables(each)]
        who = f"--learner {learner}"
    raise UserError(f"{flag_of(name)} {value}: {who} has no such setting, only {' and '.join(owners)}; leave it out")


def _tables(learner: str) -> set[str]:
    return {each.table for each in learners.settings_of(learner).ROOMS}


def resolve(given: Mapping[str, Any], *, on_gpu: bool = False, tell: Callable[[str], None] | None = None) -> Config:
    """Make a configuration: defaults, then the game's preset as it is on the device, then what the user gave.

    Where a value that nobody asked for does not fit with one that the user gave, it gives way to the nearest that does.

    Args:
      given: explicitly chosen settings, from a file and from flags.
      on_gpu: take the game's presets for a GPU. One that it does not have there is the CPU's, as it is, if it has sizes
        or schedules, which are chosen together; if it has none, the learner's sizes and schedules for a GPU.
      tell: called with a line for each value that gave way.

    Raises:
      UserError: a value out of range, or given values that do not fit together.
    """
    given = {name: check_value(FIELDS[name], value) if name in FIELDS else value for name, value in given.items()}
    chosen = {name: given.get(name, FIELDS[name].default) for name in ("env", "preset")}
    values = _preset(chosen["env"], chosen["preset"], given.get("learner"), on_gpu)
    learner = learners.settings_of(values["learner"])
    is_default = chosen["preset"] == "default" or chosen["preset"] in learners.presets_of(values["learner"])
    if on_gpu and is_default and not _has_own_pace(values, learner.ROOMS):
        values |= learner.GPU_SIZES
    values = {**learner.PRESET, **values}
    wanted = Config(**{**values, **chosen, **given})
    config = fitted(wanted, given)
    check(config)
    before, after = plain(wanted), plain(config)
    for name in before if tell is not None else ():
        if before[name] != after[name]:
            flag, gone, used = flag_of(name), before[name], after[name]
            tell(f"{flag} {gone} of the preset {chosen['preset']!r} does not fit what was given: {used} is used")
    return config


def changed_sizes(given: Mapping[str, Any], config: Config) -> str:
    """What sizes that the user gave change of the preset that a run has on a GPU, for people; empty where nothing.

    Args:
      given: as of `resolve`.
      config: what it made of it there.
    """
    others = {name: value for name, value in given.items() if name not in SIZE_FIELDS}
    try:
        preset = resolve(others, on_gpu=True)
    except UserError:  # it fits with these sizes alone
        return ""
    changed = [name for name in SIZE_FIELDS if name in given and given[name] != getattr(preset, name)]
    if not changed:
        return ""
    words = [f"{flag_of(name)} {given[name]} in place of {getattr(preset, name)}" for name in changed]
    line = f"the preset of {config.env} for a GPU, but with {', '.join(words)}"
    before, after = _pace(preset), _pace(config)
    if before != after:
        line += f": {after}, where the preset has {before}"
    return f"{line}; all else of it stays as it is"


def _pace(config: Config) -> str:
    """How often there is an update, of a learner whose settings say so."""
    if not hasattr(config, "updates_per_iteration"):
        return ""
    decisions = config.num_envs * config.iterations_per_update
    frames = decisions * config.action_repeat / config.updates_per_iteration
    return f"an update of {config.batch_size} every {frames:g} frames"


def _has_own_pace(values: Mapping[str, Any], rooms_of_learner: Iterable[type]) -> bool:
    """Whether a preset decides, for a learner, how much is played and learnt at a time, or a schedule."""
    ours = _fields(rooms_of_learner)
    return any(ours[name].metadata["size"] or name.endswith(SCHEDULE_ENDINGS) for name in values.keys() & ours.keys())


def _preset(env: str, name: str, learner: str | None, on_gpu: bool = False) -> dict[str, Any]:
    """A game's named settings, for a learner, which they choose where that is None.

    A learner's own come on top of the game's default ones. These are those under the learner's own name, where the
    game has such. Of another learner's only what is said of the game and the run is taken.
    """
    entry, first = registry.entry(env), FIELDS["learner"].default
    presets = {**entry.presets, **(entry.gpu_presets if on_gpu else {})}
    if name not in presets:
        values = _preset(env, "default", learner, on_gpu)
        return {**values, **learners.presets_of(values["learner"]).get(name, {})}
    values = dict(presets.get(name, {}))
    learner = learner or values.get("learner", first)
    if name == "default" and learner != first and learner in presets:
        values = dict(presets[learner])
    if values.get("learner", first) != learner:
        theirs = _fields(learners.settings_of(values.get("learner", first)).ROOMS)
        values = {key: value for key, value in values.items() if key not in theirs}
    return {**values, "learner": learner}


def fitted(config: Config, given: Iterable[str]) -> Config:
    """The configuration with settings that are not `given` moved to where they fit, as far as that can be."""
    for _ in range(len(FIELDS)):  # one change may ask for another; never as many as there are fields
        changes = next(
            (way for way in _ways_to_fit(config) if all(_is_free(config, given, *change) for change in way.items())),
            None,
        )
        if changes is None:
            return config
        config = config.replace(**changes)
    return config


def _ways_to_fit(config: Config) -> Iterator[dict[str, Any]]:
    for each in config.rooms.values():
        if hasattr(each, "ways_to_fit"):
            yield from each.ways_to_fit(config)


def _is_free(config: Config, given: Iterable[str], name: str, value: Any) -> bool:
    """Whether a setting that was not given may take another value."""
    low, high = (FIELDS[name].metadata[bound] for bound in ("low", "high"))
    is_legal = (low is None or value >= low) and (high is None or value <= high)
    return name not in given and is_legal and value != getattr(config, name)


def check(config: Config) -> None:
    """Raise a `UserError` that names the first bad setting, its value and the nearest valid one."""
    for each in config.rooms.values():
        for field in dataclasses.fields(each):
            check_value(field, getattr(each, field.name))
    for each in config.rooms.values():
        if hasattr(each, "check"):
            each.check(config)
    if population.is_one(config):
        members = population.members(config)
        for member in members:
            if member.seed in (members[0].seed, members[-1].seed):  # the least and the largest: others are alike
                check(member)
    if replicas.is_one(config):
        try:
            check(replicas.config_of(config))
        except UserError as error:
            raise UserError(f"--replicas {config.replicas}: of each one's part: {error}") from None


def check_memory(config: Config, spec: ObservationSpec | None, available_bytes: int, legal_actions: int = 0) -> None:
    """Refuse a replay that does not fit, before anything is allocated; a `spec` of None is not known yet."""
    size = 0 if spec is None else config.replay_bytes(spec, legal_actions)
    if not size:
        return
    needed = size + 500_000_000  # TensorFlow itself, the network and the programs
    if needed > available_bytes:
        rows = max(0, (available_bytes - 500_000_000) * config.replay_capacity // size)
        raise UserError(
            f"--replay-capacity {config.replay_capacity}: needs {needed / 1e9:.2f} GB, but "
            f"{available_bytes / 1e9:.2f} GB are free; use at most {rows}"
        )


# Settings of earlier versions, with the value at which they changed nothing.
RETIRED = {"curriculum_overshoot": 0}


def read_toml(path: str | os.PathLike) -> dict[str, Any]:
    """Read chosen settings from a TOML file: a table a room, as `config.toml` has them, or all at the top.

    Raises:
      UserError: no such file, no TOML, an unknown table or setting, or a value out of range.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:  # some editors begin a file by a mark
            held = tomllib.loads(file.read())
    except OSError as error:
        raise UserError(f"--config {path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"--config {path}: not TOML: {error}") from None
    tables = {each.table: _fields([each]) for each in all_rooms()}
    values: dict[str, Any] = {}
    for name, value in held.items():
        if not isinstance(value, dict):
            _take(values, path, name, value, FIELDS, "")
            continue
        if name not in tables:
            raise UserError(f"--config {path}: unknown table [{name}]; {nearest(name, tables)}")
        for key, inner in value.items():
            _take(values, path, key, inner, tables[name], name)
    return values


def _take(
    values: dict[str, Any], path: Any, name: str, value: Any, fields: Mapping[str, dataclasses.Field], table: str
) -> None:
    """Note a setting from `table`, of which those are the fields."""
    if name in RETIRED:
        if value != RETIRED[name]:
            raise UserError(f"--config {path}: {name} {value!r} is no longer known; use {RETIRED[name]!r}")
        return
    if name not in fields and not (name in FIELDS and table in FIELDS[name].metadata["once_in"].split()):
        home = FIELDS[name].metadata["group"] if name in FIELDS else None
        hint = f"it belongs into [{home}]" if home else nearest(name, fields)
        raise UserError(f"--config {path}: unknown setting {name!r}; {hint}")
    if name in values:
        raise UserError(f"--config {path}: {name} is there twice; leave one out")
    values[name] = check_value(FIELDS[name], value)


def plain(config: Config) -> dict[str, Any]:
    """The settings by name."""
    return dict(config._values)


def as_json(config: Config) -> dict[str, Any]:
    """The settings by name, infinities as words, for JSON has none."""
    fields = plain(config)
    return {k: str(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in fields.items()}


def to_toml(config: Config) -> str:
    """The whole configuration as TOML: a table a room, one line a setting with its meaning."""
    import tomli_w

    parts = []
    for table, each in config.rooms.items():
        lines = [f"[{table}] # {each.title}"]
        for field in dataclasses.fields(each):
            line = tomli_w.dumps({field.name: getattr(each, field.name)}).strip()
            lines.append(f"{line:<44} # {field.metadata['help']}")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)
