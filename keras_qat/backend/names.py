"""Names of variables on TensorFlow."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras


@contextlib.contextmanager
def outermost_scope() -> Iterator[None]:
    """Leaves the names of the layers around a variable out of its name on TensorFlow.

    TensorFlow prepares a kernel for each name of a variable, and keeps it. That takes five times
    as long as to make the variable, and a quantized model has six variables for each tensor. Keras
    saves variables by their paths, which still have the names of the layers.

    Returns:
        A context manager.

    Example:
    >>> layer = keras.layers.Layer(name="inner")
    >>> with keras.name_scope("outer"), outermost_scope():
    ...     weight = layer.add_weight(name="weight", shape=())
    >>> weight.path
    'outer/inner/weight'
    """
    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf

    with tf.name_scope(""):
        yield
