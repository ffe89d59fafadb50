"""The only place where tfdqn makes a `tf.function`. Everything else is plain functions that also run op by op."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf


def xla(function: Callable) -> Callable:
    """`function` as one XLA program, traced once per shape of its arguments."""
    return tf.function(function, jit_compile=True, autograph=False)


def program(function: Callable, *, jit: bool, eager: bool) -> Callable:
    """`function` as one XLA program; as a plain graph without `jit`; as it is, op by op, if `eager`."""
    if eager:
        return function
    return tf.function(function, jit_compile=jit, autograph=False)
