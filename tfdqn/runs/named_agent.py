"""How a command is told which trained agent plays, and which code may run with it."""

from __future__ import annotations

import argparse
import functools
from pathlib import Path

from tfdqn import config as configuration
from tfdqn import paths
from tfdqn.errors import UserError
from tfdqn.runs import member, models


def add_agent_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that name a trained agent, for `agent_folder`."""
    parser.add_argument(
        "run_dir", nargs="?", type=functools.partial(paths.local, ""), default=None, help="a run's folder"
    )
    parser.add_argument("--pretrained", metavar="GAME", default=None, help="take the agent that comes with tfdqn")
    parser.add_argument("--model", choices=list(models.MODELS), default="best", help="which of the run's agents plays")


def add_code_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments by which a user says which code may run with an agent, for `named_code`."""
    parser.add_argument("--env", default=None, help="its game, where that does not come along with tfdqn")
    parser.add_argument("--network", default=None, help="its network, likewise")


def named_code(arguments: argparse.Namespace) -> dict[str, str]:
    """The settings that `add_code_arguments` asks for, for `read_config`."""
    return {
        name: getattr(arguments, name) for name in configuration.CODE_FIELDS if getattr(arguments, name) is not None
    }


def agent_folder(arguments: argparse.Namespace) -> Path:
    """The folder that holds a trained agent's `config.toml` and models."""
    run_dir, game = arguments.run_dir, arguments.pretrained
    if (run_dir is None) == (game is None):
        raise UserError("name either the folder of a run, such as runs/NAME, or --pretrained GAME")
    if game is None:
        if not hasattr(arguments, "member") and member.numbers_of(Path(run_dir)):  # a command that takes one agent
            raise UserError(f"{run_dir}: holds a population; name one of its members, such as {run_dir}/members/00")
        return Path(run_dir)
    folder = models.pretrained_folder(game)
    if arguments.model != "best":
        raise UserError(f"--model {arguments.model}: --pretrained has the best agent only; leave it out")
    return folder
