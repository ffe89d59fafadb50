"""Games from anywhere: `package.module:Class` or `path/to/my_game.py:MyGame`. No TensorFlow up here.

What is wrong with a name, a file or its arguments is said before the file runs, as far as its text tells.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import hashlib
import importlib
import importlib.util
import inspect
import json
import operator
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from tfdqn.envs.base import Environment
from tfdqn.errors import UserError, nearest

_adopted: dict[str, Any] = {}  # by spec, what is in this process already

BY_STRING = ("exec", "globals", "setattr", "vars")  # whoever calls these may define names that the text does not tell


@dataclasses.dataclass(frozen=True)
class GameSource:
    """Where a game came from, to be kept with a run."""

    spec: str  # as it was given
    arguments: dict[str, Any]  # of its constructor
    version: int  # the game's own
    sha256: str  # of the file that its class is loaded from; of no other file which that one imports


def is_spec(name: str) -> bool:
    """Whether `name` is of a game from elsewhere: those here have no colon, dot or slash in their names."""
    return any(sign in name for sign in ":./")


def is_moved(spec: str, held: str) -> bool:
    """Whether two specs are of the same name in files of the same name, wherever these lie."""
    places = [each.rpartition(":") for each in (spec, held)]
    files = {(Path(where).name, name) for where, _, name in places if _is_file(where)}
    return len(files) == 1 and all(_is_file(where) for where, _, _ in places)


def adopt(thing: Any) -> str:
    """Give a class or a function that is in this process already its spec, for this process.

    Returns:
      "module:name" with the module and the name that it has itself. Another thing of that name takes its place.
    """
    name = getattr(thing, "__qualname__", None) or type(thing).__qualname__
    spec = f"{getattr(thing, '__module__', None) or '__main__'}:{name}"
    _adopted[spec] = thing
    return spec


def load(spec: str, arguments: str | Mapping[str, Any] | None = None) -> Environment:
    """Make the game of a class, or of a function that returns one.

    The file is run with its folder on the path, so that it may import its neighbours; a module is looked for in the
    current folder, too. The same file is loaded once, and again when its content has changed.

    Args:
      spec: "package.module:Class" or "path/to/my_game.py:MyGame".
      arguments: of the constructor, by name: JSON, such as '{"size": 8}', or a mapping.

    Raises:
      UserError: one line: no such file, module or class, it raised, it is no `Environment`, it lacks a method, or it
        does not take these arguments.
    """
    given = parse_arguments(arguments)
    factory = find(spec)
    where, name = _split(spec)
    path = _source_path(where, spec)
    env = call(factory, given, name, spec)
    if not isinstance(env, Environment):
        raise UserError(f"{spec}: {name} returned {_kind_of(env)}, not a game: return a tfdqn.envs.Environment")
    for attribute in ("observation_shape", "num_actions"):  # whichever way a game says them
        try:
            getattr(env, attribute)
        except Exception as error:
            raise UserError(f"{spec}: {_told(error, path)}") from None
    return env


def find(spec: str) -> Any:
    """The class or function of a spec; its file is run for it.

    Raises:
      UserError: one line: no such file, module or name, or it raised.
    """
    if spec in _adopted:
        return _adopted[spec]
    require(spec)
    where, name = _split(spec)
    module = _run(where, _source_path(where, spec), spec)
    if not hasattr(module, name):
        raise UserError(f"{spec}: no {name} in {where}: {_hint(name, _games_in(module))}")
    return getattr(module, name)


def require(spec: str) -> None:
    """Refuse a spec whose file or name is not there, before anything in that file runs.

    Raises:
      UserError: as `load`, as far as it shows.
    """
    if spec not in _adopted:
        where, name = _split(spec)
        _require_name(_source_path(where, spec), name, spec)


def source_of(
    spec: str, arguments: str | Mapping[str, Any] | None = None, env: Environment | None = None
) -> GameSource:
    """Where the game of `spec` comes from.

    Args:
      spec: as of `load`.
      arguments: as of `load`.
      env: the game, if it has been made already.

    Raises:
      UserError: as `load`.
    """
    env = load(spec, arguments) if env is None else env
    return GameSource(spec, parse_arguments(arguments), env.version, sha256_of(spec))


def sha256_of(spec: str) -> str:
    """The SHA-256, in hexadecimal digits, of the file that `spec` names. Runs no code of a game in a file.

    To find a module inside packages, Python runs the packages' own `__init__.py`.

    Raises:
      UserError: no such file or module.
    """
    where, _ = _split(spec)
    return hashlib.sha256(_read(_source_path(where, spec), spec)).hexdigest()


def parse_arguments(arguments: str | Mapping[str, Any] | None) -> dict[str, Any]:
    """A constructor's arguments from JSON.

    Raises:
      UserError: not JSON, or not an object of JSON.
    """
    if not arguments or not isinstance(arguments, str):
        return dict(arguments or {})
    example = """such as '{"size": 8}'"""

    def refuse(constant: str) -> None:
        raise UserError(f"--env-args {arguments}: {constant} is no number in JSON")

    try:
        value = json.loads(arguments, parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise UserError(f"--env-args {arguments}: not JSON ({error}); write names and values, {example}") from None
    if not isinstance(value, dict):
        raise UserError(f"--env-args {arguments}: must be names and values, {example}")
    return value


def arguments_of(env: Environment) -> dict[str, Any] | None:
    """What a game was made with, by name, as JSON holds it; None where that cannot be told.

    What its constructor would take anyway is left out.
    """
    made = vars(env).get("_made_with")
    try:
        if made is None and dataclasses.is_dataclass(env):
            given = {field.name: getattr(env, field.name) for field in dataclasses.fields(env) if field.init}
        else:
            given = _by_name(type(env), *(made or ((), {})))
        return differing(type(env), json.loads(_as_json(given)))
    except (TypeError, ValueError):
        return None


def differing(cls: type, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a constructor's arguments that are not its defaults."""
    parameters = inspect.signature(cls).parameters
    kept = {}
    for name, value in arguments.items():
        try:
            is_default = name in parameters and json.loads(_as_json(parameters[name].default)) == value
        except (TypeError, ValueError):  # it has none, or none that JSON holds
            is_default = False
        if not is_default:
            kept[name] = value
    return kept


