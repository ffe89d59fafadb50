"""Small games that each need one thing to be right, in the order of how much must work."""

from __future__ import annotations

import numpy as np

from tests.finite import ACTIONS, DISCOUNT, SCREEN, Rules, known_q, rules

LIMIT = 5  # decisions


def chain(rewards) -> Rules:
    """A row of states, each seen, whatever is done; the last decision ends the game."""
    states = len(rewards)
    successor = np.repeat(np.minimum(np.arange(states) + 1, states - 1), ACTIONS)
    terminates = np.repeat(np.arange(states) == states - 1, ACTIONS).reshape(states, ACTIONS)
    reward = np.repeat(rewards, ACTIONS).reshape(states, ACTIONS)
    return rules(reward, successor, terminates, older=np.maximum(np.arange(states) - 1, 0))


def one_decision(reward) -> Rules:
    """Episodes of one decision that begin in any state."""
    states = len(reward)
    none = np.zeros([states, ACTIONS], np.int32)
    return rules(reward, none, none == 0, starts=range(states))


def right_action(depth, now, before) -> int:
    """The newest signal (`depth` 1), or whether it has just gone on (2): not if it was on before, nor at the start."""
    return now if depth == 1 else int(now and not before)


def signal(depth: int) -> Rules:
    """A signal is drawn anew for each frame, and the action that it asks for pays 1.

    Cut off after four decisions, so that a frame from before a reset looks like any other and tells nothing.
    """
    states = [(now, before) for now in (0, 1) for before in (0, 1)]
    frames, reward = np.zeros([4, *SCREEN], np.uint8), np.zeros([4, ACTIONS])
    for i, (now, before) in enumerate(states):
        frames[i, 0, now] = 255
        reward[i, right_action(depth, now, before)] = 1
    successor = [[states.index((drawn, now)) for drawn in (0, 1)] for now, _ in states]
    older = [states.index((before, 0)) for _, before in states]
    starts = [states.index((now, now)) for now in (0, 1)]
    successor = np.repeat(np.array(successor)[:, None], ACTIONS, axis=1)
    return rules(reward, successor, np.zeros([4, ACTIONS]), frames, older, starts, decisions=4)


def signal_of_four(depth: int) -> Rules:
    """The same with an end, where only the first decision matters.

    Later ones pay a quarter where the signal asks for the second action, whatever is done: so returns over several
    decisions owe nothing to the behaviour, and are unbiased.
    """
    states = [(time, now, before) for time in range(4) for now in (0, 1) for before in (0, 1)]
    frames, reward = np.zeros([16, *SCREEN], np.uint8), np.zeros([16, ACTIONS])
    successor, older = np.zeros([16, ACTIONS, 2]), np.arange(16)
    for i, (time, now, before) in enumerate(states):
        frames[i, 0, now] = frames[i, 1, time] = 255
        right = right_action(depth, now, before if time else now)
        reward[i] = right / 4 if time else [right == 0, right == 1]
        successor[i] = [states.index((min(time + 1, 3), drawn, now)) for drawn in (0, 1)]
        older[i] = states.index((time - 1, before, 0)) if time else i
    terminates = np.array([[time == 3] * ACTIONS for time, _, _ in states])
    return rules(reward, successor, terminates, frames, older, [states.index((0, now, now)) for now in (0, 1)])


PROBES = {
    "constant reward": one_decision([[1.0, 1.0]]),
    "discounting": chain([0, 0, 0, 0, 1]),
    "action choice": one_decision([[-1.0, 1.0]]),
    "observation": one_decision([[1.0, 1.0], [-1.0, -1.0]]),
    "action and observation": one_decision([[1.0, -1.0], [-1.0, 1.0]]),
    "time limit": rules([[1.0, 1.0]], [[0, 0]], [[False, False]], decisions=LIMIT),
    "death": chain([1.0] * LIMIT),
}
# By n_step, then by the frames that are needed.
SIGNALS = {1: {1: signal(1), 2: signal(2)}, 3: {1: signal_of_four(1), 2: signal_of_four(2)}}
# The smallest that needs frames, actions, ends and a time limit, for the mode that is slow: two states to choose in,
# and one without end.
ALL_IN_ONE = rules(
    [[1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]],
    [[0, 0], [1, 1], [2, 2]],
    [[True, True], [True, True], [False, False]],
    starts=(0, 1, 2, 2),
    decisions=LIMIT,
)


def random_game(seed: int) -> Rules:
    """Twelve states with random outcomes; two choices end the game with a prize, a time limit does after 20 decisions.

    No two actions are almost equal, so that the best one is a fair question. What may follow an action differs by less
    than 1 in value: there Huber's loss is a square, whose best guess is the mean; beyond, it leans to the median.
    """
    dice = np.random.default_rng(seed)
    gap, spread = 0.0, 1.0
    while gap < 0.1 or spread >= 1:
        terminates = np.zeros([12, ACTIONS], bool)
        terminates[dice.integers(0, 12, 2), dice.integers(0, ACTIONS, 2)] = True
        reward = dice.uniform(0.2, 1.0, [12, ACTIONS]).round(2) + 4.0 * terminates
        game = rules(reward, dice.integers(0, 12, [12, ACTIONS, 16]), terminates, starts=range(12), decisions=20)
        q = known_q(game, DISCOUNT)
        gap = np.abs(np.diff(q)).min()
        spread = DISCOUNT * np.ptp(q.max(1)[game.successor[:12]], axis=-1).max()
    return game
