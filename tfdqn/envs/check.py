"""The contract of games, checked: `check_env(env)` plays a game and says what it does not keep, and what to change.

Two things are played at random: a few moves op by op, each of which is then made again in other ways (compiled, in
another order, with fewer environments) and must come out the same; and some thousand frames in one compiled loop, of
which totals are kept.
"""

from __future__ import annotations

import functools
import math
import re
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfdqn import seeds
from tfdqn.envs import Environment, TimeStep, rollout
from tfdqn.envs.spec import ObservationSpec
from tfdqn.runtime import compiled

LONG_PLAY_FRAMES = (1_000, 10_000)  # of the compiled loop, at least and at most; twice the time limit between these
FLOAT_TOLERANCE = 1e-4  # between eager and compiled floats of size 1: a sine, or a sum in another order
REPEATED_MOVES = 8
FEWER_ENVS = 3
MIN_ENVS = FEWER_ENVS + 1
NOISE, STEP, PLAY, ACTION = 1, 2, 3, 4  # streams of draws, of one seed


class Result(NamedTuple):
    """What one check found."""

    name: str
    verdict: str  # "ok", "FAIL", "info" (nothing to pass), or "skip" (another must pass first)
    message: str  # one line; "" where there is nothing to add

    @property
    def is_fault(self) -> bool:
        return self.verdict == "FAIL"

    def __str__(self) -> str:
        return f"{self.verdict:4} {self.name}" + (f": {self.message}" if self.message else "")


def check_env(env: Environment, num_envs: int = 16, steps: int = 32, seed: int = 0) -> list[Result]:
    """Check that a game keeps its contract.

    Args:
      env: the game.
      num_envs: N, environments to play.
      steps: moves of each that are compared between the ways of making them.
      seed: of all draws.

    Returns:
      A result for each check, in a fixed order. The game keeps the contract if none of them `is_fault`.

    Raises:
      ValueError: fewer environments than `MIN_ENVS`, or no step.
    """
    return list(results_of(env, num_envs, steps, seed))


def results_of(env: Environment, num_envs: int = 16, steps: int = 32, seed: int = 0) -> Iterator[Result]:
    """The results of `check_env`, each as soon as it is there: those that compile nothing come first."""
    if num_envs < MIN_ENVS or steps < 1:
        raise ValueError(f"check_env needs at least {MIN_ENVS} environments and 1 step, got {num_envs} and {steps}")
    game = _Game(env, num_envs, steps, seed)
    passed: set[str] = set()
    for check in CHECKS:
        if missing := [need for need in check.needs if need not in passed]:
            yield Result(check.name, "skip", f"{missing[0]} must pass first")
            continue
        try:
            told = check.function(game)
        except _Fault as fault:
            yield Result(check.name, "FAIL", " ".join(str(fault).split()))
        except Exception as error:  # the game's
            yield Result(check.name, "FAIL", _raised(error))
        else:
            passed.add(check.name)
            verdict = "info" if check.is_info or isinstance(told, _Unseen) else "ok"
            yield Result(check.name, verdict, str(told or ""))


# --- What is played ---


class _Fault(Exception):
    """What is wrong, and what to change."""


class _Unseen(str):
    """Why a check could not tell."""


class _Move(NamedTuple):
    """One move of all environments, op by op, as arrays [N, ...]."""

    seed: tf.Tensor  # [2] int64
    state: Any
    action: np.ndarray  # [N] int32
    outcome: _Outcome


class _Outcome(NamedTuple):
    """All that a game says in one move."""

    noise: Any
    fresh: Any  # the state of a reset with this noise
    stepped: Any  # the state after the move
    timestep: TimeStep
    observation: Any  # of that state
    legal: Any  # of that state; () for all


class _Totals(NamedTuple):
    """What the compiled loop has seen. Scalars but for the first two."""

    frames: tf.Tensor  # [N] int32, of the episode so far
    episode_return: tf.Tensor  # [N] float32, of the episode so far
    episodes: tf.Tensor  # int32, ended
    cut: tf.Tensor  # int32, of these by the time limit
    episode_frames: tf.Tensor  # float32, of ended episodes together
    score: tf.Tensor  # float32, of ended episodes together
    best: tf.Tensor  # float32, the highest score
    longest: tf.Tensor  # int32, frames of the longest episode, ended or not
    early: tf.Tensor  # int32, frame of a truncation before its time; 0: none
    late: tf.Tensor  # int32, frames played by episodes that should have been cut off
    both: tf.Tensor  # int32, ends that are both
    outside: tf.Tensor  # int32, numbers of observations out of bounds
    unpayable: tf.Tensor  # int32, rewards that are not finite


