"""Pictures of observations for people, where a game draws none of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping

import tensorflow as tf

from tfdqn.envs.spec import ObservationSpec

# Of planes, the first in the first colour and so on, again from the start after the last. They differ in brightness,
# too: most of Tableau's ten.
PLANE_COLOURS = (
    *((31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189)),
    *((227, 119, 194), (188, 189, 34), (23, 190, 207), (199, 199, 199), (255, 255, 255)),
)


def picture(
    observation: tf.Tensor, spec: ObservationSpec, palette: Mapping[int, tuple[int, int, int]] | None = None
) -> tf.Tensor | None:
    """Observations as pictures.

    Args:
      observation: [N, H, W] levels, or [N, H, W, C] planes, of the spec's type.
      spec: what they are.
      palette: the colour of each level of [N, H, W] uint8; what it lacks is black. None: greys.

    Returns:
      [N, H, W, 3] uint8. Greys go from the spec's low to its high. Of planes, each that is not zero in a cell covers
      those before it; three planes of uint8 up to 255 are red, green and blue themselves. None for vectors, and for
      levels without bounds.
    """
    if len(spec.shape) == 1:
        return None
    if len(spec.shape) == 3:
        if spec.dtype == "uint8" and spec.shape[-1] == 3 and spec.high == 255:
            return observation
        colours = [PLANE_COLOURS[plane % len(PLANE_COLOURS)] for plane in range(spec.shape[-1])]
        is_set = tf.cast(observation != tf.zeros([], observation.dtype), tf.int32)
        # The last plane that is set has the largest number; 0 is none.
        newest = tf.reduce_max(is_set * tf.range(1, len(colours) + 1), axis=-1)
        return tf.gather(tf.constant([(0, 0, 0), *colours], tf.uint8), newest)
    if spec.dtype == "uint8" and palette is not None:
        table = tf.constant([palette.get(level, (0, 0, 0)) for level in range(256)], tf.uint8)
        return tf.gather(table, tf.cast(observation, tf.int32))
    if not math.isfinite(spec.low) or not math.isfinite(spec.high):
        return None
    share = (tf.cast(observation, tf.float32) - spec.low) / (spec.high - spec.low)
    grey = tf.cast(tf.round(255 * tf.clip_by_value(share, 0.0, 1.0)), tf.uint8)
    return tf.repeat(grey[..., tf.newaxis], 3, axis=-1)
