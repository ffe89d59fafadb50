"""The contract that games share.

A game is a set of pure functions on tensors. Randomness enters as integers that were drawn beforehand, so a
transition is deterministic: a recorded game can be replayed frame by frame, and eager, compiled, CPU and GPU
results are equal in every bit. Shapes use one alphabet: N environments, A actions, H rows, W columns and C planes of a
frame. Importing this module does not import TensorFlow.
"""

from __future__ import annotations

import abc
import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from tfdqn.envs.spec import ObservationSpec

if TYPE_CHECKING:
    import tensorflow as tf


class TimeStep(NamedTuple):
    """What a transition shows. `termination` and `truncation` are never both true."""

    observation: tf.Tensor  # [N, ...] as the game's `observation_spec`, the frame after the transition
    reward: tf.Tensor  # [N] float32
    termination: tf.Tensor  # [N] bool, ended by the rules: nothing follows, discount 0
    truncation: tf.Tensor  # [N] bool, ended by the time limit: a learner bootstraps through it


def _form_and_bits(tensor: tf.Tensor) -> tuple:
    return tensor.dtype, tensor.shape.as_list(), tensor.numpy().tobytes()


def _noted(init: Callable) -> Callable:
    """A constructor that notes what a game is made with, for `tfdqn.envs.loading.arguments_of`."""

    @functools.wraps(init)
    def noted(self, *args: Any, **kwargs: Any) -> None:
        vars(self).setdefault("_made_with", (args, kwargs))  # not what a class passes on to the one it is made from
        init(self, *args, **kwargs)

    return noted