class _Game:
    """A game and what was played of it, each kind of play on first use."""

    def __init__(self, env: Environment, num_envs: int, steps: int, seed: int):
        self.env, self.num_envs, self.steps, self.seed = env, num_envs, steps, seed

    def at(self, stream: int, counter: int) -> tf.Tensor:
        return seeds.at(stream + 8 * self.seed, counter)

    @functools.cached_property
    def first(self) -> tuple[Any, Any]:
        """The noise and the state of the first reset, as arrays."""
        noise = self.env.sample_noise(self.at(STEP, 0), self.num_envs)
        return _arrays(noise), _arrays(self.env.reset(noise))

    @functools.cached_property
    def moves(self) -> list[_Move]:
        (_, state), moves = self.first, []
        legal = self._legal(_tensors(state))
        for t in range(1, self.steps + 1):
            action = self._random_action(t, legal)
            at = self.at(STEP, t)
            outcome = _arrays(self.outcome(_tensors(state), tf.constant(action), at))
            moves.append(_Move(at, state, action, outcome))
            is_over = self._is_over(outcome.timestep)

            def choose(new, old, is_over=is_over):
                return np.where(is_over.reshape([-1] + [1] * (old.ndim - 1)), new, old)

            tf.nest.assert_same_structure(outcome.fresh, outcome.stepped)
            state = tf.nest.map_structure(choose, outcome.fresh, outcome.stepped)
            legal = self._legal(_tensors(state))
        return moves

    def outcome(self, state: Any, action: tf.Tensor, at: tf.Tensor) -> _Outcome:
        """Everything that a game does, once; op by op or traced."""
        noise = self.env.sample_noise(at, self.num_envs)
        return self.answer(state, action, noise)

    def answer(self, state: Any, action: tf.Tensor, noise: Any) -> _Outcome:
        stepped, timestep = self.env.step(state, action, noise)
        fresh, observation = self.env.reset(noise), self.env.observe(stepped)
        return _Outcome(noise, fresh, stepped, timestep, observation, self._legal(stepped))

    @functools.cached_property
    def compiled_outcome(self) -> Callable:
        return compiled.xla(self.outcome)

    def _legal(self, state: Any) -> Any:
        legal = self.env.legal_actions(state)
        return () if legal is None else legal

    def _random_action(self, move: int, legal: Any) -> np.ndarray:
        size = (self.num_envs, self.env.num_actions)
        draws = seeds.draw(self.at(ACTION, move), size[0] * size[1]).numpy()
        choice = draws.reshape(size) / 2.0**63
        legal = np.asarray(legal)
        if legal.shape == choice.shape and legal.dtype == bool:
            choice = np.where(legal, choice, -1.0)
        return choice.argmax(1).astype(np.int32)

    def _is_over(self, timestep: Any) -> np.ndarray:
        flags = [np.asarray(flag) for flag in timestep[2:]]
        if any(flag.shape != (self.num_envs,) or flag.dtype != bool for flag in flags):
            return np.zeros(self.num_envs, bool)  # another check tells
        return flags[0] | flags[1]

    # The compiled loop.

    @property
    def long_play_frames(self) -> int:
        low, high = LONG_PLAY_FRAMES
        return min(max(2 * (self.env.time_limit + 1), low), high)

    @functools.cached_property
    def compiled_play(self) -> Callable:
        return compiled.xla(self._play)

    @functools.cached_property
    def totals(self) -> _Totals:
        """Of random play."""
        return self.play(-1)

    def play(self, held: int) -> _Totals:
        """Play one action wherever it is legal, or at random for -1."""
        return _arrays(self.compiled_play(tf.constant(self.long_play_frames), tf.constant(held)))

    def _play(self, frames: tf.Tensor, held: tf.Tensor) -> _Totals:
        env, zero = self.env, tf.constant(0)
        state = env.reset(env.sample_noise(self.at(PLAY, 0), self.num_envs))
        none, nothing = tf.zeros([self.num_envs], tf.int32), tf.zeros([self.num_envs])
        totals = _Totals(none, nothing, zero, zero, 0.0, 0.0, -math.inf, *[zero] * 6)
        totals = tf.nest.map_structure(tf.convert_to_tensor, totals)

        def one_frame(t, state, totals):
            at = self.at(PLAY, 2 * tf.cast(t, tf.int64))
            rank = tf.cast(seeds.draw(at, self.num_envs) % 2**31, tf.int32)
            noise = env.sample_noise(at + tf.constant([0, 1], tf.int64), self.num_envs)
            stepped, timestep = env.step(state, self._pick(state, rank, held), noise)
            totals = self._counted(totals, timestep)
            is_over = timestep.termination | timestep.truncation
            stay = [tf.where(is_over, tf.zeros_like(sums), sums) for sums in totals[:2]]
            return t + 1, rollout.select(is_over, env.reset(noise), stepped), _Totals(*stay, *totals[2:])

        return tf.while_loop(lambda t, *_: t <= frames, one_frame, (tf.constant(1), state, totals))[2]

    def _pick(self, state: Any, rank: tf.Tensor, held: tf.Tensor) -> tf.Tensor:
        legal = self.env.legal_actions(state)
        if legal is None:
            return tf.where(held < 0, rank % self.env.num_actions, held)
        number = tf.cast(legal, tf.int32)
        is_picked = tf.cumsum(number, axis=1) > (rank % tf.maximum(tf.reduce_sum(number, axis=1), 1))[:, tf.newaxis]
        random = tf.argmax(is_picked, axis=1, output_type=tf.int32)
        is_legal = tf.gather(legal, tf.maximum(held, 0), axis=1)
        return tf.where((held >= 0) & is_legal, held, random)

    def _counted(self, totals: _Totals, timestep: TimeStep) -> _Totals:
        def count(mask):
            return tf.reduce_sum(tf.cast(mask, tf.int32))

        env, spec = self.env, self.env.observation_spec
        observation, reward, death, cut = timestep
        frames, episode_return = totals.frames + 1, totals.episode_return + reward
        score, is_over, last = rollout.score_of(env, episode_return, frames), death | cut, env.time_limit + 1
        return _Totals(
            frames=frames,
            episode_return=episode_return,
            episodes=totals.episodes + count(is_over),
            cut=totals.cut + count(cut),
            episode_frames=totals.episode_frames + tf.reduce_sum(tf.cast(tf.where(is_over, frames, 0), tf.float32)),
            score=totals.score + tf.reduce_sum(tf.where(is_over, score, 0.0)),
            best=tf.maximum(totals.best, tf.reduce_max(tf.where(is_over, score, -math.inf))),
            longest=tf.maximum(totals.longest, tf.reduce_max(frames)),
            early=tf.maximum(totals.early, tf.reduce_max(tf.where(cut & (frames < last), frames, 0))),
            late=totals.late + count((frames >= last) & ~is_over),
            both=totals.both + count(death & cut),
            outside=totals.outside + count(~_is_within(observation, spec)),
            unpayable=totals.unpayable + count(~tf.math.is_finite(reward)),
        )


