"""Bodies of one's own for a Q-network: `--network package.module:function`, or a function from Python.

Such a function takes the `ObservationSpec` of what the network sees (frames stacked) and returns a Keras model, or any
Keras layer, from [B, ...] of that shape and type to features [B, ...]; the head is put behind it. It is called once for
the online and once for the target network, and must make new layers each time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
from tf_keras.src import backend

from tfdqn import seeds
from tfdqn.envs import loading
from tfdqn.envs.spec import ObservationSpec
from tfdqn.errors import UserError


def connect(name: str, spec: ObservationSpec, inputs: Any, seed: int) -> Any:
    """The features, a Keras tensor [B, F] float32, that the body of a name makes of `inputs`.

    What its initializers draw follows from `seed`, unless they have seeds of their own.

    Raises:
      UserError: it raises, or returns no layer, or what it makes are no features.
    """
    function = loading.find(name)
    if isinstance(function, tf.keras.layers.Layer):
        raise UserError(f"--network {name}: is a layer itself; name a function that makes a new one at each call")
    try:
        with _seeded(seed):
            body = function(spec)
            features = _features(name, body, spec, inputs)
        _check_weights(name, body)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"--network {name}: raised {type(error).__name__}: {_first_line(error)}") from None
    return tf.keras.layers.Flatten("channels_last")(features) if features.shape.rank != 2 else features


def _features(name: str, body: Any, spec: ObservationSpec, inputs: Any) -> Any:
    if not isinstance(body, tf.keras.layers.Layer):
        raise UserError(
            f"--network {name}: returned {type(body).__name__}; it must return a tf.keras.Model or layer (of Keras 2, "
            "as `import tfdqn` makes tf.keras)"
        )
    if body.inbound_nodes:
        raise UserError(
            f"--network {name}: returned {body.name} a second time; make a new model at each call, or the target "
            "network would be the online network"
        )
    try:
        features = body(inputs)
    except Exception as error:
        raise UserError(
            f"--network {name}: {body.name} cannot take {spec.dtype} [B, {', '.join(map(str, spec.shape))}]: "
            f"{_first_line(error)}"
        ) from None
    if not isinstance(features, type(inputs)) or not features.dtype.is_floating or None in features.shape[1:]:
        raise UserError(f"--network {name}: must make one float tensor [B, ...] of fixed shape, not {features}")
    return features


def _check_weights(name: str, body: Any) -> None:
    """Refuse weights that another network has, too, and those that would learn in another precision than the head."""
    for weight in body.weights:
        if getattr(weight, "is_of_body", False):
            raise UserError(
                f"--network {name}: {weight.name} is a weight of an earlier network, too; make new layers at each "
                "call, or the target network would share it with the online network"
            )
        weight.is_of_body = True
    for weight in body.trainable_weights:
        if weight.dtype != tf.float32:
            raise UserError(
                f"--network {name}: {weight.name} is {weight.dtype.name}, and weights that learn must be float32; to "
                "compute in another precision, give the layer dtype='mixed_bfloat16'"
            )


class _Seeds:
    """Numbers that follow from a seed, as Keras asks a `random.Random` for them."""

    def __init__(self, seed: int):
        self._seed, self._count = seed, 0

    def randint(self, low: int, high: int) -> int:
        self._count += 1
        return low + seeds.stream(self._seed, "weights", self._count) % (int(high) - low + 1)


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Have Keras's initializers draw their seeds from this one, and put back what they drew from before."""
    generator = backend._SEED_GENERATOR  # what `tf.keras.utils.set_random_seed` sets, beside NumPy's and Python's
    before = getattr(generator, "generator", None)
    generator.generator = _Seeds(seed)
    try:
        yield
    finally:
        generator.generator = before


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).strip().splitlines() if line), type(error).__name__)
