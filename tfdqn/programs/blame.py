"""Whose code it is that fails where a program is made: that of a game or a network of the user's own, in one line."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import tensorflow as tf

from tfdqn.config import Config
from tfdqn.envs import loading, registry
from tfdqn.errors import UserError


@contextlib.contextmanager
def own_code(config: Config) -> Iterator[None]:
    """Inside, programs are traced and compiled.

    Raises:
      UserError: one line, where the fault lies in the user's own game or network; anything else comes through.
    """
    try:
        yield
    except (UserError, tf.errors.ResourceExhaustedError):
        raise
    except Exception as error:
        line = _refused_by_xla(error, config) if isinstance(error, tf.errors.OpError) else _raised_in(error, config)
        if line is None and _is_own_game(config):
            line = _not_kept(config)
        if line is None:
            raise
        raise UserError(line) from error


def _refused_by_xla(error: tf.errors.OpError, config: Config) -> str | None:
    """What XLA cannot compile, with the layer's name."""
    text = str(error)
    found = re.search(r"\{\{node ([^}]+)\}\}|node `([^`]+)`", text)
    node = found[1] or found[2] if found else ""
    operation = re.search(r" on XLA_\w+: (\w+) \(", text)
    what = f"uses {operation[1]}, which XLA cannot compile" if operation else f"XLA: {text.strip().splitlines()[0]}"
    # Of the network's layers a node's name has them all, the network's own name first.
    layer = re.search(r"(?:^|/)(?:online|target)(?:_\d+)?/(.+)/[^/]+$", node)
    if layer and loading.is_spec(config.network):
        return f"--network {config.network}: layer {layer[1]} {what}; use other operations there, or --no-jit"
    if node and not layer and _is_own_game(config):
        return f"--env {config.env}: {what} (at {node}); python -m tfdqn.check_env has more"
    return None


def _raised_in(error: Exception, config: Config) -> str | None:
    """An exception of the game's own file or of the network's, with the line in it."""
    is_of_file = _is_own_game(config) and isinstance(registry.entry(config.env).factory, str)
    if is_of_file and (line := loading.line_in(error, config.env)):
        return f"--env {config.env}: {line}; python -m tfdqn.check_env {config.env} has more"
    return _raised_by_network(error, config) if loading.is_spec(config.network) else None


def _not_kept(config: Config) -> str | None:
    """What a game does not keep of its contract, as far as that shows op by op: it fails where others use it."""
    from tfdqn.envs import check, make_for

    with contextlib.suppress(Exception):  # whatever it is, the error that brought us here says more
        env = make_for(config)
        for result in () if env.steps_on_host else check.results_of(env, steps=4):
            if result.is_fault:
                what = f"{result.name}: {result.message}"
                return f"--env {config.env}: {what}; python -m tfdqn.check_env {config.env} has more"
            if result.name == "legal actions":  # those after it take long
                break
    return None


def _raised_by_network(error: Exception, config: Config) -> str | None:
    """An exception of a network that could be called when it was made, but not as it is in training."""
    line = None
    with contextlib.suppress(UserError):  # a function of Python's prompt has no file
        line = loading.line_in(error, config.network)
    found = re.match(r"Exception encountered when calling layer '([^']+)'[^\n]*\n\s*([^\n]+)", str(error))
    if found:  # Keras's words, about a layer of its own, too
        where = re.search(r" \(line \d+\)$", line or "")
        line = f"layer {found[1]} raised {type(error).__name__}: {found[2]}{where[0] if where else ''}"
    return None if line is None else f"--network {config.network}: {line}"


def _is_own_game(config: Config) -> bool:
    factory = registry.entry(config.env).factory
    return not isinstance(factory, str) or not factory.startswith("tfdqn.")
