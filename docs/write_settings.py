"""Writes docs/settings.md from the code: `python docs/write_settings.py`. A test holds the page current."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tfdqn import config as configuration
from tfdqn import learners
from tfdqn.envs import registry
from tfdqn.settings import flag_of, shown_choices

PAGE = Path(__file__).with_name("settings.md")
HEAD = """\
# Settings

Every setting has a flag and a line in its table of `config.toml`. `python -m tfdqn.train -h` shows the common ones,
with `--env NAME` all of them as they are for that game. This page is written by `docs/write_settings.py`.
"""


def shown(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else str(value) or "none"


def bounds(field: dataclasses.Field) -> str:
    """What values a setting may have."""
    limits = field.metadata
    if limits["choices"] is not None:
        return ", ".join(shown_choices(field))
    words = {"low": "at least", "above": "above", "high": "at most"}
    parts = [f"{word} {shown(limits[name])}" for name, word in words.items() if limits[name] is not None]
    return ", ".join(parts)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), ["---"] * len(list(head)), *map(list, rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _differs(game: registry.Game, preset: str, key: str) -> bool:
    return game.gpu_presets[preset].get(key) != game.presets[preset].get(key)


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for room in configuration.all_rooms():
        rows = [
            (f"`{flag_of(field.name)}`", shown(field.default), bounds(field), field.metadata["help"])
            for field in dataclasses.fields(room)
        ]
        parts.append(
            f"## `[{room.table}]`: {room.title}\n\n" + table(("setting", "default", "values", "meaning"), rows)
        )
    games = registry.games()
    names = ("default", *learners.LEARNERS, "article")
    columns = [(game, name) for name in names for game in games if name in game.presets]
    named = [name for name in configuration.FIELDS if any(name in game.presets[preset] for game, preset in columns)]
    rows = [
        (
            f"`{flag_of(name)}`",
            *(shown(game.presets[p][name]) if name in game.presets[p] else "" for game, p in columns),
        )
        for name in named
    ]
    head = ("setting", *(f"`{game.name}`" + ("" if name == "default" else f", {name}") for game, name in columns))
    parts.append(
        "## Presets\n\n`--preset` chooses among named settings of a game: `default`, and `article` for the\n"
        "article's settings as far as they are not faults. A learner takes those under its name, where a game has\n"
        "such. What you give wins over presets. An empty\n"
        "cell is the default above.\n\n" + table(head, rows)
    )
    for learner in learners.LEARNERS:
        for name, values in learners.presets_of(learner).items():
            parts.append(
                f"## Preset `{name}` of `{learner}`\n\nOn top of the game's default preset.\n\n"
                + table(("setting", "value"), [(f"`{flag_of(key)}`", shown(value)) for key, value in values.items()])
            )
    on_gpu = [(game, name) for game in games for name in game.gpu_presets]
    named = dict.fromkeys(key for game, name in on_gpu for key in game.gpu_presets[name])
    named = [key for key in named if any(_differs(game, name, key) for game, name in on_gpu)]
    rows = [
        (f"`{flag_of(key)}`", *(shown(g.gpu_presets[n][key]) if _differs(g, n, key) else "" for g, n in on_gpu))
        for key in named
    ]
    head = ("setting", *(f"`{game.name}`" + ("" if name == "default" else f", {name}") for game, name in on_gpu))
    parts.append(
        "## Presets on a GPU\n\nThese take the place of the presets of the same names on a GPU, and are whole: sizes\n"
        "and schedules were chosen together. A setting that you give changes nothing else of them, and the start says\n"
        "what a size changes. An empty cell is as above. They have not been measured on one yet; some were trained on\n"
        "a CPU, to see [what they learn](performance.md#what-the-presets-for-a-gpu-learn).\n\n" + table(head, rows)
    )
    for learner in learners.LEARNERS:
        sizes = learners.settings_of(learner).GPU_SIZES
        parts.append(
            f"## Sizes on a GPU, `{learner}`\n\nWhat it begins with there on games whose preset of it has no sizes or "
            "schedules. They have not been measured yet.\n\n"
            + table(("setting", "value"), [(f"`{flag_of(name)}`", shown(value)) for name, value in sizes.items()])
        )
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
