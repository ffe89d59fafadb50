"""Does a game say what it is, and give tensors of the shapes and types that it says?

Each check returns what it has to add, or raises a `Fault`.
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import tensorflow as tf

from tfdqn.envs import TimeStep
from tfdqn.envs.check.faults import Fault, require
from tfdqn.envs.check.nests import arrays, form, is_equal, kind, leaves, tensors
from tfdqn.envs.check.playing import NOISE, STEP, Game
from tfdqn.envs.spec import ObservationSpec


def description(game: Game) -> str:
    env = game.env
    spec, actions, names = env.observation_spec, env.num_actions, env.action_names
    require(isinstance(env.name, str) and env.name, f"name {env.name!r} must be a word")
    require(_is_whole(env.version, 0), f"version {env.version!r} must be a whole number")
    require(isinstance(spec, ObservationSpec), f"observation_spec {spec!r} must be a tfdqn.envs.ObservationSpec")
    require(
        tuple(env.observation_shape) == spec.shape,
        f"observation_shape {env.observation_shape} is not observation_spec's, {spec.shape}: set one of them only",
    )
    require(_is_whole(actions, 1), f"num_actions {actions!r} must be a whole number, at least 1")
    require(
        len(names) == len(set(names)) == actions and all(isinstance(name, str) for name in names),
        f"action_names {names!r} must be {actions} different words, as num_actions says",
    )
    require(_is_whole(env.time_limit, 1), f"time_limit {env.time_limit!r} must be a whole number of frames, at least 1")
    for name in ("frames_per_second", "best_score"):
        value = getattr(env, name)
        is_number = isinstance(value, int | float) and not math.isnan(value) and (value > 0 or name == "best_score")
        require(is_number, f"{name} {value!r} must be a number" + ("" if name == "best_score" else " above 0"))
    require(
        all(_is_whole(level, 0) and level < 256 and _is_colour(colour) for level, colour in env.palette.items()),
        "palette must be {level: (red, green, blue)}, all whole numbers from 0 to 255",
    )
    bounds = "" if spec.low == -math.inf else f" {spec.low}..{spec.high}"
    return f"{env.name}, {list(spec.shape)} {spec.dtype}{bounds}, {actions} actions"


def noise(game: Game) -> str:
    def draw(counter):
        return game.env.sample_noise(game.at(NOISE, counter), game.num_envs)

    _require_tensors(draw(0), "sample_noise", game.num_envs)
    one, again, other = (arrays(draw(counter)) for counter in (0, 0, 1))
    for path, array in leaves(one):
        require(
            array.dtype.kind in "iu",
            f"sample_noise{path} is {array.dtype}: draw whole numbers (tfdqn.seeds.draw), and derive others in "
            "step and reset",
        )
    require(
        is_equal(one, again),
        "sample_noise drew other numbers from an equal seed: draw by tfdqn.seeds.draw(seed, num_envs) alone",
    )
    drawn = [array for _, array in leaves(one)]
    if all((array == array[:1]).all() for array in drawn):
        if is_equal(one, other):
            return "nothing is drawn"
        raise Fault("sample_noise gave all environments the same draw: use tfdqn.seeds.draw(seed, num_envs)")
    require(
        not is_equal(one, other),
        "sample_noise drew the same numbers from another seed: both words of the seed must count, as in "
        "tfdqn.seeds.draw(seed, num_envs)",
    )
    return ""


def reset(game: Game) -> str:
    noise = game.env.sample_noise(game.at(NOISE, 0), game.num_envs)
    _require_tensors(game.env.reset(noise), "reset", game.num_envs)
    _require_finite(game.first[1], "the state of reset")
    return ""


def step(game: Game) -> str:
    _, state = game.first
    action = tf.zeros([game.num_envs], tf.int32)
    answer = game.env.step(tensors(state), action, game.env.sample_noise(game.at(STEP, 1), game.num_envs))
    require(
        isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], TimeStep),
        "step must return (state, TimeStep(observation, reward, termination, truncation))",
    )
    stepped = answer[0]
    _require_tensors(stepped, "step's state", game.num_envs)
    try:
        tf.nest.assert_same_structure(state, stepped)
    except (ValueError, TypeError):
        raise Fault(f"step returned a {kind(stepped)}, but reset a {kind(state)}: return the same fields") from None
    for (path, old), (_, new) in zip(leaves(state), leaves(arrays(stepped)), strict=True):
        require(
            (old.shape, old.dtype) == (new.shape, new.dtype),
            f"state{path} is {form(new)} after step, but {form(old)} after reset: return the same shape and type "
            "(tf.cast)",
        )
    for move in game.moves:
        _require_finite(move.outcome.stepped, "the state after step")
    return ""


def observation(game: Game) -> str:
    spec = game.env.observation_spec
    shown = [("observe", game.env.observe(tensors(game.first[1])))]
    shown += [("step's observation", move.outcome.timestep.observation) for move in game.moves[:1]]
    for source, observation in shown:
        array = np.asarray(observation)
        expected = (game.num_envs, *spec.shape)
        require(
            (array.shape, array.dtype.name) == (expected, spec.dtype),
            f"{source} is {form(array)}, but observation_spec says {list(expected)} {spec.dtype}: change one of them",
        )
    return ""


def reward(game: Game) -> str:
    _require_form(game, game.moves[0].outcome.timestep.reward, "reward", "float32")
    return ""


def flags(game: Game) -> str:
    for name in ("termination", "truncation"):
        _require_form(game, getattr(game.moves[0].outcome.timestep, name), name, "bool")
    return ""


def score(game: Game) -> str:
    _require_form(game, game.moves[0].outcome.score, "score", "float32")
    for move in game.moves:
        require(np.isfinite(move.outcome.score).all(), "score returned infinity or no number at all")
    return "" if game.env._sets("score") else "the reward"


def legal_actions(game: Game) -> str:
    found = [game.env.legal_actions(tensors(game.first[1]))]
    found += [None if isinstance(move.outcome.legal, tuple) else move.outcome.legal for move in game.moves]
    if all(legal is None for legal in found):
        return "all, always"
    expected = (game.num_envs, game.env.num_actions)
    for t, legal in enumerate(found):
        require(legal is not None, f"legal_actions returned None in frame {t}, but not in frame 0: return it always")
        array = np.asarray(legal)
        require(
            (array.shape, array.dtype) == (expected, bool),
            f"legal_actions is {form(array)}, must be {list(expected)} bool",
        )
        is_over = game.is_over(game.moves[t - 1].outcome.timestep) if t else False
        require(
            (array.any(1) | is_over).all(),
            f"legal_actions allows no action in frame {t}: end the episode, or allow one",
        )
    return f"{np.mean([np.asarray(legal) for legal in found]):.0%} on average"


def render(game: Game) -> str:
    pictures = game.env.render(tensors(game.first[1]))
    if pictures is None:
        return "none"
    found = form(np.asarray(pictures))
    require(
        re.fullmatch(rf"\[{game.num_envs}, \d+, \d+, 3\] uint8", found),
        f"render is {found}, must be [{game.num_envs}, H, W, 3] uint8, or None",
    )
    return found


def _require_tensors(nest: Any, source: str, num_envs: int) -> None:
    found = leaves(nest)
    require(found, f"{source} returned nothing: return a NamedTuple of tensors [N, ...]")
    for path, tensor in found:
        require(
            isinstance(tensor, tf.Tensor),
            f"{source}{path} is a {type(tensor).__name__}, not a tensor: return a NamedTuple of tensors [N, ...]",
        )
        require(
            tensor.shape.rank and tensor.shape[0] == num_envs,
            f"{source}{path} has shape {tensor.shape.as_list()}: must begin with N, {num_envs} here",
        )


def _require_finite(state: Any, source: str) -> None:
    for path, array in leaves(state):
        is_float = array.dtype.kind == "f"
        require(not is_float or np.isfinite(array).all(), f"{source} holds infinity or no number at all in {path[1:]}")


def _require_form(game: Game, value: Any, name: str, dtype: str) -> None:
    array = np.asarray(value)
    require(
        (array.shape, array.dtype.name) == ((game.num_envs,), dtype),
        f"{name} is {form(array)}, must be [{game.num_envs}] {dtype}, one an environment",
    )


def _is_whole(value: Any, low: int) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and value >= low


def _is_colour(colour: Any) -> bool:
    return len(colour) == 3 and all(_is_whole(channel, 0) and channel < 256 for channel in colour)
