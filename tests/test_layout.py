"""The floors of the package: who may import whom, and that what is one game's is told nowhere else."""

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tfdqn.envs import registry

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tfdqn"


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_of(path): path for path in PACKAGE.rglob("*.py")}


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def running(node: ast.AST) -> Iterator[ast.AST]:
    """A syntax tree's nodes, without what only a type checker reads."""
    for child in ast.iter_child_nodes(node):
        if is_type_checking(child):
            for other in child.orelse:
                yield from running(other)
            continue
        yield child
        yield from running(child)


def imports_of(source: str, module: str, is_package: bool, modules: set[str]) -> set[str]:
    """The modules of tfdqn that one imports, also inside functions."""
    found = set()
    for node in running(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".") if is_package else module.split(".")[:-1]
            base = ".".join(base[: len(base) - node.level + 1] if node.level else [])
            home = ".".join(part for part in (base, node.module) if part)
            names = [f"{home}.{alias.name}" for alias in node.names]
            names = [name if name in modules else home for name in names]
        else:
            continue
        found |= {name for name in names if name in modules}
    return found - {module}


IMPORTS = {
    module: imports_of(path.read_text("utf-8"), module, path.name == "__init__.py", set(FILES))
    for module, path in FILES.items()
}

# Folders that hold a room each: a new game or learner needs no line here.
ROOMS = {
    name: {module_of(path) for path in (PACKAGE / name).rglob("*.py") if path.parent not in shared}
    for name, shared in (("envs", {PACKAGE / "envs", PACKAGE / "envs" / "check"}), ("learners", {PACKAGE / "learners"}))
}


def named(names: str) -> set[str]:
    return {f"tfdqn.{name}" for name in names.split()}


def house(folder: str) -> set[str]:
    """The modules of a folder, and itself: all on one floor."""
    return {module for module in FILES if f"{module}.".startswith(f"tfdqn.{folder}.")}


# From the ground up. A file may import from its own floor and from those below.
FLOORS = [
    # The process, and the mechanism of settings.
    {"tfdqn"}
    | named("_quiet chart cli console dependencies errors files inputs metric paths seeds settings")
    | house("runtime"),
    # What games have in common; networks; the replay.
    named("envs envs.article envs.base envs.entering envs.host envs.loading envs.registry envs.rendering")
    | named("envs.rollout envs.spec optimizers")
    | house("envs.check")
    | house("networks")
    | house("replay"),
    # Games and learners, and all that they let a user choose.
    ROOMS["envs"]
    | ROOMS["learners"]
    | named("learners learners.base learners.exploration learners.losses learners.metrics learners.replaying")
    | named("members population replicas")
    | named("learners.networked learners.optimizing learners.rooms learners.rounds config run_settings")
    | named("templates templates.game templates.test_game"),
    # What is compiled; other libraries' games.
    house("programs") | house("adapters"),
    # A run's life.
    house("runs"),
    # Trained agents in other formats; games for people.
    house("exports") | house("shown"),
    # The public face and the commands.
    named("__main__ agent_api check_env evaluate export flags list_runs new_game play plot record sweep train watch"),
]
# They find what has a name by that name, so that nothing else has to know what there is.
REGISTRIES = {"tfdqn"} | named("__main__ adapters.from_gymnasium envs envs.loading envs.registry evaluate learners")


def upward(imports: dict[str, set[str]]) -> list[str]:
    """Imports of something on a higher floor."""
    level = {module: number for number, floor in enumerate(FLOORS) for module in floor}
    return [
        f"{module} imports {other}"
        for module, others in sorted(imports.items())
        for other in sorted(others)
        if level.get(other, 0) > level.get(module, 0)  # one without a floor fails its own test
    ]


def circle(imports: dict[str, set[str]]) -> list[str]:
    """The modules of one circle, or none."""
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def test_every_file_is_on_one_floor():
    placed = [module for floor in FLOORS for module in floor]
    assert sorted(placed) == sorted(FILES)


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no git checkout")
def test_no_source_is_hidden_from_git_and_with_it_from_ruff():
    paths = [str(path.relative_to(ROOT)) for path in FILES.values()]
    command = ["git", "check-ignore", "--no-index", "--stdin"]
    ignored = subprocess.run(command, input="\n".join(paths), capture_output=True, text=True, cwd=ROOT, check=False)
    assert (ignored.returncode, ignored.stdout) == (1, "")  # 1: none is ignored


