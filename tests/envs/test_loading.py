"""Games from files and modules of the user's: what is loaded, what is recorded, and one line for whatever is wrong."""

import hashlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tfdqn import envs
from tfdqn.envs import loading
from tfdqn.errors import EXIT_BAD_INPUT, UserError

ROOT = Path(__file__).parent.parent.parent
GAME = """
import typing

import tensorflow as tf

from tfdqn import seeds
from tfdqn.envs import Environment, ObservationSpec, TimeStep


class State(typing.NamedTuple):
    time: tf.Tensor


class Waiting(Environment):
    num_actions = 2
    version = 7

    def __init__(self, size: int = 4, *, speed=1.0):
        if size < 1:
            raise ValueError(f"no size {size}: use 1")
        self.observation_spec = ObservationSpec((size,))
        self.speed = speed

    def sample_noise(self, seed, num_envs):
        return tf.cast(seeds.draw(seed, num_envs) % 3, tf.int32)

    def reset(self, noise):
        return State(tf.zeros_like(noise))

    def step(self, state, action, noise):
        state, no = State(state.time + 1), tf.zeros_like(noise, tf.bool)
        return state, TimeStep(self.observe(state), tf.cast(action, tf.float32), no, no)

    def observe(self, state):
        return tf.zeros([tf.shape(state.time)[0], *self.observation_shape], tf.uint8)


class Needy(Waiting):
    def __init__(self, level):
        super().__init__()
        self.level = level


class Half(Environment):
    num_actions, observation_spec = 2, ObservationSpec((4,))

    def sample_noise(self, seed, num_envs):
        return seed

    def reset(self, noise):
        return noise


class Silent(Waiting):
    def __init__(self):
        pass


class NoGame:
    pass


def make_waiting(size, **more):
    return Waiting(size)


def make_nothing():
    pass


made = Waiting()
"""


@pytest.fixture(autouse=True)
def restored_imports(monkeypatch):
    """A test's folders and modules are no later test's."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if not name.startswith("t"):  # tensorflow, tfdqn
            del sys.modules[name]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with a game in it."""
    (tmp_path / "my_game.py").write_text(GAME)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))


@pytest.mark.parametrize("spec", ["my_game.py:Waiting", "./my_game.py:Waiting", "my_game:Waiting"])
def test_a_game_is_made_from_a_file_or_a_module(folder, spec):
    env = loading.load(spec, '{"size": 5, "speed": 2}')
    assert isinstance(env, envs.Environment)
    assert (env.name, env.observation_shape, env.speed) == ("Waiting", (5,), 2)
    assert loading.load(spec).observation_shape == (4,)
    source = loading.source_of(spec, {"size": 5})
    digest = hashlib.sha256(GAME.encode()).hexdigest()
    assert source == loading.GameSource(spec, {"size": 5}, 7, digest)
    assert loading.source_of(spec, '{"size": 5}', env) == source


def test_a_module_in_a_package_and_a_function_that_makes_a_game(folder):
    write(folder / "games" / "__init__.py", "")
    write(folder / "games" / "waiting.py", GAME)
    assert loading.load("games.waiting:make_waiting", {"size": 3, "unused": 1}).observation_shape == (3,)
    assert loading.load(f"{folder}/games/waiting.py:make_waiting", {"size": 3}).observation_shape == (3,)


def test_a_file_imports_its_neighbours_now_and_later(folder):
    write(folder / "far" / "helpers.py", "SIZE = 6")
    write(folder / "helpers.py", "SIZE = 1")
    write(
        folder / "far" / "game.py",
        """
        import my_game
        from helpers import SIZE
        def make():
            import later
            return my_game.Waiting(SIZE + later.MORE)
        """,
    )
    write(folder / "far" / "later.py", "MORE = 10")
    write(folder / "far" / "my_game.py", GAME)
    path = list(sys.path)
    assert loading.load("far/game.py:make").observation_shape == (16,)
    assert sys.path == [*path, str(folder / "far")], "a game's folder must not hide other modules"


def test_games_of_one_name_do_not_mix_and_an_edited_one_is_loaded_anew(folder):
    write(folder / "other" / "my_game.py", GAME.replace("version = 7", "version = 8"))
    first, second = loading.load("my_game.py:Waiting"), loading.load("other/my_game.py:Waiting")
    assert (first.version, second.version) == (7, 8)
    assert type(loading.load("my_game.py:Waiting")) is type(first)
    (folder / "my_game.py").write_text(GAME.replace("version = 7", "version = 9"))
    assert loading.load("my_game.py:Waiting").version == 9
    assert "my_game" not in sys.modules


def test_the_digest_runs_nothing(folder):
    write(folder / "loud.py", "raise SystemExit('ran')\nclass Game: pass")
    assert loading.sha256_of("loud.py:Game") == hashlib.sha256((folder / "loud.py").read_bytes()).hexdigest()
    assert loading.sha256_of("loud:Game") == loading.sha256_of("loud.py:Game")


