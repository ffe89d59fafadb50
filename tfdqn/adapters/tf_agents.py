"""tfdqn's games for TF-Agents, and TF-Agents' environments as games of tfdqn.

Shapes: N environments, A actions.
"""

from __future__ import annotations

import collections
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfdqn import dependencies, envs, seeds
from tfdqn.adapters.pure import Pure
from tfdqn.envs import Environment, ObservationSpec, TimeStep
from tfdqn.envs.rollout import select
from tfdqn.envs.spec import BOUNDS
from tfdqn.errors import UserError
from tfdqn.runtime import compiled

dependencies.require_tf_agents()

from tf_agents.environments import tf_environment  # noqa: E402
from tf_agents.specs import BoundedTensorSpec, TensorSpec  # noqa: E402
from tf_agents.trajectories import time_step as ts  # noqa: E402

__all__ = ["GameTFEnvironment", "from_tf_agents", "split"]

OBSERVATION, LEGAL = "observation", "legal_actions"


class GameTFEnvironment(tf_environment.TFEnvironment):
    """N games as a `TFEnvironment`, which keeps their state in variables.

    The step after an end begins the next episode and ignores the action, as TF-Agents' environments do. Observations
    are the game's own; where its rules limit what may be done, they are a dict of "observation" and "legal_actions"
    [N, A] bool, for which an agent takes `observation_and_action_constraint_splitter=tfdqn.adapters.tf_agents.split`.

    Args:
      game: a game, or what `--env` calls it.
      num_envs: N, TF-Agents' batch size.
      seed: of all draws.
      **arguments: of the game, where it is named.

    Raises:
      ValueError: no such game, one that steps on the host, or arguments for one that is made already; one line.
    """

    def __init__(self, game: str | Environment, num_envs: int = 1, seed: int = 0, **arguments: Any):
        if arguments and not isinstance(game, str):
            raise ValueError(f"{', '.join(arguments)}: this game is made already; give its arguments where it is made")
        self.game = envs.make(game, **arguments) if isinstance(game, str) else game
        if self.game.steps_on_host:
            raise ValueError(f"{self.game.name} steps in Python, which no graph can hold")
        spec = self.game.observation_spec
        shown = TensorSpec(spec.shape, spec.dtype, OBSERVATION)
        if (spec.low, spec.high) != BOUNDS["float32"] and spec.dtype != "bool":  # bits know no bounds there
            # Arrays: of a single 255 of uint8, TF-Agents' samples make 256, and with NumPy 2 that is 0.
            low, high = (np.full(spec.shape, bound, spec.dtype) for bound in (spec.low, spec.high))
            shown = BoundedTensorSpec(spec.shape, spec.dtype, low, high, OBSERVATION)
        if self.game.limits_actions:
            shown = {OBSERVATION: shown, LEGAL: TensorSpec([self.game.num_actions], tf.bool, LEGAL)}
        action = BoundedTensorSpec([], tf.int32, 0, self.game.num_actions - 1, "action")
        super().__init__(ts.time_step_spec(shown), action, num_envs)
        self._random = tf.random.Generator.from_seed(seed)
        self._state = tf.nest.map_structure(tf.Variable, self.game.reset(self._noise()))
        self._time_step = tf.nest.map_structure(tf.Variable, self._first(self._state))

    def _noise(self):
        state = self._random.skip(1)  # of the generator: a counter, in two words, and a key
        return self.game.sample_noise(tf.stack([state[2], state[0]]), self.batch_size)

    def _shown(self, state):
        observation = self.game.observe(state)
        return (
            {OBSERVATION: observation, LEGAL: self.game.legal_actions(state)}
            if self.game.limits_actions
            else observation
        )

    def _first(self, state):
        return ts.restart(self._shown(tf.nest.map_structure(tf.identity, state)), batch_size=self.batch_size)

    def _keep(self, state, time_step):
        kept, new = (tf.nest.flatten(parts) for parts in ((self._state, self._time_step), (state, time_step)))
        for variable, value in zip(kept, new, strict=True):
            variable.assign(value)
        return time_step

    def _current_time_step(self):
        return tf.nest.map_structure(tf.identity, self._time_step)

    def _reset(self):
        state = self.game.reset(self._noise())
        return self._keep(state, self._first(state))

    def _step(self, action):
        is_over = self._time_step.step_type == ts.StepType.LAST
        noise = self._noise()
        stepped, shown = self.game.step(tf.nest.map_structure(tf.identity, self._state), action, noise)
        state = select(is_over, self.game.reset(noise), stepped)
        ended = shown.termination | shown.truncation
        time_step = ts.TimeStep(
            step_type=tf.where(is_over, ts.StepType.FIRST, tf.where(ended, ts.StepType.LAST, ts.StepType.MID)),
            reward=tf.where(is_over, 0.0, shown.reward),
            discount=tf.where(shown.termination & ~is_over, 0.0, 1.0),  # a time limit does not discount
            observation=self._shown(state),
        )
        return self._keep(state, time_step)