def test_no_file_imports_from_a_higher_floor():
    assert upward(IMPORTS) == []


def test_no_files_import_each_other_in_a_circle():
    assert circle(IMPORTS) == []


def test_the_saver_does_not_know_the_loop():
    assert "tfdqn.runs.loop" not in FILES["tfdqn.runs.saving"].read_text("utf-8")  # not for a type checker either


def imports_by_name(source: str) -> bool:
    named = (getattr(node, "attr", getattr(node, "id", "")) for node in ast.walk(ast.parse(source)))
    return not {"import_module", "__import__"}.isdisjoint(named)


def test_only_registries_import_by_name():
    assert {module for module, path in FILES.items() if imports_by_name(path.read_text("utf-8"))} == REGISTRIES


def test_what_the_floors_are_held_by_sees_faults():
    modules = {"tfdqn.seeds", "tfdqn.learners.dqn.agent", "tfdqn.runs.loop", "tfdqn.envs.base"}
    source = """
from typing import TYPE_CHECKING
import tfdqn.seeds
if TYPE_CHECKING:
    from tfdqn.runs import loop
def late():
    from tfdqn.learners.dqn import agent
    from ..envs.base import TimeStep
"""
    found = imports_of(source, "tfdqn.replay.table", False, modules)
    assert found == {"tfdqn.seeds", "tfdqn.learners.dqn.agent", "tfdqn.envs.base"}
    assert upward({"tfdqn.replay.table": found}) == ["tfdqn.replay.table imports tfdqn.learners.dqn.agent"]
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) and not circle({"a": {"b", "c"}, "b": {"c"}})


# --- One game's ---

HOMONYMS = {"tfdqn.runtime.memory": ["memory"]}  # what the kernel calls one of its controllers


def told_games(module: str, source: str, games: set[str], rooms: set[str]) -> list[str]:
    """Where a file names a game that comes along, in code: a text that is its name, or an import of its room."""
    tree = ast.parse(source)
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    imports = imports_of(source, module, False, set(FILES))
    return sorted((texts & games) | {name for name in imports | texts if name in rooms})


def test_no_file_outside_a_games_folder_and_the_registry_names_it():
    games = {game.name for game in registry.games()}
    assert {"cave", "catch8"} <= games
    told = {
        module: told_games(module, path.read_text("utf-8"), games, ROOMS["envs"])
        for module, path in FILES.items()
        if module not in ROOMS["envs"] and module != "tfdqn.envs.registry"
    }
    assert {module: names for module, names in told.items() if names} == HOMONYMS


def test_what_names_a_game_is_seen():
    games, rooms = {"cave"}, ROOMS["envs"]
    assert told_games("tfdqn.runs.loop", 'if env != "cave": pass', games, rooms) == ["cave"]
    late = "def f():\n    from tfdqn.envs.cave import rules"
    assert told_games("tfdqn.runs.loop", late, games, rooms) == ["tfdqn.envs.cave.rules"]
    help_text = "'Such as --env cave.'\nhelp = 'of games that have one (cave)'"
    assert told_games("tfdqn.runs.loop", help_text, games, rooms) == []


# --- What playing needs ---

PLAYING = """
import sys
import numpy as np
import tfdqn
from tfdqn import evaluate, record

folder = sys.argv[1]
agent = tfdqn.Agent("catch8", seed=1)
agent.save(folder)
assert evaluate.main([folder, "--episodes=2", "--device=cpu"]) == 0
assert record.main([folder, "--frames=2", "--out", folder + "/a.gif"]) == 0
packaged = tfdqn.load("pretrained:catch8")
packaged.act(np.zeros(packaged.model.online.input_shape[1:], np.uint8))
player = tfdqn.load(folder)
assert player.evaluate(episodes=2)["episodes"] == 2
print(sorted({"tf_agents", "tensorflow_probability", "gym", "tfdqn.replay.table"} & set(sys.modules)))
"""


def test_an_agent_is_loaded_and_plays_without_what_a_replay_needs(tmp_path):
    command = [sys.executable, "-c", PLAYING, str(tmp_path / "agent")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "[]"
