"""Flags and help from the settings of the rooms. Nothing here imports TensorFlow."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable
from typing import Any

from tfdqn import cli
from tfdqn import config as configuration
from tfdqn.settings import flag_of, kind_of, shown_choices


def add_config_flags(parser: argparse.ArgumentParser) -> None:
    """A flag for every setting of every room; absent flags leave nothing in the namespace."""
    _add(parser, configuration.all_rooms(), {name: field.default for name, field in configuration.FIELDS.items()})


def given_fields(namespace: argparse.Namespace) -> dict[str, Any]:
    """The settings that flags have set."""
    given = {name: getattr(namespace, name) for name in configuration.FIELDS if hasattr(namespace, name)}
    joined = {name: configuration.FIELDS[name].metadata["joined"] for name in given}
    return {name: joined[name].join(value) if joined[name] else value for name, value in given.items()}


def format_help(parser: argparse.ArgumentParser, given: dict[str, Any]) -> str:
    """The help text: the settings of what is chosen with the values they have there, or the common ones in one screen.

    Args:
      parser: with the arguments that are no settings.
      given: the settings that came along with `-h`.
    """
    config = configuration.resolve(given)
    is_whole = bool(given)
    rooms = configuration.rooms(config.env, config.learner)
    _add(parser, rooms, configuration.plain(config), only_common=not is_whole)
    more = (
        "Values in parentheses are those of this choice."
        if is_whole
        else "Values in parentheses are those of the default choice. With -h --env NAME: all settings, as they are for "
        "that game."
    )
    parser.epilog = more
    return parser.format_help()


def _add(
    parser: argparse.ArgumentParser, rooms: Iterable[type], values: dict[str, Any], *, only_common: bool = False
) -> None:
    for room in rooms:
        fields = [field for field in dataclasses.fields(room) if field.metadata["common"] or not only_common]
        if not fields:
            continue
        group = parser.add_argument_group(room.title)
        for field in fields:
            flag, kind = flag_of(field.name), kind_of(field)
            value = values[field.name]
            text = field.metadata["help"].replace("%", "%%")  # argparse formats help texts
            options: dict[str, Any] = {"default": argparse.SUPPRESS, "help": f"{text} ({_shown(value)})"}
            if kind is bool:
                options["action"] = argparse.BooleanOptionalAction
            else:
                if field.metadata["joined"]:
                    options["action"] = "append"
                has_choices = field.metadata["choices"] is not None
                options["type"] = cli.converter(flag, kind)
                word = ",".join(shown_choices(field)) if has_choices else ""
                options["metavar"] = f"{{{word}}}" if word else kind.__name__.upper()
            group.add_argument(flag, **options)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value) if value != "" else "none"