def _as_json(value: Any) -> str:
    return json.dumps(value, allow_nan=False, default=operator.index)


def _by_name(cls: type, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    signature = inspect.signature(cls)
    given = dict(signature.bind(*args, **kwargs).arguments)
    for name, parameter in signature.parameters.items():
        if parameter.kind == parameter.VAR_POSITIONAL and name in given:
            raise TypeError(f"{name} have no names")
        if parameter.kind == parameter.VAR_KEYWORD:
            given |= given.pop(name, {})
    return given


def call(factory: Any, arguments: Mapping[str, Any], name: str, spec: str) -> Any:
    """`factory(**arguments)`, or one line that says why not.

    Args:
      factory: a class of games, or a function that returns a game.
      arguments: by name.
      name: the factory's, for the message.
      spec: where it comes from, for the message.

    Raises:
      UserError: it is neither, lacks methods, takes other arguments, or raises.
    """
    if inspect.isclass(factory) and not issubclass(factory, Environment):
        raise UserError(f"{spec}: {name} is no game: write class {name}(tfdqn.envs.Environment)")
    if not callable(factory):
        raise UserError(f"{spec}: {name} is {_kind_of(factory)}: name a class of games, or a function that returns one")
    if missing := sorted(getattr(factory, "__abstractmethods__", ())):
        raise UserError(f"{spec}: {name} lacks {' and '.join(missing)}: see tfdqn.envs.Environment")
    _require_taken(factory, arguments, name, spec)
    try:
        return factory(**arguments)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{spec}: {name} raised {_told(error)}") from None


def _require_taken(factory: Callable, arguments: Mapping[str, Any], name: str, spec: str) -> None:
    """Refuse arguments that the factory has no place for, and the lack of those that it needs."""
    try:
        parameters = inspect.signature(factory).parameters
    except ValueError:  # some built-in functions do not tell
        return
    named = {
        key: value
        for key, value in parameters.items()
        if value.kind in (value.POSITIONAL_OR_KEYWORD, value.KEYWORD_ONLY)
    }
    takes = ", ".join(key + _default(value) for key, value in named.items()) or "no arguments"
    takes_any = any(value.kind == value.VAR_KEYWORD for value in parameters.values())
    for key in arguments:
        if key not in named and not takes_any:
            hint = f"; {nearest(key, named)}" if named else ""
            raise UserError(f"{spec}: {name} has no argument {key!r}: it takes {takes}{hint}")
    for key, value in named.items():
        if value.default is value.empty and key not in arguments:
            raise UserError(f"{spec}: {name} needs the argument {key!r}: it takes {takes}; give it with --env-args")


def _default(parameter: inspect.Parameter) -> str:
    return "" if parameter.default is parameter.empty else f"={parameter.default!r}"


def _split(spec: str) -> tuple[str, str]:
    """The file or module, and the name in it."""
    where, colon, name = spec.rpartition(":")
    if not colon and _is_file(spec):
        names = _games_of(Path(spec).expanduser())
        raise UserError(f"{spec}: names a file, but no class in it: write {spec}:{names[0] if names else 'MyGame'}")
    if not where or not name.isidentifier():
        raise UserError(f"{spec}: must be package.module:Class or path/to/my_game.py:MyGame")
    return where, name


def _is_file(where: str) -> bool:
    return where.endswith(".py") or "/" in where or "\\" in where


def _source_path(where: str, spec: str) -> Path:
    """The file behind the part before the colon."""
    if _is_file(where):
        path = Path(where).expanduser()
        if path.is_dir():
            raise UserError(f"{spec}: {where} is a folder: name a file in it, such as {where.rstrip('/')}/my_game.py")
        if not path.is_file():
            folder = path.parent
            beside = [str(other) for other in sorted(folder.glob("*.py"))] if folder.is_dir() else []
            raise UserError(f"{spec}: no such file {where}{': ' + _hint(str(path), beside) if beside else ''}")
        if path.suffix != ".py":
            raise UserError(f"{spec}: {where} is no Python file: its name must end in .py")
        return path.resolve()
    if not all(part.isidentifier() for part in where.split(".")):
        raise UserError(f"{spec}: {where} is no name of a module: write package.module:Class, or a path ending in .py")
    with _on_path(Path.cwd(), first=False):
        try:
            found = importlib.util.find_spec(where)
        except ModuleNotFoundError as error:
            if not _is_prefix(error.name, where):
                raise UserError(f"{spec}: {where.rpartition('.')[0]} raised {_told(error)}") from None
            found = None
        except (Exception, SystemExit) as error:
            raise UserError(f"{spec}: {where.rpartition('.')[0]} raised {_told(error)}") from None
    if found is None:
        hint = f"; for a file, write {where}.py" if Path(f"{where}.py").is_file() else ""
        raise UserError(f"{spec}: no module {where} in the current folder or on Python's path{hint}")
    if not found.origin or not Path(found.origin).is_file():
        raise UserError(f"{spec}: {where} has no file of its own: name a module in it")
    return Path(found.origin)


def _require_name(path: Path, name: str, spec: str) -> None:
    """Refuse a name that the text of the file surely does not define, before anything in it runs."""
    if path.suffix != ".py":
        return
    try:
        tree = ast.parse(_read(path, spec), str(path))
    except (SyntaxError, ValueError) as error:
        raise UserError(f"{spec}: {_told(error, path)}") from None
    defined: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            defined.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            defined.add(node.id)
        elif isinstance(node, ast.alias):
            defined.add(node.asname or node.name.split(".")[0])
        elif isinstance(node, ast.Name) and node.id in BY_STRING:
            return
    if name not in defined and not defined & {"*", "__getattr__"}:
        raise UserError(f"{spec}: no {name} in {path.name}: {_hint(name, _games_of(path))}")


def _games_of(path: Path) -> list[str]:
    """The classes at the top of a file, without running it: those that have a base first."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return []
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]

    def is_game(node: ast.ClassDef) -> bool:
        return any("NamedTuple" not in ast.unparse(base) for base in node.bases)

    return [node.name for node in sorted(classes, key=is_game, reverse=True) if is_game(node)] or [
        node.name for node in classes
    ]


def _games_in(module: ModuleType) -> list[str]:
    return [
        name
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, Environment) and value is not Environment
    ]


def _run(where: str, path: Path, spec: str) -> ModuleType:
    """The module, from its file or by its name."""
    try:
        if not _is_file(where):
            with _on_path(Path.cwd(), first=False):
                return importlib.import_module(where)
        content = _read(path, spec)
        # A name of its own for each file and content: neither two games called my_game.py nor an edited one are mixed
        # up with what was loaded before.
        digest = hashlib.sha256(str(path).encode() + b"\0" + content).hexdigest()[:16]
        private = f"_tfdqn_game_{path.stem}_{digest}"
        if private in sys.modules:
            return sys.modules[private]
        found = importlib.util.spec_from_file_location(private, path)
        module = importlib.util.module_from_spec(found)
        sys.modules[private] = module  # dataclasses and pickle look their module up
        try:
            with _on_path(path.parent, first=True):
                # What was read, not what the bytecode cache takes for it: its times count in seconds.
                exec(compile(content, str(path), "exec"), module.__dict__)
        except BaseException:
            del sys.modules[private]
            raise
        return module
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(f"{spec}: {path.name} raised {_told(error, path)}") from None


@contextlib.contextmanager
def _on_path(folder: Path, first: bool) -> Iterator[None]:
    """Have imports look in a folder, `first` or last; last from then on, for what a game imports later."""
    entry, before = str(folder), list(sys.path)
    if entry in before:
        first = first and before[0] != entry
    if first:
        sys.path.insert(0, entry)
    elif entry not in before:
        sys.path.append(entry)
    try:
        yield
    finally:
        if first:
            with contextlib.suppress(ValueError):  # the game itself took it away
                sys.path.remove(entry)
            if entry not in sys.path:
                sys.path.append(entry)


def _read(path: Path, spec: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{spec}: cannot read {path}: {error.strerror or error}") from None


def _is_prefix(name: str | None, where: str) -> bool:
    """Whether the module that was not found is `where` itself or a package that it would be in."""
    return name is not None and (where == name or where.startswith(name + "."))


def _hint(name: str, candidates: list[str]) -> str:
    return nearest(name, candidates) if candidates else "it defines no class"


def _kind_of(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"


def line_in(error: BaseException, spec: str) -> str | None:
    """An exception as one line, if it came through the file that `spec` names."""
    path = _source_path(_split(spec)[0], spec)
    is_in_it = any(frame.filename == str(path) for frame in traceback.extract_tb(error.__traceback__))
    return f"raised {_told(error, path)}" if is_in_it else None


def _told(error: BaseException, path: Path | None = None) -> str:
    """An exception as one line: what, and in which line of the user's file."""
    first = next(iter(str(error).strip().splitlines()), "")
    if isinstance(error, SyntaxError):
        return f"{Path(error.filename or str(path)).name} line {error.lineno}: {type(error).__name__}: {error.msg}"
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if path is not None and frame.filename == str(path)
    ]
    return f"{type(error).__name__}: {first}" + (f" (line {lines[-1]})" if lines else "")
