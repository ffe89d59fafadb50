"""Do episodes go as a game says: their observations and rewards, their ends, their scores and how they start?

Each check returns what it has to add, or raises a `Fault`.
"""

from __future__ import annotations

import math
import time

import numpy as np
import tensorflow as tf

from tfdqn.envs.check.faults import Fault, Unseen, require
from tfdqn.envs.check.nests import arrays, difference, form, is_equal, leaves, tensors
from tfdqn.envs.check.playing import Game, is_within
from tfdqn.envs.spec import ObservationSpec


def in_range(game: Game) -> str:
    spec = game.env.observation_spec
    for t, move in enumerate(game.moves, 1):
        shown = move.outcome.timestep.observation
        if (is_outside := ~is_within(tf.constant(shown), spec).numpy()).any():
            value = shown[is_outside].flat[0]
            raise Fault(f"an observation is {value} in frame {t}, outside {_bounds(spec)}")
    require(
        game.totals.outside == 0,
        f"{game.totals.outside} numbers of observations of random play are outside {_bounds(spec)}",
    )
    return ""


def finite_rewards(game: Game) -> str:
    require(
        game.totals.unpayable == 0,
        f"{game.totals.unpayable} rewards of random play are infinite or not a number: look for divisions by 0",
    )
    return ""


def one_end(game: Game) -> str:
    both = sum(int((move.outcome.timestep[2] & move.outcome.timestep[3]).sum()) for move in game.moves)
    both += int(game.totals.both)
    require(
        both == 0,
        f"termination and truncation were both true, {both} times: an end by the rules comes first, write "
        "truncation=(time > time_limit) & ~termination",
    )
    return ""


def episodes_end(game: Game) -> str:
    require(
        game.totals.episodes or _moved_in_time(game) == "",
        f"no episode ended within {game.long_play_frames} frames of random play: end it by a rule (termination), or by "
        "a time limit (truncation=(time > time_limit) & ~termination)",
    )
    return ""


def time_limit(game: Game) -> str:
    env, limit = game.env, game.env.time_limit
    is_own, moved = env._sets("time_limit"), _moved_in_time(game)
    plays = [game.totals]
    if not game.totals.cut and moved is None and limit < game.long_play_frames:
        plays += [game.play(action) for action in range(env.num_actions)]  # one of them may live longer
    for totals in plays:
        require(
            not totals.early,
            f"an episode was truncated in frame {totals.early}, but time_limit is {limit}: truncate in the frame that "
            f"passes it, {limit + 1} (time > time_limit, where time is 1 after the first step), or set time_limit = "
            f"{totals.early - 1}",
        )
        require(
            not totals.late or not is_own,
            f"an episode went on after frame {limit + 1} ({totals.longest} frames), but time_limit is {limit}: "
            "truncate in the frame that passes it, truncation=(time > time_limit) & ~termination",
        )
    if any(totals.cut for totals in plays):
        return ""
    require(not moved or not is_own, moved)
    if moved == "":
        return "by setting the state's time"
    if not is_own:
        return Unseen(f"the game sets none and truncated nothing; evaluation stops an episode after {limit} frames")
    return Unseen(f"no episode of random play came to frame {limit + 1}")


def _moved_in_time(game: Game) -> str | None:
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
        _, timestep = game.env.step(tensors(timed), tf.zeros([game.num_envs], tf.int32), tensors(noise))
        ends.append(arrays(timestep))
    if ends[0].truncation.any():
        return f"with the state's time set to {limit - 1}, the next step truncated, a frame before time_limit is passed"
    is_over = ends[1].termination | ends[1].truncation
    if is_over.all():
        return "" if ends[1].truncation.any() else None  # a state that was moved in time may be a dead one
    return (
        f"with the state's time set to time_limit, {limit}, the next step went on: write truncation=(time > "
        "time_limit) & ~termination"
    )


def best_score(game: Game) -> str:
    best = game.env.best_score
    require(
        not game.totals.episodes or game.totals.best <= best * (1 + 1e-6 * np.sign(best)),
        f"an episode of random play scored {game.totals.best:g}, more than best_score, {best:g}: raise it",
    )
    return ""


def difficulties(game: Game) -> str:
    if not game.env.has_difficulties:
        return "none"
    env, (noise, state) = game.env, game.first
    drawn = {}
    for share in (0.0, 0.5, 1.0):
        drawn[share] = np.asarray(env.difficulties(tensors(noise), share))
        require(
            (drawn[share].shape, drawn[share].dtype.name) == ((game.num_envs,), "int32"),
            f"difficulties is {form(drawn[share])}, must be [{game.num_envs}] int32, one an environment",
        )
        require(
            (drawn[share] >= 0).all(), f"difficulties drew {drawn[share].min()}: they begin at 0, the game's own start"
        )
    require(
        (drawn[0.0] == 0).all(), "difficulties with a share of 0 drew another than 0: all begin at the game's own start"
    )
    require((drawn[1.0] > 0).all(), "difficulties with a share of 1 drew 0: every episode begins at one above it")
    where = difference(arrays(env.reset_at(tensors(noise), tf.zeros([game.num_envs], tf.int32))), state)
    require(not where, f"reset_at a difficulty of 0 is not reset{where}")
    moved = arrays(env.reset_at(tensors(noise), tf.constant(drawn[1.0])))
    forms = [[form(array) for _, array in leaves(each)] for each in (moved, state)]
    require(forms[0] == forms[1], "reset_at must return the same fields, shapes and types as reset")
    require(not is_equal(moved, state), "reset_at a difficulty above 0 is reset: leave difficulties out")
    return f"{drawn[1.0].min()} to {drawn[1.0].max()} drawn"


def random_play(game: Game) -> str:
    totals = game.totals
    if not totals.episodes:
        return f"no episode ended in {game.long_play_frames} frames"
    return (
        f"mean score {totals.score / totals.episodes:.3g} (best {totals.best:.3g}) over {totals.episodes} episodes of "
        f"{totals.episode_frames / totals.episodes:.1f} frames, {totals.cut / totals.episodes:.0%} of them truncated"
    )


def speed(game: Game) -> str:
    game.totals  # noqa: B018 the first call may be slower
    start = time.monotonic()
    game.play(-1)
    rate = game.num_envs * game.long_play_frames / (time.monotonic() - start)
    return f"{rate:,.0f} frames/s of random play, {game.num_envs} environments"


def _bounds(spec: ObservationSpec) -> str:
    bounds = "the finite numbers" if spec.low == -math.inf else f"observation_spec's {spec.low} to {spec.high}"
    return bounds + ": clip it, or give the spec the right low and high"
