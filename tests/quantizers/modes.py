"""The three ways in which TensorFlow runs a function."""

import keras
import pytest

on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="compares the ways TensorFlow runs a function"
)


def in_all_modes(function, *arguments):
    """Returns the results of a function as numpy arrays: eager, in a graph, compiled by XLA."""
    import tensorflow as tf

    tensors = [keras.ops.convert_to_tensor(argument) for argument in arguments]
    compiled = [tf.function(function, jit_compile=jit) for jit in (False, True)]
    results = [run(*tensors) for run in (function, *compiled)]
    return [keras.tree.map_structure(keras.ops.convert_to_numpy, result) for result in results]
