"""The configuration that a run's folder holds, and which of it is followed.

A folder may be from anyone. It never decides which code runs here, and a run that goes on is the run that it was: what
would change a frame or an update is refused.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfdqn import config as configuration
from tfdqn import console, files
from tfdqn.config import Config
from tfdqn.envs import loading, registry
from tfdqn.errors import EXIT_REFUSED, UserError
from tfdqn.settings import flag_of, without_number

CONFIG_FILE = "config.toml"


def write_config(config: Config, path: Path) -> None:
    """Write a run's `config.toml`."""
    files.write_atomically(
        path / CONFIG_FILE, lambda temporary: temporary.write_text(configuration.to_toml(config), encoding="utf-8")
    )


def read_settings(run_dir: str | os.PathLike) -> dict[str, Any]:
    """All settings of a run by name, as its `config.toml` has them; whether they fit together is not looked at.

    Raises:
      UserError: it is no run's folder, or its `config.toml` is not one of ours.
    """
    path = Path(run_dir)
    if not path.is_dir():
        raise UserError(f"{run_dir}: no such run folder")
    if not (path / CONFIG_FILE).is_file():
        raise UserError(f"{run_dir}: not a run folder ({CONFIG_FILE} is missing)")
    # What an older version did not know yet takes the value that changes nothing, not that of today's preset.
    known = {name: field.default for name, field in configuration.FIELDS.items()}
    try:
        return {**known, **configuration.read_toml(path / CONFIG_FILE)}
    except UserError as error:  # the file is not one that a user has named with --config
        reason = str(error).removeprefix(f"--config {path / CONFIG_FILE}: ")
        raise UserError(f"{path / CONFIG_FILE}: {reason}", error.exit_code) from None


def read_config(run_dir: str | os.PathLike, named: Mapping[str, Any] | None = None) -> Config:
    """The configuration of a run, whose folder may be from anyone: it does not decide which code runs.

    Args:
      run_dir: its folder.
      named: settings that the user has given along with it. A game or network that does not come along with tfdqn must
        be among them.

    Raises:
      UserError: it is no run's folder, or its game or network has to be named.
    """
    settings, named = read_settings(run_dir), named or {}
    for name in configuration.CODE_FIELDS:
        held, flag = settings[name], flag_of(name)
        if named.get(name, held) == held and (name in named or not loading.is_spec(held)):
            continue
        if name in named and loading.is_moved(named[name], held):
            settings[name] = named[name]  # where the user says that it is now, or is seen from here
            continue
        if name in named:
            raise UserError(f"{flag} {named[name]}: {run_dir} has {held}; use {flag} {shlex.quote(held)}")
        raise UserError(
            f"{run_dir}: its {name}, {held}, does not come along with tfdqn, and a folder does not decide which code "
            f"runs here: if you trust that code, add {flag} {shlex.quote(held)}"
        )
    return configuration.resolve(settings)


def resumed_config(run_dir: str, given: Mapping[str, Any]) -> Config:
    """The configuration of a run that goes on, with the changes asked for.

    Raises:
      UserError: it is no run's folder, or a setting is asked for that would change what the run computes; exit code 3.
    """
    try:
        refuse_changes(run_dir, read_settings(run_dir), given)
        config = read_config(run_dir, given)
    except UserError as error:  # of the folder, unless it is of code that was named
        flag = "--resume " if str(error).startswith(str(run_dir)) else ""
        raise UserError(f"{flag}{error}", EXIT_REFUSED) from None
    refuse_changes(run_dir, configuration.plain(config), given)
    changes = {name: value for name, value in given.items() if name in configuration.CHANGEABLE_FIELDS}
    return configuration.resolve({**configuration.plain(config), **changes})


def refuse_changes(run_dir: str | os.PathLike, ours: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Name the first setting that a resumed run may not change."""
    for name, value in wanted.items():
        if name in ours and name not in configuration.RESUMABLE_FIELDS and not _is_alike(name, ours[name], value):
            held, asked = (each if each != "" else "none" for each in (ours[name], value))
            raise UserError(
                f"{run_dir}: {name} is {held} in this run, not {asked}; leave {flag_of(name)} as it was, or start a "
                "new run",
                EXIT_REFUSED,
            )


def _is_alike(name: str, ours: Any, wanted: Any) -> bool:
    """Whether two values let a run compute the same: which of its kind a device is decides nothing."""
    if name in configuration.CODE_FIELDS and loading.is_moved(str(wanted), str(ours)):
        return True  # a game's source is compared by itself
    field = configuration.FIELDS[name]
    return without_number(field, ours) == without_number(field, wanted)


def resume_command(run_dir: Path) -> str:
    """What to type to go on with a run: a game or network of the user's own has to be named again."""
    words = ["python", "-m", "tfdqn.train", "--resume", str(run_dir)]
    with contextlib.suppress(UserError):  # without its settings the folder alone is said
        settings = read_settings(run_dir)
        for name in configuration.CODE_FIELDS:
            if loading.is_spec(settings[name]):
                words += [flag_of(name), settings[name]]
    return shlex.join(words)


def source_of(config: Config) -> dict[str, Any]:
    """Where a run's game comes from, if not from tfdqn: its spec, its arguments and the SHA-256 of its file."""
    entry = registry.entry(config.env)
    if digest := entry.sha256():
        return {"spec": entry.name, "arguments": config.env_args, "sha256": digest}
    if not isinstance(entry.factory, str) or entry.factory.startswith("tfdqn."):
        return {}
    return {"spec": entry.factory, "arguments": config.env_args, "sha256": loading.sha256_of(entry.factory)}


def refuse_other_source(run_dir: Path, held: Mapping[str, Any], config: Config, is_accepted: bool) -> None:
    """Name the game whose source is no longer what the run has played.

    Args:
      run_dir: the run's folder.
      held: what `source_of` gave when the run was saved.
      config: the run's configuration now.
      is_accepted: go on all the same, and say so.

    Raises:
      UserError: it has changed; exit code 3.
    """
    now = source_of(config)
    if not held or not now or held.get("sha256") == now["sha256"]:
        return
    what = f"{run_dir}: the source of {now['spec']} has changed since the run was saved"
    if not is_accepted:
        raise UserError(f"{what}; to go on with it as it is now, add --accept-changed-env", EXIT_REFUSED)
    console.say(f"tfdqn: warning: {what}, and the run goes on with it")
