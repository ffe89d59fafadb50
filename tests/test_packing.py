"""Small tensors as two vectors, and loops that carry them so."""

import math
from typing import Any, NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from tfdqn.runtime import compiled, loops
from tfdqn.runtime.packing import LIMIT, Packing

MODES = pytest.mark.parametrize("wrap", [lambda f: f, compiled.xla], ids=["eager", "xla"])


class Mixed(NamedTuple):
    number: Any
    inner: Any
    truth: Any
    wide: Any


def mixed():
    odd = np.array([np.nan, -np.inf, -0.0, 1e-45, 3.0], np.float32)
    odd[0] = np.uint32(0x7FA00123).view(np.float32)  # a NaN with bits of its own
    return Mixed(
        number=tf.constant(-(2**31), tf.int32),
        inner=(tf.constant(odd), {"bytes": tf.constant([[1, 255]], tf.uint8), "none": ()}),
        truth=tf.constant([[True], [False], [True]]),
        wide=(tf.constant(2**62 + 1, tf.int64), tf.constant([np.pi], tf.float64), tf.zeros([LIMIT // 4 + 1])),
    )


def bits(structure):
    return [(each.dtype, each.shape, each.numpy().tobytes()) for each in tf.nest.flatten(structure)]


@MODES
def test_what_is_packed_comes_back_to_the_bit(wrap):
    packing = Packing(mixed())
    packed = wrap(packing.pack)(mixed())
    # One vector for each width; bytes, and what is too large, by themselves.
    assert [(each.dtype, each.shape.num_elements()) for each in packed] == [
        (tf.int32, 1 + 5 + 3),
        (tf.int64, 2),
        (tf.uint8, 2),
        (tf.float32, LIMIT // 4 + 1),
    ]
    found = wrap(packing.unpack)(packed)
    tf.nest.assert_same_structure(found, mixed())
    assert bits(found) == bits(mixed())


@MODES
def test_a_stack_is_packed_as_its_layers(wrap):
    stack, other = tf.reshape(tf.range(24), [3, 2, 4]) % 7, tf.zeros([2, 2], tf.uint8)
    stack = tf.cast(stack, tf.uint8)
    packing = Packing((other, stack, tf.constant(1)), [stack])
    packed = wrap(packing.pack)((other, stack, tf.constant(1)))
    assert [each.shape.as_list() for each in packed] == [[1], [2, 2], [2, 4], [2, 4], [2, 4]]
    assert bits(wrap(packing.unpack)(packed)) == bits((other, stack, tf.constant(1)))


@MODES
@pytest.mark.parametrize("device", ["/CPU:0", ""], ids=["cpu", "by layers"])
def test_a_loop_makes_the_same_of_a_stack_in_layers_or_not(wrap, device):
    """A history of frames: each turn moves it by one, and the newest stands for the older ones now and then."""
    width = loops.STACK_LIMIT // 3 + 1

    def turn(number, stack, sums):
        frame = tf.cast(tf.fill([width], number), tf.uint8) * tf.constant(37, tf.uint8)
        older = tf.where(number % 4 == 0, frame[tf.newaxis], stack[1:])
        after = loops.made_once(tf.concat([older, frame[tf.newaxis]], axis=0))
        return number + 1, after, sums + tf.cast(stack[0, 0], tf.int32) + tf.cast(after[0, -1], tf.int32)

    def program():
        stack = tf.zeros([3, width], tf.uint8)
        with loops.made_for(device):
            start = (tf.constant(1), stack, tf.constant(0))
            return loops.while_loop(lambda number, *_: number < 11, turn, start, device, stacks=[stack])

    number, stack, sums = wrap(program)()
    frames, wanted = [0, 0, 0], 0
    for i in range(1, 11):
        before, frame = frames, i * 37 % 256
        frames = [frame] * 3 if i % 4 == 0 else [*before[1:], frame]
        wanted += before[0] + frames[0]
    assert int(number) == 11 and int(sums) == wanted
    np.testing.assert_array_equal(stack, np.repeat(np.uint8(frames)[:, None], width, axis=1))


@pytest.mark.parametrize(
    ("device", "jit", "layers", "counted"),
    [("", True, 2, 1), ("", True, 1, 0), ("", False, 2, 0), ("/CPU:0", True, 2, 0)],
    ids=["large", "of one layer", "a plain graph", "cpu"],
)
def test_only_a_gpus_programs_make_large_stacks_once(device, jit, layers, counted):
    @tf.function(jit_compile=jit, autograph=False)
    def program():
        with loops.made_for(device):
            return loops.made_once(tf.zeros([layers, loops.STACK_LIMIT], tf.uint8))

    operations = program.get_concrete_function().graph.get_operations()
    assert sum(each.type == "XlaOptimizationBarrier" for each in operations) == counted


@MODES
@pytest.mark.parametrize("device", ["/CPU:0", ""], ids=["cpu", "gpu"])
def test_a_tensor_by_itself_is_the_same_and_so_is_its_gradient(wrap, device):
    def program(tensor):
        with loops.made_for(device), tf.GradientTape() as tape:
            tape.watch(tensor)
            other = loops.by_itself(tensor)
            sums = tf.reduce_sum(tensor * other * other)
        return other, tape.gradient(sums, tensor)

    other, gradient = wrap(program)(tf.constant([2.0, -3.0]))
    assert (other.numpy().tolist(), gradient.numpy().tolist()) == ([2.0, -3.0], [12.0, 27.0])


@MODES
@pytest.mark.parametrize("shape", [(), (3,), (2, 2)])
def test_what_is_put_into_an_array_or_a_variable_stands_in_its_place_alone(wrap, shape):
    old, new = np.arange(4 * math.prod(shape), dtype=np.float32).reshape(4, *shape), np.full(shape, -1, np.float32)
    variable = tf.Variable(old)

    def program(place):
        loops.put_into(variable, place, tf.constant(new))
        return loops.put(tf.constant(old), place, tf.constant(new))

    found = wrap(program)(tf.constant(2, tf.int64))
    wanted = np.concatenate([old[:2], new[np.newaxis], old[3:]])
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(variable, wanted)


@MODES
@pytest.mark.parametrize("device", ["/CPU:0", ""], ids=["cpu", "gpu"])
def test_tensors_at_once_are_the_same(wrap, device):
    def program(*tensors):
        with loops.made_for(device):
            return loops.at_once(tensors)

    numbers, byte = wrap(program)(tf.constant([2.0, -3.0]), tf.constant([[7]], tf.uint8))
    assert (numbers.numpy().tolist(), byte.numpy().tolist(), byte.dtype) == ([2.0, -3.0], [[7]], tf.uint8)


@MODES
@pytest.mark.parametrize("device", ["/CPU:0", ""], ids=["cpu", "gpu"])
def test_a_sum_of_products_is_the_same_and_so_are_its_gradients(wrap, device):
    def program(left, right):
        with loops.made_for(device), tf.GradientTape() as tape:
            tape.watch([left, right])
            total = loops.added([left * left, left * right, right])
            squares = tf.reduce_sum(tf.square(total))
        return total, *tape.gradient(squares, [left, right])

    total, by_left, by_right = wrap(program)(tf.constant([2.0, 1.0]), tf.constant([-3.0, 4.0]))
    assert total.numpy().tolist() == [-5.0, 9.0]
    assert by_left.numpy().tolist() == [-10.0, 108.0] and by_right.numpy().tolist() == [-30.0, 36.0]


@MODES
@pytest.mark.parametrize("device", ["/CPU:0", ""], ids=["cpu", "packed"])
def test_a_loop_gives_the_same_packed_or_not(wrap, device):
    def turn(number, sums, truth):
        return number + 1, {"a": sums["a"] + 0.1, "b": sums["b"] * 3 + tf.cast(number, tf.int64)}, ~truth

    def program():
        start = (tf.constant(0), {"a": tf.zeros([3]), "b": tf.ones([], tf.int64)}, tf.constant(False))
        return loops.while_loop(lambda number, *_: number < 7, turn, start, device)

    number, sums, truth = wrap(program)()
    assert int(number) == 7 and bool(truth)
    wanted_a, wanted_b = np.float32(0), 1
    for i in range(7):
        wanted_a, wanted_b = wanted_a + np.float32(0.1), wanted_b * 3 + i
    assert sums["a"].numpy().tolist() == [wanted_a] * 3 and int(sums["b"]) == wanted_b


@MODES
@pytest.mark.parametrize("device", ["/CPU:0", ""], ids=["cpu", "counted down"])
def test_turns_are_numbered_from_the_first_however_they_are_counted(wrap, device):
    def turn(number, total, places):
        return total * 2 + number, places.write(number, number)

    def program():
        with loops.made_for(device):
            total, places = loops.repeat(5, turn, (tf.constant(1), tf.TensorArray(tf.int32, 5)))
        return total, places.stack()

    total, places = wrap(program)()
    assert places.numpy().tolist() == [0, 1, 2, 3, 4]
    assert int(total) == 2**5 + sum(i * 2 ** (4 - i) for i in range(5))
    assert loops._is_for_cpu.get()
