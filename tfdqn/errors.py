"""How a command ends, and the one-line errors that a user sees."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_BAD_INPUT = 2
EXIT_REFUSED = 3  # a run's folder: locked, of other settings, or without a whole checkpoint
EXIT_NUMERIC = 4
EXIT_IO = 5
EXIT_LOST = 6  # another process of the run is gone


class UserError(Exception):
    """Something the user can mend. Commands print it as one line and end with `exit_code`."""

    def __init__(self, message: str, exit_code: int = EXIT_BAD_INPUT):
        super().__init__(message)
        self.exit_code = exit_code


def nearest(value: str, allowed: Iterable[str]) -> str:
    """A hint that names the closest allowed value, or all of them: "did you mean 'cave'?"."""
    allowed = list(allowed)
    close = difflib.get_close_matches(value, allowed, n=1)
    return f"did you mean {close[0]!r}?" if close else "choose one of " + ", ".join(allowed)
