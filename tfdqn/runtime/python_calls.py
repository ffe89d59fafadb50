"""Calls of Python from the middle of a program of XLA, on a CPU.

`tf.numpy_function` does not compile, so that what calls Python falls into several programs, each of which takes some
100 microseconds to start. XLA calls functions of C, too, by names that are registered with it: here there is one, which
finds what to call by a number in the program. A call takes some microseconds.

TensorFlow has no Python for that registry, which is reached by its names in TensorFlow's library: those of TensorFlow
2.21 on Linux. Elsewhere `are_possible` says that they are not there.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.compiler.tf2xla.ops import gen_xla_ops

_TARGET = "tfdqn_python_call"
_STRING = "NSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE"
_REGISTRY = "_ZN3xla24CustomCallTargetRegistry6GlobalEv"
_REGISTER = f"_ZN3xla24CustomCallTargetRegistry8RegisterERK{_STRING}PvS8_"
_MOST_PLACES = 64  # a program's arrays lie where they lay in its last run, or in one of the last few

_numbers = itertools.count()
_calls: weakref.WeakValueDictionary[int, PythonCall] = weakref.WeakValueDictionary()


class PythonCall:
    """A Python function that programs call, for as long as this is held.

    Args:
      function: is given an array for each argument and then one for each result, which it has to fill; none of them
        may be used once it has returned. From a thread of XLA's, one call after another. It must not raise: nobody
        would learn of it.
      results: shapes and types.
    """

    def __init__(self, function: Callable[..., None], results: Sequence[tf.TensorSpec]):
        self._function, self._results, self._arguments = function, list(results), []
        self._number = next(_numbers)
        self._places: dict[tuple[int, ...], list[np.ndarray]] = {}
        _calls[self._number] = self

    def __call__(self, *arguments: tf.Tensor) -> list[tf.Tensor]:
        """What there is in the results after a call; in a program of XLA, and with the same shapes each time."""
        self._arguments = [tf.TensorSpec(each.shape, each.dtype) for each in arguments]
        return gen_xla_ops.xla_custom_call_v2(
            operands=arguments,
            call_target_name=_TARGET,
            backend_config=str(self._number),
            has_side_effect=True,
            result_dtypes=[each.dtype for each in self._results],
            result_shapes=[each.shape for each in self._results],
        )

    def run(self, results: int, arguments: int) -> None:
        """Call the function, given where the addresses of the results and of the arguments are."""
        places = (*self._addresses(arguments, len(self._arguments)), *self._addresses(results, len(self._results)))
        arrays = self._places.get(places)
        if arrays is None:
            if len(self._places) >= _MOST_PLACES:
                self._places.clear()
            specs = [*self._arguments, *self._results]
            arrays = self._places[places] = [_array(*each) for each in zip(places, specs, strict=True)]
        self._function(*arrays)

    @staticmethod
    def _addresses(place: int, count: int) -> ctypes.Array:
        return (ctypes.c_size_t * count).from_address(place)


def _array(address: int, spec: tf.TensorSpec) -> np.ndarray:
    shape, dtype = spec.shape.as_list(), spec.dtype.as_numpy_dtype
    memory = (ctypes.c_char * (spec.shape.num_elements() * spec.dtype.size)).from_address(address)
    return np.frombuffer(memory, dtype).reshape(shape)


def _call(results: int, arguments: int, number: int, length: int, status: int) -> None:
    _calls[int(ctypes.string_at(number, length))].run(results, arguments)


class _String(ctypes.Structure):
    """As much of a `std::string` as who only reads it looks at."""

    _fields_ = (("data", ctypes.c_char_p), ("size", ctypes.c_size_t), ("rest", ctypes.c_char * 16))

    def __init__(self, text: str):
        super().__init__(text.encode(), len(text))


# Held for ever: XLA keeps its address.
_function = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3, ctypes.c_size_t, ctypes.c_void_p)(_call)


@functools.cache
def are_possible() -> bool:
    """Whether programs for a CPU can call Python here; if so, they can from now on."""
    try:
        library = ctypes.CDLL(str(Path(tf.sysconfig.get_lib()) / "libtensorflow_cc.so.2"))
        registry, register = getattr(library, _REGISTRY), getattr(library, _REGISTER)
    except (OSError, AttributeError):
        return False
    registry.restype, register.restype = ctypes.c_void_p, None
    register.argtypes = (ctypes.c_void_p, ctypes.POINTER(_String), ctypes.c_void_p, ctypes.POINTER(_String))
    register(registry(), _String(_TARGET), ctypes.cast(_function, ctypes.c_void_p), _String("Host"))
    return True
