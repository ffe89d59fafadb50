"""Which operations have a kernel for a GPU: TensorFlow's registry says so, also where there is no GPU.

Inside XLA none is needed. Outside, an operation without one is placed on the CPU, or, where it touches a variable that
lives on the GPU, ends the program.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import kernels, op_callbacks, op_def_registry

# Not run as kernels: TensorFlow's executor does these by itself.
STRUCTURE = {"Placeholder", "_Arg", "_Retval", "PartitionedCall", "StatefulPartitionedCall"}

Operation = tuple[str, tuple[tuple[str, int], ...]]  # its name, and its type attributes with the types' numbers


@functools.cache
def _registered(name: str) -> tuple[Any, ...]:
    found = kernels.get_registered_kernels_for_op(name).kernel
    return tuple(kernel for kernel in found if kernel.device_type in ("GPU", "DEFAULT"))


def has_kernel(operation: Operation) -> bool:
    """Whether a GPU has a kernel for an operation; one that keeps its numbers on the host counts."""
    name, types = operation[0], dict(operation[1])

    def fits(kernel: Any) -> bool:
        return all(
            types[constraint.name] in constraint.allowed_values.list.type
            for constraint in kernel.constraint
            if constraint.name in types
        )

    return name in STRUCTURE or any(fits(kernel) for kernel in _registered(name))


def touches_variable(operation: Operation) -> bool:
    """Whether an operation works on a variable where that lies: without a kernel there it cannot run at all."""
    arguments = op_def_registry.get(operation[0]).input_arg
    return any(argument.type == tf.resource.as_datatype_enum for argument in arguments)


def described(operation: Operation) -> str:
    """Such as "TruncateMod(T=int64)"."""
    name, types = operation
    return f"{name}({', '.join(f'{key}={tf.dtypes.as_dtype(value).name}' for key, value in types)})"


def operations_of(graph: tf.Graph) -> Iterator[Operation]:
    """Every operation of a graph and of the functions that it calls."""
    definition = graph.as_graph_def()
    for node in [*definition.node, *(node for each in definition.library.function for node in each.node_def)]:
        types = {name: value.type for name, value in node.attr.items() if value.type}
        yield node.op, tuple(sorted(types.items()))


class Recorder:
    """Notes the operations that run one by one while it is entered, in `operations`."""

    def __init__(self):
        self.operations: set[Operation] = set()

    def __enter__(self) -> Recorder:
        op_callbacks.add_op_callback(self._note)
        return self

    def __exit__(self, *_: Any) -> None:
        op_callbacks.remove_op_callback(self._note)

    def _note(self, op_type, inputs, attrs, outputs, op_name=None, graph=None):
        if graph is not None:
            return
        name = op_type.decode() if isinstance(op_type, bytes) else op_type
        types = {each.name for each in op_def_registry.get(name).attr if each.type == "type"}
        pairs = dict(zip(attrs[::2], attrs[1::2], strict=True))
        pairs = {key.decode() if isinstance(key, bytes) else key: value for key, value in pairs.items()}
        self.operations.add((name, tuple(sorted((key, int(pairs[key])) for key in types & pairs.keys()))))


def without_kernel(operations: Iterable[Operation]) -> set[Operation]:
    """Those that have no kernel on a GPU."""
    return {each for each in set(operations) if not has_kernel(each)}