# --- The checks. Each returns what it has to add, or raises `_Fault`. ---


def _description(game: _Game) -> str:
    env = game.env
    spec, actions, names = env.observation_spec, env.num_actions, env.action_names
    _require(isinstance(env.name, str) and env.name, f"name {env.name!r} must be a word")
    _require(_is_whole(env.version, 0), f"version {env.version!r} must be a whole number")
    _require(isinstance(spec, ObservationSpec), f"observation_spec {spec!r} must be a tfdqn.envs.ObservationSpec")
    _require(
        tuple(env.observation_shape) == spec.shape,
        f"observation_shape {env.observation_shape} is not observation_spec's, {spec.shape}: set one of them only",
    )
    _require(_is_whole(actions, 1), f"num_actions {actions!r} must be a whole number, at least 1")
    _require(
        len(names) == len(set(names)) == actions and all(isinstance(name, str) for name in names),
        f"action_names {names!r} must be {actions} different words, as num_actions says",
    )
    _require(
        _is_whole(env.time_limit, 1), f"time_limit {env.time_limit!r} must be a whole number of frames, at least 1"
    )
    for name in ("frames_per_second", "best_score"):
        value = getattr(env, name)
        is_number = isinstance(value, int | float) and not math.isnan(value) and (value > 0 or name == "best_score")
        _require(is_number, f"{name} {value!r} must be a number" + ("" if name == "best_score" else " above 0"))
    _require(
        all(_is_whole(level, 0) and level < 256 and _is_colour(colour) for level, colour in env.palette.items()),
        "palette must be {level: (red, green, blue)}, all whole numbers from 0 to 255",
    )
    bounds = "" if spec.low == -math.inf else f" {spec.low}..{spec.high}"
    return f"{env.name}, {list(spec.shape)} {spec.dtype}{bounds}, {actions} actions"