WRONG_BEFORE_IT_RUNS = [
    ("my_gaem.py:Waiting", "no such file my_gaem.py: did you mean 'my_game.py'?"),
    ("nowhere/my_game.py:Waiting", "no such file nowhere/my_game.py"),
    (".:Waiting", "must be package.module:Class|no name of a module"),
    ("./:Waiting", "./ is a folder: name a file in it, such as ./my_game.py"),
    ("no/notes.txt:Waiting", "no such file"),
    ("./notes.txt:Waiting", "no Python file: its name must end in .py"),
    ("my_game.py", "names a file, but no class in it: write my_game.py:Waiting"),
    ("my_game.py:", "must be package.module:Class or path/to/my_game.py:MyGame"),
    (":Waiting", "must be package.module:Class"),
    ("my_game", "must be package.module:Class"),
    ("my_game.py:Waitin", "no Waitin in my_game.py: did you mean 'Waiting'?"),
    ("my_game:Waitin", "no Waitin in my_game.py: did you mean 'Waiting'?"),
    ("empty.py:Game", "no Game in empty.py: it defines no class"),
    ("my-game:Waiting", "my-game is no name of a module"),
    ("my_gaem:Waiting", "no module my_gaem in the current folder or on Python's path"),
    ("my_game.sub:Waiting", "no module my_game.sub|my_game raised"),
    ("package:Game", "package has no file of its own"),
    ("broken.py:Game", "broken.py line 2: SyntaxError: "),
]


@pytest.mark.parametrize("spec, message", WRONG_BEFORE_IT_RUNS)
def test_what_is_wrong_with_a_spec_is_one_line(folder, spec, message):
    write(folder / "notes.txt", "")
    write(folder / "empty.py", "")
    write(folder / "broken.py", "import os\nclass Game(:\n    pass")
    (folder / "package").mkdir()
    refused(spec, None, *message.split("|"))


def refused(spec, arguments, *messages):
    with pytest.raises(UserError) as error:
        loading.load(spec, arguments)
    text = str(error.value)
    assert any(message in text for message in messages), text
    assert "\n" not in text and error.value.exit_code == EXIT_BAD_INPUT
    return text


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("{size: 8}", "not JSON (Expecting property name"),
        ("8", "must be names and values, such as"),
        ("[8]", "must be names and values"),
        ('{"size": NaN}', "NaN is no number in JSON"),
        ('{"sise": 8}', "Waiting has no argument 'sise': it takes size=4, speed=1.0; did you mean 'size'?"),
        ('{"size": 0}', "Waiting raised ValueError: no size 0: use 1"),
        ('{"size": "8"}', "Waiting raised TypeError: '<' not supported"),
    ],
)
def test_wrong_arguments_are_one_line_that_says_what_it_takes(folder, arguments, message):
    refused("my_game.py:Waiting", arguments, message)


@pytest.mark.parametrize(
    "name, message",
    [
        ("Needy", "Needy needs the argument 'level': it takes level; give it with --env-args"),
        ("make_waiting", "make_waiting needs the argument 'size'"),
        ("Half", "Half lacks observe and step: see tfdqn.envs.Environment"),
        ("NoGame", "NoGame is no game: write class NoGame(tfdqn.envs.Environment)"),
        ("State", "State is no game"),
        ("made", "made is a Waiting: name a class of games, or a function that returns one"),
        ("make_nothing", "make_nothing returned nothing, not a game"),
        ("Silent", "Silent does not say what it shows: set observation_spec"),
    ],
)
def test_what_is_no_game_is_one_line(folder, name, message):
    refused(f"my_game.py:{name}", None, message)


@pytest.mark.parametrize(
    "text, message",
    [
        ("import no_such_package", "ModuleNotFoundError: No module named 'no_such_package' (line 2)"),
        ("from tfdqn.envs import Enviroment", "ImportError: cannot import name 'Enviroment'"),
        ("1 / 0", "ZeroDivisionError: division by zero (line 2)"),
        ("raise SystemExit(3)", "SystemExit: 3 (line 2)"),
        ("raise ValueError('two\\nlines')", "ValueError: two (line 2)"),
    ],
)
@pytest.mark.parametrize("spec", ["raises.py:Game", "raises:Game", "inside.raises:Game"])
def test_a_file_that_raises_is_one_line(folder, text, message, spec):
    for path in (folder / "raises.py", folder / "inside" / "raises.py"):
        write(path, f"\n{text}\nclass Game: pass")
    assert f"{spec}: raises.py raised " in refused(spec, None, message)


def test_a_package_that_raises_is_not_one_that_is_missing(folder):
    write(folder / "bad" / "__init__.py", "import no_such_package")
    write(folder / "bad" / "game.py", GAME)
    refused("bad.game:Waiting", None, "bad raised ModuleNotFoundError: No module named 'no_such_package'")


def test_names_that_the_text_does_not_tell_are_found(folder):
    write(folder / "dynamic.py", GAME + "\nglobals()['Late'] = Waiting\n")
    assert loading.load("dynamic.py:Late").version == 7
    write(folder / "star.py", "from my_game import *")
    assert loading.load("star.py:Waiting").version == 7
    refused("star.py:Watching", None, "no Watching in star.py: did you mean 'Waiting'?")


def test_what_is_wrong_is_said_without_tensorflow(folder):
    write(folder / "empty.py", "")
    code = """
import sys
from tfdqn.envs import loading
from tfdqn.errors import UserError
for spec in ["empty.py:Game", "my_game.py:Waitin", "my_game.py:Waiting", "no.py:A"]:
    try:
        loading.load(spec, "{" if spec.endswith("Waiting") else None)
    except UserError as error:
        print(error)
assert "tensorflow" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 4
