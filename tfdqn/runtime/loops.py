"""Loops in the form that a device wants."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Sequence

import tensorflow as tf
from tensorflow.compiler.tf2xla.ops import gen_xla_ops
from tensorflow.python.ops import control_flow_util

from tfdqn.runtime import held, packing

# Bytes of a variable that a loop carries in a vector: what goes into a product would first have to be cut out of it.
HELD_LIMIT = 2**12
STACK_LIMIT = 2**16  # bytes of a stack that is carried as one: to copy it costs less than to launch a kernel a layer

# Of a thread: replicas that exchange gradients on GPUs are traced side by side.
_is_for_cpu: contextvars.ContextVar[bool] = contextvars.ContextVar("is_for_cpu", default=True)


def is_cpu(device: str) -> bool:
    """Whether that TensorFlow device is a CPU: a loop costs nothing to look at there, and small arrays little."""
    return "CPU" in device


@contextlib.contextmanager
def made_for(device: str) -> Iterator[None]:
    """Meanwhile programs are traced for that TensorFlow device: for `repeat`, which is called where none is known."""
    token = _is_for_cpu.set(is_cpu(device))
    try:
        yield
    finally:
        _is_for_cpu.reset(token)


def repeat(times: int, turn: Callable[..., tuple], state: tuple) -> tuple:
    """The state after so many turns.

    On a GPU a value that a turn only writes into an array, at a place that XLA can foretell, is copied by the host, and
    no CUDA graph can hold the loop. There a count of its own, which XLA does not follow, says the place.

    Args:
      times: turns, at least one.
      turn: the next state, by the turn's number [] int32 from 0 and the parts of the state.
      state: to begin with.
    """

    def goes_on(number, *_):
        return number < times

    if _is_for_cpu.get():
        start = (tf.constant(0), *state)
        return tf.while_loop(goes_on, lambda number, *state: (number + 1, *turn(number, *state)), start)[1:]

    def counted_down(number, left, *state):
        return number + 1, left - 1, *turn(times - 1 - left, *state)

    return tf.while_loop(goes_on, counted_down, (tf.constant(0), tf.constant(times - 1), *state))[2:]


def made_once(stack: tf.Tensor) -> tf.Tensor:
    """The same values [K, ...]; on a GPU whoever reads them reads what has been written, layer by layer.

    XLA makes again what is cheap to make, in every kernel that reads it. Then what it was made of has to outlive it: as
    a copy, where a loop writes the one over the other.
    """
    if _is_for_cpu.get() or not _is_in_layers(stack):
        return stack
    return tf.stack(gen_xla_ops.xla_optimization_barrier(tf.unstack(stack)))


def by_itself(tensor: tf.Tensor) -> tf.Tensor:
    """The same tensor; on a GPU XLA takes it for another than what it was made of.

    So a product of it stays one by itself. Of products with one factor in common XLA makes a single one, and puts the
    others behind one another first: weights that way, which is cheap, and gradients, which is a copy of a batch.
    """
    if _is_for_cpu.get() or not is_in_xla():
        return tensor
    return _by_itself(tensor)


@tf.custom_gradient
def _by_itself(tensor):
    return gen_xla_ops.xla_optimization_barrier([tensor])[0], lambda upstream: upstream


def at_once(tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """The same tensors; on a GPU none of them is there before all are, and XLA takes them for others than it made."""
    if _is_for_cpu.get() or not is_in_xla():
        return list(tensors)
    return gen_xla_ops.xla_optimization_barrier(tensors)


def added(products: Sequence[tf.Tensor]) -> tf.Tensor:
    """Their sum; on a GPU the gradients by their factors stay products by themselves, as of `by_itself`."""
    if _is_for_cpu.get() or not is_in_xla():
        return tf.add_n(products)
    return _added(*products)


@tf.custom_gradient
def _added(*products):
    return tf.add_n(products), lambda upstream: gen_xla_ops.xla_optimization_barrier([upstream] * len(products))


def put(array: tf.Tensor, place: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
    """An array [K, ...] with `value` [...] at `place` [], which must lie in it.

    Under XLA nothing looks whether it does. A scatter looks, by a kernel of its own on a GPU, and reads what is there.
    But for an array that a turn only writes into, at a place that XLA can foretell, take a scatter (see `repeat`).
    """
    if not is_in_xla():
        return tf.tensor_scatter_nd_update(array, tf.reshape(place, [1, 1]), value[tf.newaxis])
    start = tf.concat([tf.reshape(place, [1]), tf.zeros([value.shape.rank], place.dtype)], axis=0)
    return tf.ensure_shape(gen_xla_ops.xla_dynamic_update_slice(array, value[tf.newaxis], start), array.shape)


def put_into(variable: tf.Variable, place: tf.Tensor, value: tf.Tensor) -> None:
    """The same of a variable, in place."""
    if is_in_xla():
        variable.assign(put(variable.read_value(), place, value))
    else:
        variable.scatter_update(tf.IndexedSlices(value[tf.newaxis], tf.reshape(place, [1])))


def _is_in_layers(stack: tf.Tensor) -> bool:
    """Whether XLA is to make a stack, and to carry it, layer by layer."""
    is_large = stack.shape[0] > 1 and stack.shape.num_elements() * stack.dtype.size > STACK_LIMIT
    return is_large and is_in_xla()


def is_in_xla() -> bool:
    """Whether what is traced now is for XLA."""
    return control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())


def while_loop(
    goes_on: Callable[..., tf.Tensor],
    turn: Callable[..., tuple],
    state: tuple,
    device: str,
    variables: Sequence[tf.Variable] = (),
    stacks: Sequence[tf.Tensor] = (),
) -> tuple:
    """`tf.while_loop`; on a GPU, where every array that a turn hands to the next may be a kernel, small ones as one.

    Args:
      goes_on: [] bool, by the parts of the state.
      turn: the next state, by the parts of the state, of the same shapes and types.
      state: to begin with; first the number of the turn, by which XLA sees how many there are.
      device: TensorFlow device.
      variables: that a turn writes; each loop in it must be given those that it writes.
      stacks: parts of the state [K, ...] whose layers a turn makes of each other. They are carried one by one: XLA
        copies an array before it writes parts of it over others that are still read.
    """
    if is_cpu(device):
        return tf.while_loop(goes_on, turn, state)
    # Op by op a variable is read past Python, and a loop has nothing to carry.
    carried = [] if tf.executing_eagerly() else [each for each in variables if packing.takes(each, HELD_LIMIT)]
    number, *state = tf.nest.map_structure(tf.convert_to_tensor, state)
    start = (state, held.values_of(carried))
    packed_as = packing.Packing(start, [each for each in stacks if _is_in_layers(each)])

    def looks(number, *packed):
        state, values = packed_as.unpack(packed)
        with held.holding(carried, values):
            return goes_on(number, *state)

    def packed_turn(number, *packed):
        state, values = packed_as.unpack(packed)
        with held.holding(carried, values):
            number, *state = turn(number, *state)
            return number, *packed_as.pack((state, held.values_of(carried)))

    number, *packed = tf.while_loop(looks, packed_turn, (number, *packed_as.pack(start)))
    state, values = packed_as.unpack(packed)
    for variable, value in zip(carried, values, strict=True):
        variable.assign(value)
    return number, *state
