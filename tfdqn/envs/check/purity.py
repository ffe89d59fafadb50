"""Is a move the same however it is made: again, in another order, with fewer environments, compiled?

Each check returns what it has to add, or raises a `Fault`.
"""

from __future__ import annotations

import time

import numpy as np
import tensorflow as tf

from tfdqn.envs.check.faults import require
from tfdqn.envs.check.nests import arrays, difference, first, gaps, is_equal, tensors
from tfdqn.envs.check.playing import Game
from tfdqn.runtime import compiled

REPEATED_MOVES = 8
FEWER_ENVS = 3
MIN_ENVS = FEWER_ENVS + 1


def actions(game: Game) -> str:
    actions = game.env.num_actions
    if actions == 1:
        return "only one"
    differs = np.zeros([actions, actions], bool)
    for move in game.moves[:: max(1, len(game.moves) // REPEATED_MOVES)]:
        results = []
        for action in range(actions):
            held = tf.fill([game.num_envs], action)
            results.append(arrays(game.env.step(tensors(move.state), held, tensors(move.outcome.noise))))
        for a in range(actions):
            for b in range(a):
                differs[a, b] |= not is_equal(results[a], results[b])
    require(differs.any(), "no action changes anything: step must read `action` ([N] int32, 0..num_actions-1)")
    twins = [(a, b) for a in range(actions) for b in range(a) if not differs[a, b]]
    if twins:
        a, b = (game.env.action_names[action] for action in twins[0])
        return f"{a!r} did the same as {b!r} throughout"
    return ""


def observe(game: Game) -> str:
    for t, move in enumerate(game.moves, 1):
        where = difference(move.outcome.timestep.observation, move.outcome.observation)
        require(
            not where,
            f"step's observation is not what observe shows of step's state, in frame {t}{where}: return "
            "self.observe(state) of the new state",
        )
    return ""


def repeatable(game: Game) -> str:
    env = game.env
    for move in game.moves[:REPEATED_MOVES]:
        state, action, noise = (tensors(part) for part in (move.state, move.action, move.outcome.noise))
        for name, function in (
            ("sample_noise", lambda at=move.seed: env.sample_noise(at, game.num_envs)),
            ("reset", lambda noise=noise: env.reset(noise)),
            ("step", lambda state=state, action=action, noise=noise: env.step(state, action, noise)),
            ("observe", lambda state=state: env.observe(state)),
            ("legal_actions", lambda state=state: game._legal(state)),
        ):
            once, twice = arrays(function()), arrays(function())
            where = difference(once, twice)
            require(
                not where,
                f"{name} gave another result when it was called again with the same arguments{where}: keep everything "
                "in the state, draw everything in sample_noise",
            )
    return ""


def order(game: Game) -> str:
    for t, move in reversed(list(enumerate(game.moves, 1))):
        state, action, noise = (tensors(part) for part in (move.state, move.action, move.outcome.noise))
        where = difference(arrays(game.answer(state, action, noise)), move.outcome)
        require(
            not where,
            f"the move of frame {t} came out another way after other games had been played{where}: nothing may be kept "
            "in self or in the module; keep it in the state",
        )
    return ""


def environments(game: Game) -> str:
    for move in game.moves[:REPEATED_MOVES]:
        for few in (1, FEWER_ENVS):
            where = difference(
                arrays(game.env.sample_noise(move.seed, few)), first(move.outcome.noise, slice(few)), exact=False
            )
            require(
                not where,
                f"sample_noise drew other numbers for the first {few} of {game.num_envs} environments than for as many "
                f"alone{where}: environment i's draws must depend on (seed, i) only, as tfdqn.seeds.draw's do",
            )
    reverse, middle = slice(None, None, -1), slice(FEWER_ENVS, FEWER_ENVS + 1)
    for part, what in ((reverse, "in another order"), (middle, "alone"), (slice(FEWER_ENVS), "with fewer others")):
        for move in game.moves[:REPEATED_MOVES]:
            given = [tensors(first(each, part)) for each in (move.state, move.action, move.outcome.noise)]
            where = difference(arrays(game.answer(*given)), first(move.outcome, part), exact=False)
            require(
                not where,
                f"an environment came out another way {what}{where}: each must depend on its own state, action and "
                "noise only (look for reductions without axis, and for fixed numbers of environments)",
            )
    return ""


def traces(game: Game) -> str:
    outcomes = []
    for _ in range(2):
        trace = compiled.program(game.outcome, jit=False, eager=False)
        moves = game.moves[: REPEATED_MOVES // 2]
        outcomes.append([arrays(trace(tensors(move.state), tf.constant(move.action), move.seed)) for move in moves])
    where = difference(outcomes[0], outcomes[1])
    require(
        not where,
        f"a second trace gave another result{where}: Python code that draws or counts runs only while tracing; use "
        "tensors of the state and the noise",
    )
    return ""


def compiles(game: Game) -> str:
    start = time.monotonic()
    move = game.moves[0]
    game.compiled_outcome(tensors(move.state), tf.constant(move.action), move.seed)
    game.compiled_play(tf.constant(0), tf.constant(-1))
    return f"two programs in {time.monotonic() - start:.1f} s"


def xla(game: Game) -> str:
    largest = 0.0
    for t, move in enumerate(game.moves, 1):
        result = arrays(game.compiled_outcome(tensors(move.state), tf.constant(move.action), move.seed))
        where = difference(result, move.outcome, exact=False)
        require(
            not where,
            f"XLA and op by op disagree in frame {t}{where}: compute in whole numbers, or keep floats from deciding; "
            "and draw in sample_noise only",
        )
        largest = max([largest, *gaps(result, move.outcome)])
    return f"floats to within {largest:.0e}" if largest else "in every bit"
