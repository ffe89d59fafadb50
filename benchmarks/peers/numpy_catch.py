"""catch8 from the game's rules, one game at a time, in plain Python and NumPy."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np

from benchmarks.peers import traces

SIZE = 8
TIME_LIMIT = 500


class Catch8:
    """`frame`, [8, 8] float32 in 0..1, is redrawn in place by each step: take a copy to keep it."""

    num_actions = 3

    def __init__(self, seed: int | None = None):
        self._random = random.Random(seed)
        self.frame = np.zeros((SIZE, SIZE), np.float32)
        self.reset()

    def reset(self, paddle: int | None = None, column: int | None = None) -> None:
        self.time = 0
        self.paddle = self._random.randrange(SIZE - 3) if paddle is None else paddle
        self.balls = [[0, self._random.randrange(SIZE) if column is None else column]]  # [row, column], oldest first
        self._draw()

    def step(self, action: int, posted: int | None = None) -> tuple[float, bool, bool]:
        """Play a frame; returns reward, termination, truncation. `posted`: the next ball's column, drawn if None."""
        if action == 1:
            self.paddle = max(0, self.paddle - 1)
        elif action == 2:
            self.paddle = min(self.paddle + 1, SIZE - 3)
        if self.balls[0][0] == SIZE - 1:  # caught in the last frame
            del self.balls[0]
        for ball in self.balls:
            ball[0] += 1
        self.time += 1
        if self.time % 5 == 0:
            last = self.balls[-1][1]
            if posted is None:
                posted = self._random.choice(ALLOWED[last])
            self.balls.append([0, posted])
        reward, terminated = 0.0, False
        row, column = self.balls[0]
        if row == SIZE - 1:
            terminated = not self.paddle <= column < self.paddle + 3
            reward = -1.0 if terminated else 1.0
        self._draw()
        return reward, terminated, self.time > TIME_LIMIT and not terminated

    def _draw(self) -> None:
        self.frame.fill(0.0)
        self.frame[SIZE - 1, self.paddle : self.paddle + 3] = 1.0
        for row, column in self.balls:
            self.frame[row, column] = 0.5


ALLOWED = [[column for column in range(SIZE) if abs(column - last) >= 3] for last in range(SIZE)]


def play_recorded() -> int:
    """Every recorded frame of catch8, or `WrongResult`."""
    game = Catch8()

    def start(paddle, column):
        game.reset(paddle, column)
        return None, levels(game.frame)

    def step(_, action, __, posted):
        reward, terminated, truncated = game.step(action, posted)
        return None, levels(game.frame), reward, terminated or truncated

    return traces.replay("catch8", start, step)


def levels(frame: np.ndarray) -> np.ndarray:
    return np.round(frame * 255).astype(np.uint8)


def play_greedy(games: list[Catch8], act: Callable[[np.ndarray], np.ndarray]) -> float:
    """Mean score of an episode of each game; `act` maps frames [E, 8, 8] to actions [E]."""
    scores, lives = np.zeros(len(games)), np.ones(len(games), bool)
    while lives.any():
        for i, action in enumerate(act(np.stack([game.frame for game in games]))):
            if lives[i]:
                reward, terminated, truncated = games[i].step(int(action))
                scores[i] += reward
                lives[i] = not (terminated or truncated)
    return float(scores.mean())
