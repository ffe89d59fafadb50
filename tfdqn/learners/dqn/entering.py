"""What enters DQN from Python and from Keras: settings, sizes and batches, checked and made into tensors."""

from __future__ import annotations

import dataclasses
import operator
from typing import Any

import numpy as np
import tensorflow as tf

from tfdqn.envs import loading
from tfdqn.errors import UserError, nearest
from tfdqn.inputs import as_tensor, refusal
from tfdqn.learners.dqn import settings as limits
from tfdqn.networks.names import CONVOLUTIONS, NETWORKS
from tfdqn.replay.transitions import Transition
from tfdqn.settings import check_value


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Turns what an agent is given into tensors of the types and shapes that it expects, or refuses it in one line.

    Each raises a TypeError or ValueError where something has another type or shape, or an action on the host is none.
    """

    dtype: tf.DType  # of observations
    observation_shape: tuple[int, ...]
    num_actions: int
    mixes_returns: bool = False  # whether there may be several next observations, [B, K, ...], with a discount [B, K]

    def observations(self, value: Any, what: str = "observations", size: Any = (None,)) -> tf.Tensor:
        """[B, ...] of any B, or of another `size`."""
        return as_tensor(value, self.dtype, [*size, *self.observation_shape], f"DQN: {what}")

    def legal(self, mask: Any, size: Any, what: str) -> tf.Tensor | None:
        """[B, A] bool, with `size` (B,), or (B, K); None for every action."""
        if mask is None or (isinstance(mask, tuple) and not mask):
            return None
        return as_tensor(mask, tf.bool, [*size, self.num_actions], f"DQN: {what}")

    def batch(self, transitions: Any, weights: Any = None) -> tuple[Transition, tf.Tensor]:
        """A batch as tensors of the types and shapes that are expected; weights of 1 if None."""
        given = Transition(*transitions)
        observation = self.observations(given.observation)
        size = observation.shape[:1]

        def floats(value, what, size=size):
            return as_tensor(value, tf.float32, size, f"DQN: {what}")

        is_mix = self.mixes_returns and _rank(given.discount) == 2
        discount = floats(given.discount, "discounts", [*size, None] if is_mix else size)
        ends = [*size, discount.shape[1]] if is_mix else size
        transitions = Transition(
            observation=observation,
            action=as_tensor(given.action, tf.int32, size, "DQN: actions", 0, self.num_actions - 1),
            reward=floats(given.reward, "rewards"),
            discount=discount,
            next_observation=self.observations(given.next_observation, "next observations", ends),
            legal=self.legal(given.legal, size, "legal actions"),
            next_legal=self.legal(given.next_legal, ends, "next legal actions"),
        )
        return transitions, tf.ones_like(transitions.reward) if weights is None else floats(weights, "weights")


def _rank(value: Any) -> int | None:
    """How many axes there are, None if that is not known yet or rows differ in length."""
    try:
        return value.shape.rank if tf.is_tensor(value) else np.ndim(value)
    except ValueError:
        return None


def checked_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as Python's own numbers, within the limits that a run's have."""
    if settings["seed"] is None:
        raise ValueError("DQN: seed None: must be a whole number, as all draws follow from it; the default is 0")
    settings = {name: value.item() if isinstance(value, np.generic) else value for name, value in settings.items()}
    try:
        for name, value in settings.items():
            if name != "seed":
                check_value(limits.FIELDS[name], value)
    except UserError as error:
        raise ValueError(f"DQN: {_argument_of(str(error))}") from None
    if not isinstance(settings["seed"], int) or not 0 <= settings["seed"] < 2**31:
        raise ValueError(f"DQN: seed {settings['seed']!r}: must be a whole number from 0 to {2**31 - 1}")
    if settings["network"] not in NETWORKS and not loading.is_spec(settings["network"]):
        raise ValueError(f"DQN: network {settings['network']}: unknown; {nearest(settings['network'], NETWORKS)}")
    if settings["convolution"] == "auto":
        raise ValueError(f"DQN: convolution auto: must be one of {', '.join(CONVOLUTIONS)}")
    return settings


def _argument_of(message: str) -> str:
    """A message about "--some-flag" as one about the argument `some_flag`."""
    flag, rest = message.split(" ", 1)
    return f"{flag.removeprefix('--').replace('-', '_')} {rest}"


def checked_sizes(observation_shape: Any, num_actions: Any) -> tuple[tuple[int, ...], int]:
    try:
        shape, actions = tuple(operator.index(size) for size in observation_shape), operator.index(num_actions)
    except TypeError:
        shape, actions = (), 0
    if not 1 <= len(shape) <= 3 or min(*shape, actions) < 1:
        raise ValueError(
            f"DQN: observation_shape {observation_shape} and num_actions {num_actions}: must be (height, width, "
            "stack), or another shape of one to three sizes, and a count, whole numbers from 1"
        )
    return shape, actions


def unpacked(data: Any) -> tuple[Transition, Any]:
    """A batch and its weights or None, from any form in which Keras hands over what a user gave."""
    weights = None
    while isinstance(data, (tuple, list)) and len(data) == 1:
        (data,) = data
    if isinstance(data, (tuple, list)) and len(data) == 2:
        data, weights = data
    elif isinstance(data, (tuple, list)) and len(data) == 3 and data[1] is None:
        data, _, weights = data
    least = len(Transition._fields) - len(Transition._field_defaults)
    if not isinstance(data, (tuple, list)) or not least <= len(data) <= len(Transition._fields):
        raise refusal(
            TypeError,
            "DQN learns from a tfdqn.replay.transitions.Transition, or (Transition, weights): batches of them",
        )
    return Transition(*data), weights


def fed(x: Any, y: Any, kwargs: dict[str, Any]) -> tuple[Any, Any]:
    """`x` and `y` as Keras hands them on whole; takes `sample_weight` out of `kwargs`."""
    weights = kwargs.pop("sample_weight", None)
    if weights is not None:
        if y is not None:
            raise TypeError("DQN takes no y: what is learnt follows from the transitions")
        return x, weights
    if hasattr(x, "__next__"):
        x = ((batch,) if isinstance(batch, Transition) else batch for batch in x)
    return x, y
