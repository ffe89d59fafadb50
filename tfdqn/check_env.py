"""Check that a game keeps the contract of games: `python -m tfdqn.check_env my_game.py:MyGame`.

The module can be called, too: `tfdqn.check_env(env)` is `tfdqn.envs.check.check_env`.
"""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Sequence
from typing import Any

from tfdqn import cli
from tfdqn.envs import loading, registry
from tfdqn.errors import UserError
from tfdqn.runtime import devices

EXIT_FAULT = 1  # the game does not keep the contract
NUM_ENVS, STEPS = (4, 4096), (1, 1000)  # from, to


def parser() -> cli.Parser:
    parser = cli.Parser(
        prog="python -m tfdqn.check_env",
        description="Check that a game keeps the contract of games: one line a check, exit code 1 if one fails.",
    )
    parser.add_argument("spec", help="my_game.py:MyGame, package.module:Class, or the name of a game of tfdqn")
    parser.add_argument("--env-args", default="", help="""arguments of the constructor, such as '{"size": 8}'""")
    parser.add_argument("--num-envs", type=cli.converter("--num-envs", int), default=16, help="environments to play")
    parser.add_argument(
        "--steps", type=cli.converter("--steps", int), default=32, help="moves to make again in other ways"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse(argv)
    for name, (low, high) in (("num_envs", NUM_ENVS), ("steps", STEPS)):
        value = getattr(arguments, name)
        if not low <= value <= high:
            nearest_value = min(max(value, low), high)
            raise UserError(
                f"--{name.replace('_', '-')} {value}: must be between {low} and {high}; use {nearest_value}"
            )
    try:
        game = registry.entry(arguments.spec)
    except UserError as error:  # here it goes by no flag
        raise UserError(str(error).removeprefix("--env ")) from None
    given = loading.parse_arguments(arguments.env_args)
    if given and not game.takes_arguments:
        raise UserError(f"--env-args {arguments.env_args}: {arguments.spec} takes none; leave it out")
    devices.choose_device("cpu")
    env = game.make(arguments=given)
    if env.steps_on_host:
        raise UserError(f"{arguments.spec}: steps on the host, and is checked by its own library's means")

    from tfdqn.envs import check

    results = []
    for result in check.results_of(env, arguments.num_envs, arguments.steps):
        results.append(result)
        if not arguments.json:
            cli.print_result(f"{result}\n")
    faults = [result.name for result in results if result.is_fault]
    if arguments.json:
        rows = [result._asdict() for result in results]
        cli.print_result(json.dumps({"env": arguments.spec, "passed": not faults, "checks": rows}) + "\n")
    cli.say(f"{arguments.spec}: " + (f"{len(faults)} failed: {', '.join(faults)}" if faults else "keeps the contract"))
    return EXIT_FAULT if faults else 0


class _CallableModule(types.ModuleType):
    """Lets the command and the function have one name, whichever of them was imported first."""

    def __call__(self, *args: Any, **kwargs: Any) -> list:
        from tfdqn.envs import check

        return check.check_env(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableModule

if __name__ == "__main__":
    cli.run(main)
