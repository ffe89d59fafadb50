"""Begin a game of one's own: `python -m tfdqn.new_game NAME` writes NAME.py, a small whole game, and its test."""

from __future__ import annotations

import keyword
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from tfdqn import cli
from tfdqn.errors import EXIT_IO, UserError

TEMPLATES = Path(__file__).parent / "templates"
FILES = {"game.py": "{name}.py", "test_game.py": "test_{name}.py"}
TEMPLATE_CLASS, TEMPLATE_MODULE = "MyGame", "my_game"
# Classes that the template has, or imports, beside the game itself.
TAKEN = {"Noise", "State", "NamedTuple", "Environment", "ObservationSpec", "TimeStep"}
LIBRARIES = {"tensorflow", "tfdqn", "numpy", "keras", "tf_keras", "tf_agents", "pytest", "conftest"}


def parser() -> cli.Parser:
    parser = cli.Parser(
        prog="python -m tfdqn.new_game",
        description="Write a small whole game, NAME.py, and its test, test_NAME.py, into the current folder.",
    )
    parser.add_argument("name", help="of the file without .py, such as my_game")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    name = parser().parse(argv).name
    valid = valid_name(name)
    if name != valid:
        raise UserError(f"{name!r} cannot name a game's file that others import: use {valid}")
    texts = {Path(file.format(name=name)): _filled_in(template, name) for template, file in FILES.items()}
    for path in texts:
        if path.exists() or path.is_symlink():
            raise UserError(f"{path} is there already, and is left as it is: use another name")
    for path, text in texts.items():
        try:
            with open(path, "x", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise UserError(f"{path}: {error.strerror or error}", EXIT_IO) from None
    cli.say(f"wrote {' and '.join(map(str, texts))}; next:")
    spec = f"{name}.py:{class_name(name)}"
    print(f"python -m tfdqn.check_env {spec}")
    print(f"python -m tfdqn.train --env {spec} --minutes 1")
    return 0


def valid_name(name: str) -> str:
    """`name` if a module can be called so and hides no other one, or the nearest name of which that is true."""
    valid = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.removesuffix(".py")).lower()
    valid = re.sub(r"[^a-z0-9]+", "_", valid).strip("_")[:60].rstrip("_")
    if not valid or valid[0].isdigit():
        valid = f"game_{valid}".rstrip("_")
    if (
        valid in LIBRARIES
        or valid in sys.stdlib_module_names
        or keyword.iskeyword(valid)
        or keyword.issoftkeyword(valid)
    ):
        valid += "_game"
    return valid


def class_name(name: str) -> str:
    """The name of the class in a module of this name: MyGame of my_game."""
    joined = "".join(word[:1].upper() + word[1:] for word in name.split("_"))
    return joined + "Game" if joined in TAKEN else joined


def _filled_in(template: str, name: str) -> str:
    text = (TEMPLATES / template).read_text(encoding="utf-8")
    return text.replace(TEMPLATE_CLASS, class_name(name)).replace(TEMPLATE_MODULE, name)


if __name__ == "__main__":
    cli.run(main)
