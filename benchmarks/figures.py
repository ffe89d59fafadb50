"""Figures of curves: what `draw.py` is given, and how it is called."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers import environments
from tfdqn.errors import EXIT_IO, UserError

Points = Sequence[Sequence[Any]]  # of one seed: [x, y] each


def draw(figures: Mapping[Path, dict[str, Any]]) -> None:
    """Draw figures, as `draw.py` wants them, into the files given, in an environment of its own.

    Raises:
      UserError: a file cannot be written, or matplotlib cannot be installed.
    """
    command = [environments.python("figures"), Path(__file__).with_name("draw.py")]
    text = json.dumps({str(path): figure for path, figure in figures.items()})
    done = subprocess.run(command, input=text, text=True, stderr=subprocess.PIPE, encoding="utf-8")
    if done.returncode:
        raise UserError(f"figures: not drawn: {done.stderr.strip().splitlines()[-1]}", EXIT_IO)


def mean(seeds: Sequence[Points]) -> list[list[Any]]:
    """The mean of lists of [x, y] points, where each of them has one."""
    values: dict[Any, list[Any]] = {}
    for points in seeds:
        for x, y in points:
            values.setdefault(x, []).append(y)
    return [[x, sum(ys) / len(ys)] for x, ys in sorted(values.items()) if len(ys) == len(seeds)]
