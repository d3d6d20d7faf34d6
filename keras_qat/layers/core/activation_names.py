"""Canonical names of activations, for all ways of writing them in Keras."""

from __future__ import annotations

from typing import Any

import keras

from keras_qat.graph.patterns import Matcher

_OPERATIONS = {
    "LogSoftmax": "log_softmax",
    "Relu": "relu",
    "Relu6": "relu6",
    "Softmax": "softmax",
}


class Activation(keras.layers.Activation):
    """The `activation` argument of a layer, as an operation after the layer.

    Its class tells it from an `Activation` of the user, whose name the fused layer keeps.
    """


# The layers that apply a function, given as an argument.
ACTIVATION_LAYERS = (keras.layers.Activation, Activation)


def function_name(function: Any) -> str:
    """Returns the canonical name of an activation function.

    Args:
        function: A function of `keras.activations`, a layer such as `ReLU`, another callable, or
            None.

    Returns:
        The name; `"linear"` for None; `"custom"` for a callable that is not a Keras activation.

    Example:
    >>> function_name(keras.activations.get("relu6"))
    'relu6'
    """
    if function is None:
        return "linear"
    if isinstance(function, keras.layers.Layer):
        return activation_name(function) or "custom"
    name = getattr(function, "__name__", "custom")
    known = getattr(keras.activations, name, None)
    return name if known is function else "custom"


def activation_name(operation: Any) -> str | None:
    """Returns the canonical name of the activation that an operation computes.

    Args:
        operation: A Keras layer or `keras.ops` operation.

    Returns:
        `"relu"`, `"relu6"`, `"softmax"`, `"linear"`, ..., or None if the operation is not an
        activation, or has parameters that no canonical name stands for.
    """
    if type(operation) in ACTIVATION_LAYERS:
        return function_name(operation.activation)
    if is_relu(operation):
        return _relu_name(operation)
    if type(operation) is keras.layers.Softmax:
        return "softmax" if operation.axis == -1 else None
    if type(operation) is keras.layers.Identity:
        return "linear"
    if type(operation).__module__.startswith("keras.src.ops."):
        axis = getattr(operation, "axis", -1)
        return _OPERATIONS.get(type(operation).__name__) if axis == -1 else None
    return None


def is_relu(operation: Any) -> bool:
    """Returns whether an operation is a `ReLU` of `keras.layers` or `keras.activations.relu`."""
    cls = type(operation)
    return cls.__name__ == "ReLU" and cls.__module__.startswith("keras.src.")


def _relu_name(layer: Any) -> str | None:
    if layer.negative_slope or layer.threshold:
        return None
    return {None: "relu", 6.0: "relu6"}.get(layer.max_value)


def activation_of(*names: str) -> Matcher:
    """Matches operations that compute one of these activations.

    Example:
    >>> activation_of("relu")(keras.layers.ReLU())
    True
    """
    return Matcher(" or ".join(names), lambda operation: activation_name(operation) in names)


# Activations that LiteRT's operators can fuse at no cost.
FUSED = activation_of("relu", "relu6")
FUSED_CODES = {"linear": "NONE", "relu": "RELU", "relu6": "RELU6"}
