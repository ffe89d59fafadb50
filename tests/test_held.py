"""Variables that are tensors while a loop's turn is traced."""

import numpy as np
import pytest
import tensorflow as tf

from tfdqn import optimizers
from tfdqn.runtime import compiled, held, loops

MODES = pytest.mark.parametrize("wrap", [lambda f: f, compiled.xla], ids=["eager", "xla"])


def written(wrap, device):
    """What a loop makes of small variables and a large one, in all ways in which they are read and written."""
    count = tf.Variable(0, dtype=tf.int64)
    rows = tf.Variable(np.arange(6, dtype=np.float32).reshape(3, 2))
    weights = tf.Variable(np.linspace(-1.0, 1.0, 4, dtype=np.float32))
    large = tf.Variable(tf.zeros([loops.HELD_LIMIT // 4 + 1]))
    optimizer = tf.keras.optimizers.Adam(0.1, jit_compile=False)
    optimizer.build([weights])
    variables = [count, rows, weights, large, *optimizer.variables]

    def update(number, total):
        with held.Tape([weights]) as tape:
            loss = tf.reduce_sum(tf.square(weights - rows[0, 1]) * tf.cast(count + 1, tf.float32))
        optimizer.apply_gradients(zip(tape.gradient(loss, [weights]), [weights], strict=True))
        rows.scatter_update(tf.IndexedSlices(weights[tf.newaxis, :2], tf.cast(count[tf.newaxis] % 3, tf.int32)))
        rows.scatter_nd_update([[2, 0]], tf.gather_nd(rows, [[0, 0]]) + rows.sparse_read([1])[0, :1])
        large.assign_add(tf.fill(large.shape, loss))
        count.assign_add(1)
        return number + 1, total + rows.read_value() + rows.gather_nd([[1, 1]])

    def turn(number, total):
        start = (tf.constant(0), total)
        total = loops.while_loop(lambda i, *_: i < 3, update, start, device, variables)[1]
        rows.assign_sub(0.5 * rows)
        return number + 1, total

    def program():
        goes_on = lambda number, _: (number < 5) & (count < 9)  # noqa: E731
        return loops.while_loop(goes_on, turn, (tf.constant(0), tf.zeros([3, 2])), device, variables)

    _, total = wrap(program)()
    assert int(count) == 9
    assert all(type(each) is type(tf.Variable(0.0)) and not hasattr(each, "held") for each in variables)
    return [each.numpy() for each in (total, *variables)]


def test_held_or_not_a_loop_writes_the_same():
    """As plain graphs, to the bit."""

    def plain(function):
        return compiled.program(function, jit=False, eager=False)

    assert [each.tobytes() for each in written(plain, "")] == [each.tobytes() for each in written(plain, "/CPU:0")]


@MODES
def test_held_or_not_it_is_what_tensorflow_computes_op_by_op(wrap):
    for found, wanted in zip(written(wrap, ""), written(lambda f: f, "/CPU:0"), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_only_large_variables_are_carried_by_themselves():
    small, large = (tf.Variable(tf.ones([size])) for size in (3, loops.HELD_LIMIT // 4 + 1))

    def program():
        def turn(number):
            small.assign_add(small)
            large.assign_add(large)
            return (number + 1,)

        return loops.while_loop(lambda number: number < 2, turn, (tf.constant(0),), "", [small, large])

    graph = tf.function(program, autograph=False).get_concrete_function().graph
    [body] = [each.graph for each in graph._functions.values() if "body" in str(each.name)]
    writes = [op for op in body.get_operations() if "Variable" in op.type and "Read" not in op.type]
    assert [op.inputs[0] for op in writes] and all(op.type == "AssignAddVariableOp" for op in writes)
    assert len(writes) == 1


def test_what_would_pass_by_a_held_value_is_refused():
    variable = tf.Variable([1.0, 2.0])
    with held.holding([variable], [tf.constant([3.0, 4.0])]):
        assert variable.read_value().numpy().tolist() == [3.0, 4.0]
        with pytest.raises(AttributeError, match="held as a tensor"):
            variable.scatter_add(tf.IndexedSlices(tf.constant([1.0]), tf.constant([0])))
        with pytest.raises(tf.errors.InvalidArgumentError, match="shape"):
            variable.assign([1.0])
    assert variable.numpy().tolist() == [1.0, 2.0]
    variable.scatter_add(tf.IndexedSlices(tf.constant([1.0]), tf.constant([0])))
    assert variable.numpy().tolist() == [2.0, 2.0]


def test_a_variable_is_itself_again_after_an_error():
    variable = tf.Variable(1.0)
    with pytest.raises(ZeroDivisionError), held.holding([variable], [tf.constant(2.0)]):
        raise ZeroDivisionError
    assert variable.numpy() == 1.0 and optimizers.global_norm([variable]).numpy() == 1.0


def test_a_tape_takes_gradients_by_variables_that_are_held_and_others():
    first, second = tf.Variable(2.0), tf.Variable(5.0)

    @compiled.xla
    def program():
        with held.holding([first], [tf.constant(3.0)]), held.Tape([first, second]) as tape:
            product = first * first * second
        return tape.gradient(product, [first, second])

    assert [float(each) for each in program()] == [30.0, 9.0]
