"""The command `tfdqn`: `tfdqn train --env cave`, and the like. Each is also `python -m tfdqn.train`, and so on."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import tfdqn
from tfdqn import cli
from tfdqn.errors import UserError, nearest

# word: (module, what it does)
COMMANDS = {
    "train": ("tfdqn.train", "train an agent, or go on with a run"),
    "evaluate": ("tfdqn.evaluate", "play whole episodes with a trained agent"),
    "watch": ("tfdqn.watch", "watch a trained agent play in the terminal"),
    "record": ("tfdqn.record", "film a trained agent as a GIF or MP4"),
    "export": ("tfdqn.export", "write a trained agent for programs that know nothing of tfdqn"),
    "runs": ("tfdqn.list_runs", "list the runs of a folder"),
    "plot": ("tfdqn.plot", "draw the curves of runs, runs of several seeds as one"),
    "play": ("tfdqn.play", "play a game yourself"),
    "check-env": ("tfdqn.check_env", "check a game of your own"),
    "new-game": ("tfdqn.new_game", "write a game to begin with"),
}


def main(argv: Sequence[str] | None = None) -> int:
    words = sys.argv[1:] if argv is None else list(argv)
    if not words or words[0] in ("-h", "--help"):
        lines = [f"  {word:<12}{text}" for word, (_, text) in COMMANDS.items()]
        cli.print_result("\n".join(["usage: tfdqn COMMAND ...", "", *lines, "", "tfdqn COMMAND -h has the rest.", ""]))
        return 0
    if words[0] == "--version":
        cli.print_result(f"tfdqn {tfdqn.__version__}\n")
        return 0
    if words[0] not in COMMANDS:
        raise UserError(f"{words[0]}: no such command; {nearest(words[0], COMMANDS)}")
    command = importlib.import_module(COMMANDS[words[0]][0]).main
    # Seconds count from the start of the process, where this is the process's own command line.
    is_timed = words[0] in ("train", "evaluate")
    return command(words[1:], **({"start_seconds": tfdqn.PROCESS_START_SECONDS} if is_timed else {}))


def entry_point() -> None:
    """What the installed command `tfdqn` runs."""
    cli.run(main)


if __name__ == "__main__":
    entry_point()