def split(observation: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """What is seen, and which actions are legal, of a game that limits them: TF-Agents' splitter."""
    return observation[OBSERVATION], observation[LEGAL]


# --- In ---


def from_tf_agents(tf_env: tf_environment.TFEnvironment, time_limit: int = 10_000) -> Environment:
    """A game of tfdqn that plays a `TFEnvironment`, any number of them side by side.

    Its `reset` and `step` are traced, and what they keep in variables becomes the state of each game, beginning with
    the values that they have now. What they draw follows from tfdqn's seeds, not from theirs. A last step of discount 0
    is a termination, any other a truncation; discounts of other steps do not count.

    Args:
      tf_env: of batch size 1, with one action, a whole number, and one observation, of uint8, float32 or bool and
        rank 1 to 3 (or a dict of it and "legal_actions", as of `GameTFEnvironment`).
      time_limit: frames after which an episode is truncated if the environment has not ended it.

    Raises:
      UserError: one line; another kind of environment, or one whose `reset` or `step` cannot be a pure function, as
        those of a `TFPyEnvironment`, which call Python.
    """
    return _Taken(tf_env, time_limit)


class Noise(NamedTuple):
    """The word that all draws of one game in one frame follow from."""

    word: tf.Tensor  # [N] int64


class Nothing(NamedTuple):
    """What a game that limits no action keeps of legal ones."""


class State(NamedTuple):
    time: tf.Tensor  # [N] int32, frames since reset
    observation: tf.Tensor  # [N, ...]
    legal: Any  # [N, A] bool, or `Nothing`
    variables: Any  # a NamedTuple of [N, ...], the values of the environment's variables


class _Taken(Environment):
    """A `TFEnvironment`, played side by side: each operation of one environment is made one of N."""

    def __init__(self, tf_env: tf_environment.TFEnvironment, time_limit: int):
        self.name = type(tf_env).__name__
        self.time_limit = time_limit
        if not isinstance(tf_env, tf_environment.TFEnvironment):
            raise UserError(f"from_tf_agents: {self.name} is no TFEnvironment")
        if tf_env.batch_size != 1:
            raise UserError(
                f"{self.name} has the batch size {tf_env.batch_size}: make it with 1; tfdqn plays any number of them"
            )
        shown, action = tf_env.time_step_spec().observation, tf_env.action_spec()
        self._has_legal = isinstance(shown, dict) and set(shown) == {OBSERVATION, LEGAL}
        shown = shown[OBSERVATION] if self._has_legal else shown
        self.observation_spec = _observation_spec(self.name, shown)
        self.num_actions, self._first_action, self._action_dtype = _actions(self.name, action)

        self._programs = (
            Pure(f"reset of {self.name}", tf_env.reset),
            Pure(f"step of {self.name}", tf_env.step, tf.TensorSpec([1, *action.shape], action.dtype)),
        )
        found = {variable.ref(): variable for program in self._programs for variable in program.variables}
        self._refs = list(found)
        self._kept = collections.namedtuple("Variables", [f"variable_{i}" for i in range(len(found))])
        self._start = self._kept(*(variable.numpy() for variable in found.values()))
        # The operations are made in a graph, also for who plays op by op.
        self._reset_program = compiled.program(self._traced_reset, jit=False, eager=False)
        self._step_program = compiled.program(self._traced_step, jit=False, eager=False)
        noise = self.sample_noise(tf.zeros([2], tf.int64), 1)
        self.step(self.reset(noise), tf.zeros([1], tf.int32), noise)  # what cannot be pure is refused here and now

    def sample_noise(self, seed: tf.Tensor, num_envs: int) -> Noise:
        return Noise(seeds.draw(seed, num_envs))

    def reset(self, noise: Noise) -> State:
        noise = self.checked_noise(noise)
        return self._reset_program(noise) if tf.executing_eagerly() else self._traced_reset(noise)

    def step(self, state: State, action: tf.Tensor, noise: Noise) -> tuple[State, TimeStep]:
        given = self.checked(state, action, noise)
        return self._step_program(*given) if tf.executing_eagerly() else self._traced_step(*given)

    def observe(self, state: State) -> tf.Tensor:
        return state.observation

    def legal_actions(self, state: State) -> tf.Tensor | None:
        return state.legal if self._has_legal else None

    def _traced_reset(self, noise):
        def one(word):
            values = dict(zip(self._refs, map(tf.constant, self._start), strict=True))
            time_step, values = self._programs[0](values, [], word)
            observation, legal = self._seen(time_step)
            return State(tf.zeros([], tf.int32), observation, legal, self._kept(*(values[ref] for ref in self._refs)))

        return tf.vectorized_map(one, noise.word)

    def _traced_step(self, state, action, noise):
        def one(given):
            state, action, word = given
            action = tf.cast(action, self._action_dtype) + self._first_action
            values = dict(zip(self._refs, state.variables, strict=True))
            arguments = [tf.reshape(action, self._programs[1].argument_shapes[0])]
            time_step, values = self._programs[1](values, arguments, word)
            observation, legal = self._seen(time_step)
            state = State(state.time + 1, observation, legal, self._kept(*(values[ref] for ref in self._refs)))
            is_last = tf.reshape(time_step.step_type, []) == ts.StepType.LAST
            is_dead = is_last & (tf.reshape(time_step.discount, []) == 0.0)
            is_cut = (is_last | (state.time > self.time_limit)) & ~is_dead
            reward = tf.cast(tf.reshape(time_step.reward, []), tf.float32)
            return state, TimeStep(observation, reward, is_dead, is_cut)

        return tf.vectorized_map(one, (state, action, noise.word))

    def _seen(self, time_step):
        shown, legal = split(time_step.observation) if self._has_legal else (time_step.observation, None)
        shown = tf.reshape(shown, self.observation_spec.shape)
        return shown, tf.reshape(legal, [self.num_actions]) if self._has_legal else Nothing()


def _observation_spec(name: str, shown: Any) -> ObservationSpec:
    if not isinstance(shown, tf.TypeSpec):
        raise UserError(f"{name} shows {len(tf.nest.flatten(shown))} tensors: give it a wrapper that shows one")
    low, high = None, None
    if isinstance(shown, BoundedTensorSpec):
        low, high = (float(np.min(shown.minimum)), float(np.max(shown.maximum)))
    try:
        return ObservationSpec(tuple(shown.shape), shown.dtype, low, high)
    except ValueError as error:
        raise UserError(f"{name}: {error}") from None


def _actions(name: str, action: Any) -> tuple[int, int, tf.DType]:
    """How many there are, the first, and their type."""
    is_one = isinstance(action, BoundedTensorSpec) and action.dtype.is_integer and action.shape.num_elements() == 1
    if not is_one:
        raise UserError(f"{name} does not take one action, a whole number with bounds: {action}")
    low, high = int(np.min(action.minimum)), int(np.max(action.maximum))
    return high - low + 1, low, action.dtype