def _noise(game: _Game) -> str:
    def draw(counter):
        return game.env.sample_noise(game.at(NOISE, counter), game.num_envs)

    _require_tensors(draw(0), "sample_noise", game.num_envs)
    one, again, other = (_arrays(draw(counter)) for counter in (0, 0, 1))
    for path, array in _leaves(one):
        _require(
            array.dtype.kind in "iu",
            f"sample_noise{path} is {array.dtype}: draw whole numbers (tfdqn.seeds.draw), and derive others in "
            "step and reset",
        )
    _require(
        _is_equal(one, again),
        "sample_noise drew other numbers from an equal seed: draw by tfdqn.seeds.draw(seed, num_envs) alone",
    )
    drawn = [array for _, array in _leaves(one)]
    if all((array == array[:1]).all() for array in drawn):
        if _is_equal(one, other):
            return "nothing is drawn"
        raise _Fault("sample_noise gave all environments the same draw: use tfdqn.seeds.draw(seed, num_envs)")
    _require(
        not _is_equal(one, other),
        "sample_noise drew the same numbers from another seed: both words of the seed must count, as in "
        "tfdqn.seeds.draw(seed, num_envs)",
    )
    return ""


def _reset(game: _Game) -> str:
    noise = game.env.sample_noise(game.at(NOISE, 0), game.num_envs)
    _require_tensors(game.env.reset(noise), "reset", game.num_envs)
    _require_finite(game.first[1], "the state of reset")
    return ""


def _step(game: _Game) -> str:
    _, state = game.first
    action = tf.zeros([game.num_envs], tf.int32)
    answer = game.env.step(_tensors(state), action, game.env.sample_noise(game.at(STEP, 1), game.num_envs))
    _require(
        isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], TimeStep),
        "step must return (state, TimeStep(observation, reward, termination, truncation))",
    )
    stepped = answer[0]
    _require_tensors(stepped, "step's state", game.num_envs)
    try:
        tf.nest.assert_same_structure(state, stepped)
    except (ValueError, TypeError):
        raise _Fault(f"step returned a {_kind(stepped)}, but reset a {_kind(state)}: return the same fields") from None
    for (path, old), (_, new) in zip(_leaves(state), _leaves(_arrays(stepped)), strict=True):
        _require(
            (old.shape, old.dtype) == (new.shape, new.dtype),
            f"state{path} is {_form(new)} after step, but {_form(old)} after reset: return the same shape and type "
            "(tf.cast)",
        )
    for move in game.moves:
        _require_finite(move.outcome.stepped, "the state after step")
    return ""


def _observation(game: _Game) -> str:
    spec = game.env.observation_spec
    shown = [("observe", game.env.observe(_tensors(game.first[1])))]
    shown += [("step's observation", move.outcome.timestep.observation) for move in game.moves[:1]]
    for source, observation in shown:
        array = np.asarray(observation)
        expected = (game.num_envs, *spec.shape)
        _require(
            (array.shape, array.dtype.name) == (expected, spec.dtype),
            f"{source} is {_form(array)}, but observation_spec says {list(expected)} {spec.dtype}: change one of them",
        )
    return ""


def _reward(game: _Game) -> str:
    _require_form(game, "reward", "float32")
    return ""


def _flags(game: _Game) -> str:
    for name in ("termination", "truncation"):
        _require_form(game, name, "bool")
    return ""


def _legal_actions(game: _Game) -> str:
    found = [game.env.legal_actions(_tensors(game.first[1]))]
    found += [None if isinstance(move.outcome.legal, tuple) else move.outcome.legal for move in game.moves]
    if all(legal is None for legal in found):
        return "all, always"
    expected = (game.num_envs, game.env.num_actions)
    for t, legal in enumerate(found):
        _require(legal is not None, f"legal_actions returned None in frame {t}, but not in frame 0: return it always")
        array = np.asarray(legal)
        _require(
            (array.shape, array.dtype) == (expected, bool),
            f"legal_actions is {_form(array)}, must be {list(expected)} bool",
        )
        _require(array.any(1).all(), f"legal_actions allows no action in frame {t}: end the episode, or allow one")
    return f"{np.mean([np.asarray(legal) for legal in found]):.0%} on average"


