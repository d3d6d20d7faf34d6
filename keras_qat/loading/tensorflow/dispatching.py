"""Lets TensorFlow functions take traced tensors, for which `keras.ops` compute the same."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import tree

from keras_qat.graph.symbols import TracedTensor
from keras_qat.loading.tensorflow.operations import ALIASES, FUNCTIONS


def dispatch_traced_tensors() -> None:
    """Registers the `keras.ops` forms of functions with TensorFlow.

    TensorFlow asks for them before it raises an error for arguments that a function does not take.
    They handle the tensors on which a layer of the user is traced, and no others. Does nothing if
    Keras has another backend.
    """
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf

    functions = {
        id(wrapped): FUNCTIONS[ALIASES.get(name, name)]
        for name in (*FUNCTIONS, *ALIASES)
        for wrapped in _wrapped(functools.reduce(_attribute, name.split("."), tf))
    }
    dispatch: Any = tf.__internal__.dispatch

    class Dispatcher(dispatch.GlobalOpDispatcher):
        """Calls the form of a function if an argument is a traced tensor."""

        def handle(self, op: Callable[..., Any], args: Any, kwargs: Any) -> Any:
            """Returns the result, or `NOT_SUPPORTED`."""
            is_traced = any(isinstance(x, TracedTensor) for x in tree.flatten((args, kwargs)))
            function = functions.get(id(op)) if is_traced else None
            return self.NOT_SUPPORTED if function is None else function(*args, **kwargs)

    Dispatcher().register()


def _wrapped(function: Any) -> Iterator[Any]:
    """Yields a function, the function that it wraps, and so on."""
    while function is not None:
        yield function
        function = getattr(function, "__wrapped__", None)


def _attribute(module: Any, name: str) -> Any:
    return getattr(module, name, None)
