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
    score_is_frames: ClassVar[bool] = False  # score: frames survived, capped at the limit; else the sum of rewards
    # Colour of each grey level for people: {level: (red, green, blue)}, each 0..255.
    palette: ClassVar[dict[int, tuple[int, int, int]]] = {level: (level, level, level) for level in range(256)}
    steps_on_host: ClassVar[bool] = False  # it is played in Python, between compiled calls: see `tfdqn.envs.host`
    has_difficulties: ClassVar[bool] = False  # `training_reset` can start an episode at a difficulty that is drawn

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

    def training_reset(self, noise: Any, curriculum: float) -> Any:
        """`reset`, with a share `curriculum` of the episodes starting at a difficulty that is drawn.

        For training only. A game that is equally difficult throughout has no use for it.

        Raises:
          ValueError: a share above 0 in a game without difficulties.
        """
        if curriculum > 0 and self.has_difficulties:
            raise NotImplementedError(f"{self.name} has difficulties, but no training_reset that draws one")
        if curriculum > 0:
            raise ValueError(f"{self.name} is equally difficult from start to end")
        return self.reset(noise)

    def is_moved_start(self, noise: Any, curriculum: float) -> tf.Tensor:
        """Which episodes `training_reset` starts at a drawn difficulty, [N] bool: their scores are no measure."""
        import tensorflow as tf

        return tf.zeros([tf.nest.flatten(noise)[0].shape[0]], tf.bool)

    @abc.abstractmethod
    def step(self, state: Any, action: tf.Tensor, noise: Any) -> tuple[Any, TimeStep]:
        """Play one frame; `action` is [N] int32 in 0..num_actions-1."""

    @abc.abstractmethod
    def observe(self, state: Any) -> tf.Tensor:
        """Draw what the player sees: [N, ...] as `observation_spec`; a screen is grey levels times 255, rounded."""

    def legal_actions(self, state: Any) -> tf.Tensor | None:
        """Which actions the rules allow: [N, A] bool, at least one an environment; None: all, always.

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

        num_envs = entering.count_envs(state)
        return (
            entering.like("state", state, self._state_specs, num_envs),
            entering.actions(action, num_envs, self.num_actions),
            entering.like("noise", noise, self._noise_specs, num_envs),
        )

    def checked_noise(self, noise: Any) -> Any:
        """What `reset` takes, likewise."""
        from tfdqn.envs import entering

        return entering.like("noise", noise, self._noise_specs, entering.count_envs(noise))

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
