"""Programs of XLA that call Python."""

import gc
import sys
import weakref

import numpy as np
import pytest
import tensorflow as tf

from tfdqn.runtime import compiled, python_calls
from tfdqn.runtime.python_calls import PythonCall


@pytest.mark.skipif(sys.platform != "linux", reason="the registry's names are those of TensorFlow for Linux")
def test_this_tensorflow_has_the_registry():
    """If not, games that step on the host still train, several times slower."""
    assert python_calls.are_possible()


@pytest.mark.skipif(not python_calls.are_possible(), reason="this TensorFlow's programs cannot call Python")
class TestCalls:
    def test_arrays_of_every_type_go_there_and_back(self):
        def negate(*arrays):
            for argument, result in zip(arrays[:4], arrays[4:], strict=True):
                result[...] = ~argument if argument.dtype == bool else argument[::-1]

        rng = np.random.default_rng(0)
        arrays = [rng.integers(0, 2, 5).astype(bool), *(rng.integers(0, 99, 3).astype(t) for t in "Bif")]
        call = PythonCall(negate, [tf.TensorSpec(each.shape, each.dtype) for each in arrays])
        results = compiled.xla(lambda *given: call(*given))(*map(tf.constant, arrays))
        np.testing.assert_array_equal(results[0], ~arrays[0])
        for before, after in zip(arrays[1:], results[1:], strict=True):
            assert after.dtype == before.dtype
            np.testing.assert_array_equal(after, before[::-1])

    def test_each_turn_of_a_loop_calls_once_and_in_order(self):
        seen = []

        def step(number, following, double):
            seen.append(int(number))
            following[...], double[...] = number + 1, 2 * number

        call = PythonCall(step, [tf.TensorSpec([], tf.int32), tf.TensorSpec([], tf.float32)])

        def turn(number, total):
            number, double = call(number)
            return number, total + double

        program = compiled.xla(lambda last: tf.while_loop(lambda n, _: n < last, turn, (0, 0.0)))
        assert [float(value) for value in program(tf.constant(100))] == [100, 9900]
        assert seen == list(range(100))
        program(tf.constant(3))
        assert seen[100:] == [0, 1, 2]

    def test_two_calls_of_one_program_are_told_apart(self):
        def adding(number):
            def add(value, sum_, twice):
                sum_[...], twice[...] = value + number, 2 * value

            return PythonCall(add, [tf.TensorSpec([2], tf.float32)] * 2)

        first, second = adding(1), adding(10)
        results = compiled.xla(lambda value: (first(value), second(first(value)[0])))(tf.constant([1.0, 2.0]))
        np.testing.assert_array_equal(results, [[[2, 3], [2, 4]], [[12, 13], [4, 6]]])

    def test_the_function_is_let_go(self):
        class Held:
            def fill(self, value, *results):
                for each in results:
                    each[...] = value

        held = Held()
        calls = [PythonCall(held.fill, [tf.TensorSpec([], tf.float32)] * 2)]
        np.testing.assert_array_equal(compiled.xla(calls[0])(tf.constant(1.0)), [1, 1])
        held = weakref.ref(held)
        calls.clear()
        gc.collect()
        assert held() is None