class Environment(abc.ABC):
    """A vectorised game: `state = reset(noise)`, then `state, timestep = step(state, action, noise)`.

    No method keeps anything: state and noise are NamedTuples of tensors with leading axis N. An environment does not
    restart by itself; the caller chooses between `step` and `reset` (see `tfdqn.programs.training`).
    """

    # Raised when the behaviour changes, never for speed: equal versions mean comparable results.
    version: ClassVar[int] = 1
    frames_per_second: ClassVar[float] = 10.0  # playing speed for people
    time_limit: ClassVar[int] = 10_000  # an episode is truncated in the frame that passes this many
    best_score: ClassVar[float] = math.inf  # what perfect play reaches
    # Colour of each grey level for people: {level: (red, green, blue)}, each 0..255.
    palette: ClassVar[dict[int, tuple[int, int, int]]] = {level: (level, level, level) for level in range(256)}

    steps_on_host: ClassVar[bool] = False  # it is played in Python, which programs call: see `tfdqn.envs.host`

    # What a game of an earlier version may say, and what it says today.
    _RETIRED: ClassVar[dict[str, str]] = {
        "score_is_frames": "write score(state, timestep), what a frame adds to the score",
        "has_difficulties": "write difficulties(noise, share) and reset_at(noise, difficulty)",
        "is_moved_start": "write difficulties(noise, share), 0 where an episode begins at the game's own start",
        "training_reset": "write difficulties(noise, share) and reset_at(noise, difficulty)",
    }

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        for name in cls._RETIRED.keys() & vars(cls).keys():
            raise TypeError(f"{cls.__name__}.{name} is no longer read: {cls._RETIRED[name]}")
        if "__init__" in vars(cls):
            cls.__init__ = _noted(cls.__init__)

    # A game may set each of the following as it likes: as an attribute of its class, in its constructor, or by a
    # property. It must set `observation_spec`, and `num_actions` or `action_names`; each of these follows from the
    # other.

    @functools.cached_property
    def name(self) -> str:
        """What people call the game; the name of its class, unless it says otherwise."""
        return type(self).__name__

    @functools.cached_property
    def observation_spec(self) -> ObservationSpec:
        """Shape, type and bounds of an observation."""
        if not self._sets("observation_shape"):
            name = type(self).__name__
            raise TypeError(f"{name} does not say what it shows: set observation_spec, such as ObservationSpec((8, 8))")
        return ObservationSpec(self.observation_shape, "uint8")

    @functools.cached_property
    def observation_shape(self) -> tuple[int, ...]:
        """The shape of one environment's observation, such as (H, W)."""
        return self.observation_spec.shape

    @functools.cached_property
    def num_actions(self) -> int:
        """A; an action is 0..A-1."""
        if not self._sets("action_names"):
            raise TypeError(f"{type(self).__name__} does not say what one can do: set num_actions or action_names")
        return len(self.action_names)

    @functools.cached_property
    def action_names(self) -> tuple[str, ...]:
        """A word for each action."""
        return tuple(f"action {action}" for action in range(self.num_actions))

    def _sets(self, name: str) -> bool:
        """Whether the game, not only this class, says what `name` is."""
        return name in vars(self) or getattr(type(self), name) is not getattr(Environment, name)

    @abc.abstractmethod
    def sample_noise(self, seed: tf.Tensor, num_envs: int) -> Any:
        """Draw what one transition, and one reset, may need.

        Args:
          seed: [2] int64, as from `tfdqn.seeds.at`; equal seeds give equal draws (`tfdqn.seeds.draw`).
          num_envs: N. Environment i's draws depend on (seed, i), not on N.

        Returns:
          A NamedTuple of integer tensors [N].
        """

    @abc.abstractmethod
    def reset(self, noise: Any) -> Any:
        """Return the state of N fresh episodes, a NamedTuple of tensors [N, ...]."""

    def difficulties(self, noise: Any, share: float) -> tf.Tensor | None:
        """Draw at which difficulty each episode of training begins, [N] int32; None: the game is always as difficult.

        Args:
          noise: what `reset` takes.
          share: of the episodes that begin at a difficulty above 0, from 0 to 1. The others begin at 0, the game's own
            start, and only their scores are reported.
        """
        return None

    def reset_at(self, noise: Any, difficulty: tf.Tensor) -> Any:
        """`reset` at a difficulty, [N] int32 as `difficulties` draws them; at 0 it is `reset`."""
        raise NotImplementedError(f"{self.name} draws difficulties, but has no reset_at(noise, difficulty)")

    @property
    def has_difficulties(self) -> bool:
        """Whether `difficulties` says anything."""
        return self._sets("difficulties")

    def training_start(self, noise: Any, share: float) -> tuple[Any, tf.Tensor]:
        """The states of N fresh episodes of training, and their difficulties, [N] int32.

        Args:
          noise: what `reset` takes.
          share: of the episodes that begin at a difficulty that is drawn.

        Raises:
          ValueError: no share, or one above 0 in a game without difficulties.
        """
        import tensorflow as tf

        if not 0 <= share <= 1:
            raise ValueError(f"curriculum is {share}, but must be a share between 0 and 1")
        if self.has_difficulties:
            difficulty = self.difficulties(noise, share)
            return self.reset_at(noise, difficulty), difficulty
        if share > 0:
            raise ValueError(f"{self.name} is equally difficult from start to end")
        return self.reset(noise), tf.zeros([tf.nest.flatten(noise)[0].shape[0]], tf.int32)

    def score(self, state: Any, timestep: TimeStep) -> tf.Tensor:
        """What a frame adds to an episode's score, [N] float32: its reward, unless the game says otherwise.

        The score is what people compare; no learner sees it.

        Args:
          state: after the frame.
          timestep: of the frame, as `step` returned them.
        """
        return timestep.reward

    @abc.abstractmethod
    def step(self, state: Any, action: tf.Tensor, noise: Any) -> tuple[Any, TimeStep]:
        """Play one frame; `action` is [N] int32 in 0..num_actions-1."""

    @abc.abstractmethod
    def observe(self, state: Any) -> tf.Tensor:
        """Draw what the player sees: [N, ...] as `observation_spec`; a screen is grey levels times 255, rounded."""

    def legal_actions(self, state: Any) -> tf.Tensor | None:
        """Which actions the rules allow: [N, A] bool, at least one where an episode goes on; None: all.

        Nobody takes another, at random or not, and no value of another counts in what is learnt. It is asked at each
        decision; while an action is held for more frames (`--action-repeat`), `step` takes it as it comes.
        """
        return None

    @functools.cached_property
    def limits_actions(self) -> bool:
        """Whether `legal_actions` says anything."""
        if not self._sets("legal_actions"):
            return False
        import tensorflow as tf

        with tf.init_scope():
            return self.legal_actions(self.reset(self.sample_noise(tf.zeros([2], tf.int64), 1))) is not None

    @functools.cached_property
    def draws_for_members(self) -> bool:
        """Whether `sample_noise` also takes the seeds of a population, [P, 2], and draws for each as for it alone.

        Games that draw by `tfdqn.seeds.draw` do, mostly, and then one call serves all members; none has to.
        """
        import tensorflow as tf

        with tf.init_scope():
            both = tf.constant([[3, 2**40 + 1], [5, 7]], tf.int64)
            apart = [tf.nest.flatten(self.sample_noise(seed, 2)) for seed in tf.unstack(both)]
            try:
                drawn = tf.nest.flatten(self.sample_noise(both, 2))
            except Exception:
                return False
            wanted = [tf.concat(each, axis=0) for each in zip(*apart, strict=True)]
            return [_form_and_bits(each) for each in drawn] == [_form_and_bits(each) for each in wanted]

    @property
    def masked_actions(self) -> int:
        """How many flags `legal_actions` is: A, or 0 where it says nothing."""
        return self.num_actions if self.limits_actions else 0

    def render(self, state: Any) -> tf.Tensor | None:
        """Draw a picture for people: [N, H, W, 3] uint8; None where there is nothing to draw.

        Unless a game draws its own, a screen is in the colours of its palette, or grey without one, planes each have a
        colour of their own, and a vector has no picture.
        """
        return self.picture(self.observe(state))

    @property
    def shows_palette(self) -> bool:
        """Whether an observation is the picture itself: a screen of levels that the palette gives colours."""
        is_screen = len(self.observation_spec.shape) == 2 and self.observation_spec.dtype == "uint8"
        return is_screen and self._sets("palette") and type(self).render is Environment.render

    def picture(self, observation: tf.Tensor) -> tf.Tensor | None:
        """Observations [N, ...] alone as pictures, [N, H, W, 3] uint8; None where they have none."""
        from tfdqn.envs import rendering

        palette = self.palette if self._sets("palette") else None
        return rendering.picture(observation, self.observation_spec, palette)

    def checked(self, state: Any, action: Any, noise: Any) -> tuple[Any, tf.Tensor, Any]:
        """What `step` takes, as tensors of its dtypes and shapes; from lists and arrays, too.

        Raises:
          TypeError: something of another structure or dtype.
          ValueError: something of another shape, or (where it is on the host) out of range.
        """
        from tfdqn.envs import entering

        num_envs = entering.count_envs(state, self._state_specs)
        return (
            entering.like("state", state, self._state_specs, num_envs),
            entering.actions(action, num_envs, self.num_actions),
            entering.like("noise", noise, self._noise_specs, num_envs),
        )

    def checked_noise(self, noise: Any) -> Any:
        """What `reset` takes, likewise."""
        from tfdqn.envs import entering

        return entering.like("noise", noise, self._noise_specs, entering.count_envs(noise, self._noise_specs))

    @functools.cached_property
    def _noise_specs(self) -> Any:
        """Dtypes and shapes of the noise of one environment."""
        import tensorflow as tf

        with tf.init_scope():  # also while tracing: what is kept must not hang on a graph
            return tf.nest.map_structure(tf.TensorSpec.from_tensor, self.sample_noise(tf.zeros([2], tf.int64), 1))

    @functools.cached_property
    def _state_specs(self) -> Any:
        """Dtypes and shapes of the state of one environment."""
        import tensorflow as tf

        from tfdqn.runtime import compiled

        reset = compiled.xla(self.reset)
        with tf.init_scope():
            made = reset.get_concrete_function(self._noise_specs)
            specs = tf.nest.map_structure(lambda spec: tf.TensorSpec(spec.shape, spec.dtype), made.structured_outputs)
        del made  # before its program, whose graphs go with it
        return specs

    @functools.cached_property
    def compiled_reset(self):
        """`reset` under XLA, for use from Python, on anything that `checked_noise` takes; compiled once per N."""
        from tfdqn.runtime import compiled

        reset = compiled.xla(self.reset)
        return lambda noise: reset(self.checked_noise(noise))

    @functools.cached_property
    def compiled_step(self):
        """`step` under XLA, for use from Python, on anything that `checked` takes; compiled once per N."""
        from tfdqn.runtime import compiled

        step = compiled.xla(self.step)
        return lambda state, action, noise: step(*self.checked(state, action, noise))
