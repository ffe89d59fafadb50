"""What the tests of several games need."""

import numpy as np
import tensorflow as tf


def seed(*values):
    return tf.constant(values, tf.int64)


def noise_of(env, first, second, num_envs=1):
    """The draws of seed (first, second) as arrays: picking single elements of tensors is slow."""
    return to_numpy(env.sample_noise(seed(first, second), num_envs))


def to_numpy(nest):
    return tf.nest.map_structure(np.asarray, nest)


def restarted(is_over, fresh, state):
    """`fresh` where [N] `is_over`, else `state`; all arrays."""
    return tf.nest.map_structure(
        lambda new, old: np.where(is_over.reshape([-1] + [1] * (old.ndim - 1)), new, old), fresh, state
    )


def assert_uniform(values, count):
    """Fail if `values` are not uniform over 0..count-1, at about four standard deviations (p = 3e-5)."""
    assert values.min() >= 0
    assert values.max() < count, f"value {values.max()}, only 0..{count - 1} are allowed"
    observed = np.bincount(values, minlength=count)
    expected = len(values) / count
    degrees = count - 1
    if degrees:
        statistic = ((observed - expected) ** 2 / expected).sum()
        # Wilson and Hilferty (1931): the cube root of chi-square over its degrees of freedom is nearly normal.
        z = ((statistic / degrees) ** (1 / 3) - (1 - 2 / (9 * degrees))) / np.sqrt(2 / (9 * degrees))
        assert z < 4, f"chi-square {statistic:.1f} at {degrees} degrees of freedom"
