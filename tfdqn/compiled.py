"""The only place where tfdqn makes a `tf.function`. Everything else is plain functions that also run op by op."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf


def xla(function: Callable) -> Callable:
    """`function` as one XLA program, traced once per shape of its arguments."""
    return program(function, jit=True, eager=False)


def program(function: Callable, *, jit: bool, eager: bool) -> Callable:
    """`function` as one XLA program; as a plain graph without `jit`; as it is, op by op, if `eager`."""
    if eager:
        return function
    made = tf.function(function, jit_compile=jit, autograph=False)
    # Each is traced once. TensorFlow counts by the Python function, and from the fifth run in a process on it would
    # warn of tracing too often.
    made._omit_frequent_tracing_warning = True
    return made