def _actions(game: _Game) -> str:
    actions = game.env.num_actions
    if actions == 1:
        return "only one"
    differs = np.zeros([actions, actions], bool)
    for move in game.moves[:: max(1, len(game.moves) // REPEATED_MOVES)]:
        results = []
        for action in range(actions):
            held = tf.fill([game.num_envs], action)
            results.append(_arrays(game.env.step(_tensors(move.state), held, _tensors(move.outcome.noise))))
        for a in range(actions):
            for b in range(a):
                differs[a, b] |= not _is_equal(results[a], results[b])
    _require(differs.any(), "no action changes anything: step must read `action` ([N] int32, 0..num_actions-1)")
    twins = [(a, b) for a in range(actions) for b in range(a) if not differs[a, b]]
    if twins:
        a, b = (game.env.action_names[action] for action in twins[0])
        return f"{a!r} did the same as {b!r} throughout"
    return ""


def _observe(game: _Game) -> str:
    for t, move in enumerate(game.moves, 1):
        where = _difference(move.outcome.timestep.observation, move.outcome.observation)
        _require(
            not where,
            f"step's observation is not what observe shows of step's state, in frame {t}{where}: return "
            "self.observe(state) of the new state",
        )
    return ""


def _repeatable(game: _Game) -> str:
    env = game.env
    for move in game.moves[:REPEATED_MOVES]:
        state, action, noise = (_tensors(part) for part in (move.state, move.action, move.outcome.noise))
        for name, function in (
            ("sample_noise", lambda at=move.seed: env.sample_noise(at, game.num_envs)),
            ("reset", lambda noise=noise: env.reset(noise)),
            ("step", lambda state=state, action=action, noise=noise: env.step(state, action, noise)),
            ("observe", lambda state=state: env.observe(state)),
            ("legal_actions", lambda state=state: game._legal(state)),
        ):
            once, twice = _arrays(function()), _arrays(function())
            where = _difference(once, twice)
            _require(
                not where,
                f"{name} gave another result when it was called again with the same arguments{where}: keep everything "
                "in the state, draw everything in sample_noise",
            )
    return ""


def _order(game: _Game) -> str:
    for t, move in reversed(list(enumerate(game.moves, 1))):
        state, action, noise = (_tensors(part) for part in (move.state, move.action, move.outcome.noise))
        where = _difference(_arrays(game.answer(state, action, noise)), move.outcome)
        _require(
            not where,
            f"the move of frame {t} came out another way after other games had been played{where}: nothing may be kept "
            "in self or in the module; keep it in the state",
        )
    return ""


def _environments(game: _Game) -> str:
    for move in game.moves[:REPEATED_MOVES]:
        for few in (1, FEWER_ENVS):
            where = _difference(
                _arrays(game.env.sample_noise(move.seed, few)), _first(move.outcome.noise, slice(few)), exact=False
            )
            _require(
                not where,
                f"sample_noise drew other numbers for the first {few} of {game.num_envs} environments than for as many "
                f"alone{where}: environment i's draws must depend on (seed, i) only, as tfdqn.seeds.draw's do",
            )
    reverse, middle = slice(None, None, -1), slice(FEWER_ENVS, FEWER_ENVS + 1)
    for part, what in ((reverse, "in another order"), (middle, "alone"), (slice(FEWER_ENVS), "with fewer others")):
        for move in game.moves[:REPEATED_MOVES]:
            given = [_tensors(_first(each, part)) for each in (move.state, move.action, move.outcome.noise)]
            where = _difference(_arrays(game.answer(*given)), _first(move.outcome, part), exact=False)
            _require(
                not where,
                f"an environment came out another way {what}{where}: each must depend on its own state, action and "
                "noise only (look for reductions without axis, and for fixed numbers of environments)",
            )
    return ""


def _traces(game: _Game) -> str:
    outcomes = []
    for _ in range(2):
        trace = compiled.program(game.outcome, jit=False, eager=False)
        moves = game.moves[: REPEATED_MOVES // 2]
        outcomes.append([_arrays(trace(_tensors(move.state), tf.constant(move.action), move.seed)) for move in moves])
    where = _difference(outcomes[0], outcomes[1])
    _require(
        not where,
        f"a second trace gave another result{where}: Python code that draws or counts runs only while tracing; use "
        "tensors of the state and the noise",
    )
    return ""


def _compiles(game: _Game) -> str:
    start = time.monotonic()
    move = game.moves[0]
    game.compiled_outcome(_tensors(move.state), tf.constant(move.action), move.seed)
    game.compiled_play(tf.constant(0), tf.constant(-1))
    return f"two programs in {time.monotonic() - start:.1f} s"


def _xla(game: _Game) -> str:
    largest = 0.0
    for t, move in enumerate(game.moves, 1):
        result = _arrays(game.compiled_outcome(_tensors(move.state), tf.constant(move.action), move.seed))
        where = _difference(result, move.outcome, exact=False)
        _require(
            not where,
            f"XLA and op by op disagree in frame {t}{where}: compute in whole numbers, or keep floats from deciding; "
            "and draw in sample_noise only",
        )
        largest = max([largest, *_gaps(result, move.outcome)])
    return f"floats to within {largest:.0e}" if largest else "in every bit"


def _range(game: _Game) -> str:
    spec = game.env.observation_spec
    for t, move in enumerate(game.moves, 1):
        shown = move.outcome.timestep.observation
        if (is_outside := ~_is_within(tf.constant(shown), spec).numpy()).any():
            value = shown[is_outside].flat[0]
            raise _Fault(f"an observation is {value} in frame {t}, outside {_bounds(spec)}")
    _require(
        game.totals.outside == 0,
        f"{game.totals.outside} numbers of observations of random play are outside {_bounds(spec)}",
    )
    return ""


def _finite_rewards(game: _Game) -> str:
    _require(
        game.totals.unpayable == 0,
        f"{game.totals.unpayable} rewards of random play are infinite or not a number: look for divisions by 0",
    )
    return ""


def _one_end(game: _Game) -> str:
    both = sum(int((move.outcome.timestep[2] & move.outcome.timestep[3]).sum()) for move in game.moves)
    both += int(game.totals.both)
    _require(
        both == 0,
        f"termination and truncation were both true, {both} times: an end by the rules comes first, write "
        "truncation=(time > time_limit) & ~termination",
    )
    return ""


def _episodes_end(game: _Game) -> str:
    _require(
        game.totals.episodes or _moved_in_time(game) == "",
        f"no episode ended within {game.long_play_frames} frames of random play: end it by a rule (termination), or by "
        "a time limit (truncation=(time > time_limit) & ~termination)",
    )
    return ""


def _time_limit(game: _Game) -> str:
    env, limit = game.env, game.env.time_limit
    is_own, moved = env._sets("time_limit"), _moved_in_time(game)
    plays = [game.totals]
    if not game.totals.cut and moved is None and limit < game.long_play_frames:
        plays += [game.play(action) for action in range(env.num_actions)]  # one of them may live longer
    for totals in plays:
        _require(
            not totals.early,
            f"an episode was truncated in frame {totals.early}, but time_limit is {limit}: truncate in the frame that "
            f"passes it, {limit + 1} (time > time_limit, where time is 1 after the first step), or set time_limit = "
            f"{totals.early - 1}",
        )
        _require(
            not totals.late or not is_own,
            f"an episode went on after frame {limit + 1} ({totals.longest} frames), but time_limit is {limit}: "
            "truncate in the frame that passes it, truncation=(time > time_limit) & ~termination",
        )
    if any(totals.cut for totals in plays):
        return ""
    _require(not moved or not is_own, moved)
    if moved == "":
        return "by setting the state's time"
    if not is_own:
        return _Unseen(f"the game sets none and truncated nothing; evaluation stops an episode after {limit} frames")
    return _Unseen(f"no episode of random play came to frame {limit + 1}")


def _moved_in_time(game: _Game) -> str | None:
    """What is wrong, or "", with a step of states whose `time` is set to the limit; None if that tells nothing."""
    (noise, state), limit = game.first, game.env.time_limit
    if not hasattr(state, "_replace") or "time" not in state._fields:
        return None
    is_count = getattr(state.time, "dtype", np.dtype(float)).kind in "iu" and state.time.shape == (game.num_envs,)
    if not is_count or state.time.any() or limit > np.iinfo(state.time.dtype).max:
        return None
    if any((move.outcome.stepped.time != move.state.time + 1).any() for move in game.moves):
        return None  # it counts something else
    ends = []
    for time_before in (limit - 1, limit):
        timed = state._replace(time=np.full_like(state.time, time_before))
        _, timestep = game.env.step(_tensors(timed), tf.zeros([game.num_envs], tf.int32), _tensors(noise))
        ends.append(_arrays(timestep))
    if ends[0].truncation.any():
        return f"with the state's time set to {limit - 1}, the next step truncated, a frame before time_limit is passed"
    is_over = ends[1].termination | ends[1].truncation
    if is_over.all():
        return "" if ends[1].truncation.any() else None  # a state that was moved in time may be a dead one
    return (
        f"with the state's time set to time_limit, {limit}, the next step went on: write truncation=(time > "
        "time_limit) & ~termination"
    )


def _best_score(game: _Game) -> str:
    best = game.env.best_score
    _require(
        not game.totals.episodes or game.totals.best <= best * (1 + 1e-6 * np.sign(best)),
        f"an episode of random play scored {game.totals.best:g}, more than best_score, {best:g}: raise it",
    )
    return ""


def _difficulties(game: _Game) -> str:
    env, (noise, state) = game.env, game.first
    where = _difference(_arrays(env.training_reset(_tensors(noise), 0.0)), state)
    _require(not where, f"training_reset with a share of 0 is not reset{where}: draw a difficulty for a share above 0")
    if not env.has_difficulties:
        return "none"
    moved = _arrays(env.training_reset(_tensors(noise), 1.0))
    forms = [[_form(array) for _, array in _leaves(each)] for each in (moved, state)]
    _require(forms[0] == forms[1], "training_reset must return the same fields, shapes and types as reset")
    _require(not _is_equal(moved, state), "training_reset with a share of 1 is reset: set has_difficulties = False")
    return ""


def _render(game: _Game) -> str:
    pictures = game.env.render(_tensors(game.first[1]))
    if pictures is None:
        return "none"
    form = _form(np.asarray(pictures))
    _require(
        re.fullmatch(rf"\[{game.num_envs}, \d+, \d+, 3\] uint8", form),
        f"render is {form}, must be [{game.num_envs}, H, W, 3] uint8, or None",
    )
    return form


def _random_play(game: _Game) -> str:
    totals = game.totals
    if not totals.episodes:
        return f"no episode ended in {game.long_play_frames} frames"
    return (
        f"mean score {totals.score / totals.episodes:.3g} (best {totals.best:.3g}) over {totals.episodes} episodes of "
        f"{totals.episode_frames / totals.episodes:.1f} frames, {totals.cut / totals.episodes:.0%} of them truncated"
    )


def _speed(game: _Game) -> str:
    game.totals  # noqa: B018 the first call may be slower
    start = time.monotonic()
    game.play(-1)
    rate = game.num_envs * game.long_play_frames / (time.monotonic() - start)
    return f"{rate:,.0f} frames/s of random play, {game.num_envs} environments"


class _Check(NamedTuple):
    name: str
    function: Callable[[_Game], Any]
    needs: tuple[str, ...] = ()
    is_info: bool = False


_PLAYS = ("step",)
_SHOWN = ("observation", "reward", "flags", "legal actions", "compiles")
CHECKS = (
    _Check("description", _description),
    _Check("noise", _noise, ("description",)),
    _Check("reset", _reset, ("noise",)),
    _Check("step", _step, ("reset",)),
    _Check("observation", _observation, _PLAYS),
    _Check("reward", _reward, _PLAYS),
    _Check("flags", _flags, _PLAYS),
    _Check("legal actions", _legal_actions, _PLAYS),
    _Check("actions", _actions, _PLAYS),
    _Check("observe", _observe, (*_PLAYS, "observation")),
    _Check("repeated calls", _repeatable, _PLAYS),
    _Check("order of calls", _order, (*_PLAYS, "repeated calls")),
    _Check("number of environments", _environments, (*_PLAYS, "repeated calls")),
    _Check("second trace", _traces, _PLAYS),
    _Check("compiles", _compiles, (*_PLAYS, "observation", "reward", "flags", "legal actions")),
    _Check("eager and XLA", _xla, ("compiles", "repeated calls", "order of calls", "second trace")),
    _Check("observation range", _range, _SHOWN),
    _Check("finite rewards", _finite_rewards, _SHOWN),
    _Check("one end", _one_end, _SHOWN),
    _Check("episodes end", _episodes_end, _SHOWN),
    _Check("time limit", _time_limit, (*_SHOWN, "one end", "episodes end")),
    _Check("best score", _best_score, _SHOWN),
    _Check("difficulties", _difficulties, ("step", "repeated calls")),
    _Check("render", _render, ("observation",)),
    _Check("random play", _random_play, _SHOWN, is_info=True),
    _Check("speed", _speed, _SHOWN, is_info=True),
)


# --- Tensors and arrays ---


def _require(condition: Any, message: str) -> None:
    if not condition:
        raise _Fault(message)


def _require_tensors(nest: Any, source: str, num_envs: int) -> None:
    leaves = _leaves(nest)
    _require(leaves, f"{source} returned nothing: return a NamedTuple of tensors [N, ...]")
    for path, tensor in leaves:
        _require(
            isinstance(tensor, tf.Tensor),
            f"{source}{path} is a {type(tensor).__name__}, not a tensor: return a NamedTuple of tensors [N, ...]",
        )
        _require(
            tensor.shape.rank and tensor.shape[0] == num_envs,
            f"{source}{path} has shape {tensor.shape.as_list()}: must begin with N, {num_envs} here",
        )


def _require_finite(state: Any, source: str) -> None:
    for path, array in _leaves(state):
        is_float = array.dtype.kind == "f"
        _require(not is_float or np.isfinite(array).all(), f"{source} holds infinity or no number at all in {path[1:]}")


def _require_form(game: _Game, name: str, dtype: str) -> None:
    array = np.asarray(getattr(game.moves[0].outcome.timestep, name))
    _require(
        (array.shape, array.dtype.name) == ((game.num_envs,), dtype),
        f"{name} is {_form(array)}, must be [{game.num_envs}] {dtype}, one an environment",
    )


def _is_within(observation: tf.Tensor, spec: ObservationSpec) -> tf.Tensor:
    """Which numbers are finite and within the bounds, bool of the same shape."""
    number = tf.cast(observation, tf.float32)
    return tf.math.is_finite(number) & (number >= spec.low) & (number <= spec.high)


def _bounds(spec: ObservationSpec) -> str:
    bounds = "the finite numbers" if spec.low == -math.inf else f"observation_spec's {spec.low} to {spec.high}"
    return bounds + ": clip it, or give the spec the right low and high"


def _leaves(nest: Any) -> list[tuple[str, Any]]:
    """Tensors with where they are: [(".player", tensor), ...]."""
    if isinstance(nest, tuple) and hasattr(nest, "_fields"):
        items = [(f".{name}", part) for name, part in zip(nest._fields, nest, strict=True)]
    elif isinstance(nest, dict):
        items = [(f"[{key!r}]", nest[key]) for key in sorted(nest)]
    elif isinstance(nest, list | tuple):
        items = [(f"[{i}]", part) for i, part in enumerate(nest)]
    else:
        return [("", nest)]
    return [(path + rest, leaf) for path, part in items for rest, leaf in _leaves(part)]


def _arrays(nest: Any) -> Any:
    return tf.nest.map_structure(np.asarray, nest)


def _tensors(nest: Any) -> Any:
    return tf.nest.map_structure(tf.constant, nest)


def _first(nest: Any, part: slice) -> Any:
    return tf.nest.map_structure(lambda array: array[part], nest)


def _is_equal(one: Any, other: Any) -> bool:
    return not _difference(one, other)


def _difference(one: Any, other: Any, exact: bool = True) -> str:
    """Where two structures of arrays differ first: " (in .stepped.player of environment 3: 1, then 2)"; "" if nowhere.

    Floats may differ by rounding unless `exact`.
    """
    ours, theirs = _leaves(one), _leaves(other)
    if [path for path, _ in ours] != [path for path, _ in theirs]:
        return " (in its structure)"
    for (path, a), (_, b) in zip(ours, theirs, strict=True):
        place = f"in {path.lstrip('.')} " if path else ""
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            return f" ({place}{_form(a)}, then {_form(b)})"
        if a.dtype.kind == "f":
            tolerance = 0.0 if exact else FLOAT_TOLERANCE
            differs = ~np.isclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)
        else:
            differs = a != b
        if differs.any():
            index = tuple(np.argwhere(differs)[0])
            which = f"of environment {index[0]}" if index else ""
            return f" ({place}{which}: {a[index]}, then {b[index]})"
    return ""


def _gaps(one: Any, other: Any) -> list[float]:
    """The largest distance between the floats of each pair of arrays."""
    pairs = zip(_leaves(one), _leaves(other), strict=True)
    return [float(np.abs(a - b).max()) for (_, a), (_, b) in pairs if a.dtype.kind == "f" and a.size]


def _form(array: Any) -> str:
    return f"{list(array.shape)} {array.dtype.name}"


def _kind(nest: Any) -> str:
    return type(nest).__name__ + (f"({', '.join(nest._fields)})" if hasattr(nest, "_fields") else "")


def _is_whole(value: Any, low: int) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and value >= low


def _is_colour(colour: Any) -> bool:
    return len(colour) == 3 and all(_is_whole(channel, 0) and channel < 256 for channel in colour)


# --- What a game raised ---

_HINTS = (
    (
        "Using a symbolic `tf.Tensor` as a Python `bool`",
        "Python's if, and, or cannot see into a tensor: use tf.where, &, |",
    ),
    ("has no attribute 'numpy'", "a compiled game has no .numpy(): use TensorFlow's functions"),
    ("Cannot convert a symbolic", "a compiled game cannot use NumPy on tensors: use TensorFlow's functions"),
    ("is out of scope", "a tensor was kept from another call: keep it in the state"),
)


def _raised(error: Exception) -> str:
    """An exception of the game's as one line: what, where, and what to do about it."""
    text = str(error)
    where = ""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if not {"tensorflow", "numpy", "tf_keras"} & set(path.parts) and path.name not in ("check.py", "compiled.py"):
            where = f" ({path.name} line {frame.lineno})"
            break
    if "unsupported operations" in text:
        names = re.findall(r"(\w+) \(No registered", text) or re.findall(r"{{node (\S+?)}}", text)
        return f"XLA cannot compile {', '.join(dict.fromkeys(names)) or 'it'}: use other TensorFlow functions"
    hint = next((f": {advice}" for sign, advice in _HINTS if sign in text), "")
    first = next(iter(text.strip().splitlines()), "")
    return f"raised {type(error).__name__}: {first[:200]}{where}{hint}"
