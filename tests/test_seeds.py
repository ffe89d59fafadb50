"""Seeds: equal draws with and without XLA at any counter, and no two purposes or counters alike."""

import numpy as np
import pytest
import tensorflow as tf

from tfdqn import seeds

COUNTERS = [0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**40, 2**62]


def draw(stream, counter):
    return tf.random.stateless_uniform([4], seeds.at(stream, counter), None, None, tf.int64)


@pytest.mark.parametrize("jit", [False, True])
def test_draws_are_equal_compiled_and_eager_at_any_counter(jit):
    compiled = tf.function(draw, autograph=False, jit_compile=jit)
    for stream in (0, 5, 2**31, 2**32 - 1):
        for counter in COUNTERS:
            words = tf.constant(stream, tf.int64), tf.constant(counter, tf.int64)
            np.testing.assert_array_equal(compiled(*words), draw(*words))


def test_no_draw_is_repeated_where_only_the_upper_half_of_the_counter_differs():
    compiled = tf.function(draw, autograph=False, jit_compile=True)
    counters = [low + high * 2**32 for low in (0, 5) for high in (0, 1, 2, 1000, 2**30)]
    results = {compiled(tf.constant(7, tf.int64), tf.constant(c, tf.int64)).numpy().tobytes() for c in counters}
    assert len(results) == len(counters)


def test_streams_differ_by_seed_purpose_and_number():
    runs = [0, 1, 2, 2**28, 2**31 - 1]
    words = [seeds.stream(seed, name, *more) for seed in runs for name in seeds.STREAMS for more in ((), (0,), (1,))]
    assert len(set(words)) == len(words)
    assert all(0 <= word < 2**32 for word in words)


def test_unknown_streams_are_refused():
    with pytest.raises(ValueError, match="unknown stream"):
        seeds.stream(0, "misc")
