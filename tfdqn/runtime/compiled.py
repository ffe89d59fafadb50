"""The only place where tfdqn makes a `tf.function`. Everything else is plain functions that also run op by op.

Left alone, TensorFlow keeps a program's graphs, and with them its variables, such as a replay, for as long as the
process lives: Python's collector does not see all the ways in which graphs of loops refer to each other. Here they are
taken apart. What XLA has compiled stays: of ten trainers of catch8 one after another each leaves 36 MB, whatever the
size of its replay (1 MB without `jit`); of ten plain Keras models with `jit_compile` each leaves 7 to 10.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable

import tensorflow as tf
from tensorflow.python.framework.func_graph import dismantle_func_graph

_takes_tf32 = False  # what the programs that are made from now on take float32's products in


def take_tf32(is_taken: bool) -> None:
    """Let a GPU round the factors of float32's products to TensorFloat-32, 11 significant bits, or not.

    For the whole process, as TensorFlow has it, which would take them by itself; but a program keeps to what was said
    last before it was made. Nothing was said: it takes float32. A CPU has no TensorFloat-32.
    """
    global _takes_tf32
    _takes_tf32 = is_taken
    tf.config.experimental.enable_tensor_float_32_execution(is_taken)


def xla(function: Callable) -> Callable:
    """`function` as one XLA program, traced once per shape of its arguments; as of `program`."""
    return program(function, jit=True, eager=False)


def program(function: Callable, *, jit: bool, eager: bool) -> Callable:
    """`function` as one XLA program; as a plain graph without `jit`; as it is, op by op, if `eager`.

    Whoever drops it frees its graphs: nothing that was taken out of it, such as a concrete function, works then.
    """
    if eager:
        return function
    if not jit:
        # TensorFlow 2.21's arithmetic optimizer of plain graphs changes what they compute: it loses the new axis of
        # tf.stack([a, b], axis=1)[:, 0, tf.newaxis], by which in seaquest a shot went through an enemy. For the whole
        # process, as TensorFlow has it.
        tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False})
    graphs: list[tf.Graph] = []
    takes_tf32 = _takes_tf32

    @functools.wraps(function)
    def traced(*arguments, **keywords):
        # XLA asks when it compiles, which is next.
        tf.config.experimental.enable_tensor_float_32_execution(takes_tf32)
        if not tf.config.functions_run_eagerly():  # else no graph is made for it
            graphs.append(tf.compat.v1.get_default_graph())
        return function(*arguments, **keywords)

    compiled = tf.function(traced, jit_compile=jit, autograph=False)
    # Each is traced once. TensorFlow counts by the Python function, and from the fifth run in a process on it would
    # warn of tracing too often.
    compiled._omit_frequent_tracing_warning = True
    weakref.finalize(compiled, _take_apart, graphs).atexit = False
    return compiled


def _take_apart(graphs: list[tf.Graph]) -> None:
    """Free graphs, those of the loops and conditions in them, and the variables that they use."""
    while graphs:
        graph = graphs.pop()
        graphs += [function.graph for function in graph._functions.values() if hasattr(function, "graph")]
        # What `dismantle_func_graph` leaves: each tensor refers to its graph in a way that the collector does not see,
        # and a list of captures holds on to the variables' memory.
        graph._function_captures = type(graph._function_captures)()
        graph.inputs, graph.outputs, graph.control_outputs = [], [], []
        graph.structured_outputs = graph.structured_input_signature = None
        dismantle_func_graph(graph)
