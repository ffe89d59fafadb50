"""Where games that step on the host are played, and what programs hold of them. Shapes: N environments."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context

from tfdqn import seeds
from tfdqn.envs.host import HostGames, HostStep
from tfdqn.programs.restarts import Nothing

LOST = -1.0  # as a termination: nothing was played


class Played(NamedTuple):
    """A `HostStep` in as few arrays as it takes: each costs microseconds on its way from Python to a program."""

    frame: tf.Tensor  # [N, ...]
    numbers: tf.Tensor  # [3, N] float32: reward, termination, truncation
    shown: Any  # [N, ...]; Nothing where it is `frame`

    @classmethod
    def of(cls, values: Any) -> Played:
        """What `Stage.step` gives, by name."""
        return cls(*values) if len(values) == len(cls._fields) else cls(*values, shown=Nothing())

    @property
    def is_lost(self) -> tf.Tensor:
        """Whether the games have raised in place of playing, [] bool."""
        return self.numbers[1, 0] == LOST

    def step(self) -> HostStep:
        reward, *ends = tf.unstack(self.numbers)
        shown = self.frame if isinstance(self.shown, Nothing) else self.shown
        return HostStep(self.frame, reward, *(end != 0 for end in ends), shown)


class Pending(NamedTuple):
    """The decision under way, which nobody has learnt of yet: all the state there is here of games that keep theirs."""

    action: tf.Tensor  # [N] int32
    agent_state: Any  # what the agent carries on from that
    played: Played  # what the games show for it


class Stage:
    """Where the games are: what programs hold of them, which know no trainer.

    Attributes:
      games: under way.
      failure: what the games raised in the middle of a program.
      calls_tensorflow: whether they have been seen to call TensorFlow themselves.
    """

    def __init__(self, games: HostGames):
        self.games = games
        self.failure: BaseException | None = None
        self.calls_tensorflow = False

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Inside, what the games call in this thread is looked at."""

        def look(frame, event, _):
            if str(frame.f_globals.get("__name__")).partition(".")[0] == "tensorflow":
                self.calls_tensorflow = True

        before = sys.getprofile()
        sys.setprofile(look)
        try:
            yield
        finally:
            sys.setprofile(before)

    def fill(self, action: np.ndarray, frame: np.ndarray, numbers: np.ndarray, *shown: np.ndarray) -> None:
        """Fill in what `HostGames.step` gives; `LOST` from when on they have raised."""
        if self.failure is None:
            try:
                # The program may hold the thread that TensorFlow would compute with: whoever asked it would wait for
                # ever. As a graph's nothing is computed, and whoever asks for a result raises.
                with context.graph_mode():
                    step = self.games.step(action.copy())
                numbers[0], numbers[1], numbers[2] = step.reward, step.termination, step.truncation
                frame[...] = step.frame
                for each in shown:
                    each[...] = step.shown
                return
            except BaseException as error:  # no program would learn of it
                self.failure = error
                self.calls_tensorflow |= bool(tf.compat.v1.get_default_graph().get_operations())
        numbers[1] = LOST

    def step(self, action: np.ndarray) -> tuple[np.ndarray, ...]:
        """What `HostGames.step` gives, as the fields of `Played`, without `shown` where that is `frame`."""
        try:
            step = self.games.step(action)
        except BaseException as error:  # TensorFlow would make a string of it
            self.failure = error
            raise
        numbers = np.empty([3, len(action)], np.float32)
        numbers[0], numbers[1], numbers[2] = step.reward, step.termination, step.truncation
        # Copies: games may write their next frame into the same memory, which TensorFlow takes as it is.
        frame = np.array(step.frame)
        return (frame, numbers) if self.games.skips_resets else (frame, numbers, np.array(step.shown))


def seeds_of(seed: int, start: int, count: int, first: int = 0) -> list[int]:
    """A seed below 2^31 for each of `count` environments: it follows from a seed, the start and its number alone."""
    return [seeds.stream(seed, "env", start, first + i) % 2**31 for i in range(count)]
