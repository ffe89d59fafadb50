"""Seeds: equal draws with and without XLA at any counter, and no two purposes or counters alike."""

import numpy as np
import pytest
import tensorflow as tf

from tfdqn import seeds

COUNTERS = [0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**40, 2**62]


def draw(stream, counter):
    return seeds.draw(seeds.at(stream, counter), 4)


def test_draws_are_those_of_splitmix64():
    """The generator by its definition, in Python's integers, from the state that the seed is mixed to."""

    def mix(z):
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        return z ^ z >> 31

    # The first numbers of the reference implementation (Vigna, prng.di.unimi.it/splitmix64.c) for the state 1234567.
    state, published = 1234567, [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [mix((state + i * 0x9E3779B97F4A7C15) % 2**64) for i in (1, 2, 3)] == published
    for first, second in [(0, 0), (7, 2**40), (2**62, 3), (-1, -5)]:
        state = mix((mix(first % 2**64) + second) % 2**64)
        expected = [mix((state + i * 0x9E3779B97F4A7C15) % 2**64) % 2**63 for i in range(1, 6)]
        np.testing.assert_array_equal(seeds.draw([first, second], 5), expected)


@pytest.fixture(scope="module")
def many_draws():
    """2^20 draws of one seed, and the first two of each of 6000 seeds that differ by one."""
    two = tf.function(lambda *words: seeds.draw(seeds.at(*words), 2), autograph=False)  # the same numbers, sooner
    words = [tuple(tf.constant(word, tf.int64) for word in (stream, t)) for stream in (5, 6) for t in range(3000)]
    return seeds.draw([3, 4], 2**20).numpy(), np.concatenate([two(*each).numpy() for each in words])


@pytest.mark.parametrize("low, high", [(0, 16), (20, 36), (47, 63)])
def test_draws_are_uniform_within_a_seed_and_over_neighbouring_ones(many_draws, low, high):
    """Bits of 2^20 draws: of one seed, and the first one or two of each of many seeds that differ by one."""
    long, short = many_draws
    for draws in (long, short, short[::2], short[1::2]):
        groups = 16 if len(draws) < 2**20 else 2**12
        counts = np.bincount((draws >> low) % 2 ** (high - low) % groups, minlength=groups)
        expected = len(draws) / groups
        chi_square = ((counts - expected) ** 2 / expected).sum()
        assert abs(chi_square - (groups - 1)) < 5 * np.sqrt(2 * groups)
        signs = (draws >> low) % 2 * 2.0 - 1
        for lag in (1, 2, 7):
            assert abs((signs[lag:] * signs[:-lag]).mean()) < 5 / np.sqrt(len(draws))


def test_number_i_does_not_depend_on_how_many_are_drawn():
    np.testing.assert_array_equal(seeds.draw([1, 2], 5), seeds.draw([1, 2], 1000)[:5])


@pytest.mark.parametrize("jit", [None, False, True])
def test_a_seed_that_skips_some_draws_what_comes_after_them(jit):
    skip = seeds.skip if jit is None else tf.function(seeds.skip, autograph=False, jit_compile=jit)
    for seed in ([0, 0], [1, 2], [2**32 - 1, 2**62], [-1, -(2**63)], [7, 2**63 - 1]):
        numbers = seeds.draw(seed, 300).numpy()
        for count in (0, 1, 7, 255):
            after = skip(tf.constant(seed, tf.int64), tf.constant(count, tf.int64))
            assert after.dtype == tf.int64 and after.shape == [2]
            np.testing.assert_array_equal(seeds.draw(after, 300 - count), numbers[count:])
    far = skip(skip(tf.constant([3, 4], tf.int64), tf.constant(2**61, tf.int64)), tf.constant(2**61, tf.int64))
    np.testing.assert_array_equal(far, skip(tf.constant([3, 4], tf.int64), tf.constant(2**62, tf.int64)))


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


def test_a_seed_of_numpy_names_the_same_stream():
    assert seeds.stream(np.int64(3), "weights", np.int32(1), 2) == seeds.stream(3, "weights", 1, 2)
    with pytest.raises(TypeError):
        seeds.stream(None, "weights")
