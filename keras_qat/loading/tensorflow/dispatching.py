"""Lets TensorFlow functions take traced tensors, for which `keras.ops` compute the same."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any

import keras
from keras import tree

from keras_qat.graph.symbols import TracedTensor
from keras_qat.loading.tensorflow.operations import ALIASES, FUNCTIONS


@contextlib.contextmanager
def tensorflow_functions() -> Generator[None]:
    """Lets TensorFlow functions of this thread take traced tensors while the context lasts.

    TensorFlow asks a dispatcher before it raises an error for arguments that a function does not
    take. This one calls the `keras.ops` form of the function if an argument is a tensor on which a
    layer of the user is traced. It leaves calls of other threads alone, and is removed after
    the context. The context does nothing if Keras has another backend.
    """
    if keras.backend.backend() != "tensorflow":
        yield
        return
    from tensorflow.python.util import dispatch  # there is no public way to remove one

    dispatcher = _dispatcher(dispatch.GlobalOpDispatcher)
    dispatchers: list[Any] = dispatch._GLOBAL_DISPATCHERS  # noqa: SLF001
    dispatchers.append(dispatcher)
    try:
        yield
    finally:
        dispatchers.remove(dispatcher)


def _dispatcher(base: Any) -> Any:
    """Returns a dispatcher for traced tensors of this thread."""
    thread = threading.get_ident()

    class Dispatcher(base):
        def handle(self, op: Callable[..., Any], args: Any, kwargs: Any) -> Any:
            """Returns the result of the form of a function, or `NOT_SUPPORTED`."""
            if threading.get_ident() != thread:
                return self.NOT_SUPPORTED
            is_traced = any(isinstance(x, TracedTensor) for x in tree.flatten((args, kwargs)))
            function = _forms().get(id(op)) if is_traced else None
            return self.NOT_SUPPORTED if function is None else function(*args, **kwargs)

    return Dispatcher()


@functools.cache
def _forms() -> dict[int, Callable[..., Any]]:
    """Returns the `keras.ops` forms of TensorFlow functions, by the `id` of the function."""
    import tensorflow as tf

    return {
        id(wrapped): FUNCTIONS[ALIASES.get(name, name)]
        for name in (*FUNCTIONS, *ALIASES)
        for wrapped in _wrapped(functools.reduce(_attribute, name.split("."), tf))
    }


def _wrapped(function: Any) -> Iterator[Any]:
    """Yields a function, the function that it wraps, and so on."""
    while function is not None:
        yield function
        function = getattr(function, "__wrapped__", None)


def _attribute(module: Any, name: str) -> Any:
    return getattr(module, name, None)
