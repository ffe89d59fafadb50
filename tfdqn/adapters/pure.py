"""A traced function that keeps what it knows in variables, as a pure one: their values go in and come out.

The function is traced once. Its graph is then played op by op in another, where reading a variable takes the value that
went in, an assignment replaces it, and a draw follows from a word that goes in, too, as everything does in tfdqn. What
that cannot stand for, such as Python called from a graph, is refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.func_graph import func_graph_from_py_func

from tfdqn import seeds
from tfdqn.errors import UserError

_FLOAT_BITS = {tf.float32: 24, tf.float64: 53}
_DRAW_BITS = 63  # of a number of `seeds.draw`
_WITHOUT_RESULT = ("NoOp", "Assert", "PrintV2")


class Pure:
    """`function`, made pure.

    Args:
      name: what messages call it.
      function: of tensors; it may read and assign variables, and draw.
      specs: of its arguments.

    Attributes:
      variables: those that it uses.
      argument_shapes: of its arguments.

    Raises:
      UserError: it does not trace.
    """

    def __init__(self, name: str, function: Callable, *specs: tf.TensorSpec):
        self._name = name
        try:
            with tf.init_scope():
                self._graph = func_graph_from_py_func(name, function, specs, {})
        except Exception as error:  # of any kind: the function is somebody's own
            line = next((line for line in str(error).strip().splitlines() if line), "")
            raise UserError(f"{name} does not trace: {type(error).__name__}: {line}") from None
        self.variables = list(self._graph.variables)
        self._captures = list(self._graph.captures)
        self._arguments = self._graph.inputs[: len(self._graph.inputs) - len(self._captures)]
        self.argument_shapes = [argument.shape for argument in self._arguments]

    def __call__(self, values: dict[Any, tf.Tensor], arguments: Sequence[tf.Tensor], word: tf.Tensor) -> Any:
        """Play it, inside a traced function.

        Args:
          values: of variables, by their `ref()`; all that it uses.
          arguments: its own.
          word: [] int64, that its draws follow from.

        Returns:
          What it returns, and the values of the variables afterwards.

        Raises:
          UserError: it holds an operation that cannot be pure.
        """
        handles = {id(variable.handle): variable.ref() for variable in self.variables}
        bound = dict(zip([argument.name for argument in self._arguments], arguments, strict=True))
        for outer, inner in self._captures:
            is_variable = id(outer) in handles
            bound[inner.name] = _Handle(handles[id(outer)]) if is_variable else outer
        world = _World(self._name, dict(values), word)
        found = _play(self._graph, bound, world)
        outputs = [found[tensor.name] for tensor in self._graph.outputs]
        structure = self._graph.structured_outputs
        return tf.nest.pack_sequence_as(structure, outputs), world.values


class _Handle:
    """Stands for a variable among the tensors of a graph."""

    def __init__(self, ref: Any):
        self.ref = ref


class _World:
    """The values of variables so far, and where draws come from."""

    def __init__(self, name: str, values: dict[Any, tf.Tensor], word: tf.Tensor | None):
        self.name, self.values, self.word = name, values, word
        self.draws = 0

    def draw(self, count: int) -> tf.Tensor:
        """[count] int64, uniform from 0 to 2**63 - 1; each call draws others."""
        if self.word is None:
            raise self.refused("draws inside of a loop")
        self.draws += 1
        return seeds.draw(seeds.at(self.word, self.draws), count)

    def branch(self) -> _World:
        """A world that goes on from here by itself."""
        branch = _World(self.name, dict(self.values), self.word)
        branch.draws = self.draws
        return branch

    def refused(self, what: str) -> UserError:
        return UserError(f"{self.name} cannot be made a pure function: it {what}")


def _play(graph: Any, bound: dict[str, Any], world: _World) -> dict[str, Any]:
    """Every tensor of a graph by name, as it is in the current graph, from those that are `bound`."""
    found = dict(bound)
    for op in graph.get_operations():
        if op.type in _WITHOUT_RESULT or (op.outputs and all(tensor.name in found for tensor in op.outputs)):
            continue
        inputs = [found[tensor.name] for tensor in op.inputs]
        outputs = _OPS.get(op.type, _other)(op, inputs, world)
        found.update(zip([tensor.name for tensor in op.outputs], outputs, strict=True))
    return found


def _call(op: Any, attribute: str, inputs: Sequence[Any], world: _World) -> list[Any]:
    """What a function that an operation names makes of these."""
    name = op.get_attr(attribute).name
    graph = op.graph._get_function(name).graph
    found = _play(graph, dict(zip([tensor.name for tensor in graph.inputs], inputs, strict=True)), world)
    return [found[tensor.name] for tensor in graph.outputs]


def _other(op: Any, inputs: Sequence[Any], world: _World) -> Sequence[tf.Tensor]:
    """The same operation in the current graph."""
    if "PyFunc" in op.type:
        raise world.refused("calls Python from its graph, which no program can hold")
    if op.op_def.is_stateful or any(isinstance(each, _Handle) for each in inputs):
        raise world.refused(f"holds the operation {op.type}, which is more than reading, assigning or drawing")
    if any(tensor.dtype == tf.resource for tensor in op.outputs):
        raise world.refused(f"keeps something that is no variable ({op.type})")
    attributes = {name: value for name, value in op.node_def.attr.items() if not name.startswith("_")}
    graph = tf.compat.v1.get_default_graph()
    inputs = [tf.convert_to_tensor(each) for each in inputs]
    dtypes = [tensor.dtype for tensor in op.outputs]
    return graph._create_op_internal(op.type, inputs, dtypes, attrs=attributes, op_def=op.op_def).outputs


def _identity(op, inputs, world):
    return [each if isinstance(each, _Handle) else tf.identity(each) for each in inputs]


def _call_function(op, inputs, world):
    return _call(op, "f", inputs, world)


# Variables.


def _read(op, inputs, world):
    return [world.values[inputs[0].ref]]


def _assign(change):
    def assign(op, inputs, world):
        handle, value = inputs
        if not isinstance(handle, _Handle):
            raise world.refused("assigns to something that is no variable of its own")
        world.values[handle.ref] = change(world.values[handle.ref], value)
        return []

    return assign


def _gather(op, inputs, world):
    return [tf.gather(world.values[inputs[0].ref], inputs[1], batch_dims=op.get_attr("batch_dims"))]


# Control flow.


def _select(op, inputs, world, branches):
    """Play all branches, each in a world of its own, and choose between what they made."""
    which, *arguments = inputs
    worlds = [world.branch() for _ in branches]
    made = [play(arguments, its_world) for play, its_world in zip(branches, worlds, strict=True)]

    def choose(parts):
        chosen = parts[-1]
        for number in range(len(parts) - 2, -1, -1):
            if parts[number] is not chosen:
                chosen = tf.where(which == number, parts[number], chosen)
        return chosen

    world.values = {ref: choose([its.values[ref] for its in worlds]) for ref in world.values}
    world.draws = max(its.draws for its in worlds)
    return [choose(list(parts)) for parts in zip(*made, strict=True)]


def _if(op, inputs, world):
    condition, *arguments = inputs
    which = tf.where(tf.cast(condition, tf.bool), 0, 1)
    branches = [lambda given, its, name=name: _call(op, name, given, its) for name in ("then_branch", "else_branch")]
    return _select(op, [which, *arguments], world, branches)


def _case(op, inputs, world):
    index, *arguments = inputs
    graphs = [op.graph._get_function(function.name).graph for function in op.get_attr("branches")]

    def branch(graph):
        def play(given, its):
            found = _play(graph, dict(zip([tensor.name for tensor in graph.inputs], given, strict=True)), its)
            return [found[tensor.name] for tensor in graph.outputs]

        return play

    last = len(graphs) - 1
    index = tf.where((index < 0) | (index > last), last, index)  # as the operation has it
    return _select(op, [index, *arguments], world, [branch(graph) for graph in graphs])


def _while(op, inputs, world):
    if any(isinstance(each, _Handle) for each in inputs):
        raise world.refused("uses a variable inside of a loop")
    inner = _World(world.name, {}, None)
    return tf.while_loop(
        lambda *given: tf.reshape(_call(op, "cond", given, inner)[0], []),
        lambda *given: _call(op, "body", given, inner),
        [tf.convert_to_tensor(each) for each in inputs],
        shape_invariants=[tensor.shape for tensor in op.outputs],
    )


# Draws.


def _count(shape, world):
    shape = tf.get_static_value(tf.convert_to_tensor(shape))
    if shape is None:
        raise world.refused("draws as many numbers as only its data tell")
    return shape.tolist(), int(np.prod(shape))


def _uniform(op, inputs, world):
    return [_fractions(op, inputs, world, 0.0)]


def _fractions(op, inputs, world, offset):
    """Numbers in [0, 1), each a whole number of steps and `offset` of one."""
    shape, count = _count(inputs[0], world)
    dtype = op.outputs[0].dtype
    if dtype not in _FLOAT_BITS:
        raise world.refused(f"draws numbers of {dtype.name}")
    bits = _FLOAT_BITS[dtype]
    steps = tf.bitwise.right_shift(world.draw(count), tf.constant(_DRAW_BITS - bits, tf.int64))
    return tf.reshape((tf.cast(steps, dtype) + offset) * 2.0**-bits, shape)


def _uniform_int(op, inputs, world):
    shape, count = _count(inputs[0], world)
    low, high = (tf.cast(bound, tf.int64) for bound in inputs[1:])
    return [tf.reshape(tf.cast(low + world.draw(count) % (high - low), op.outputs[0].dtype), shape)]


def _normal(op, inputs, world):
    return [math.sqrt(2.0) * tf.math.erfinv(2.0 * _fractions(op, inputs, world, 0.5) - 1.0)]


def _generator(op, inputs, world):
    """What a `tf.random.Generator` hands to a draw: its state, here another at each draw."""
    return [world.draw(world.values[inputs[0].ref].shape[0])]


_OPS: dict[str, Callable] = {
    "Identity": _identity,
    "PartitionedCall": _call_function,
    "StatefulPartitionedCall": _call_function,
    "ReadVariableOp": _read,
    "AssignVariableOp": _assign(lambda _, new: new),
    "AssignAddVariableOp": _assign(lambda old, change: old + change),
    "AssignSubVariableOp": _assign(lambda old, change: old - change),
    "ResourceGather": _gather,
    "VarIsInitializedOp": lambda *_: [tf.constant(True)],
    "If": _if,
    "StatelessIf": _if,
    "Case": _case,
    "StatelessCase": _case,
    "While": _while,
    "StatelessWhile": _while,
    "RandomUniform": _uniform,
    "RandomUniformInt": _uniform_int,
    "RandomStandardNormal": _normal,
    "RngReadAndSkip": _generator,
}
