"""Quantized models inside other models."""

from __future__ import annotations

from typing import Any

import keras

from keras_qat.errors import NotQuantizedError
from keras_qat.graph import read_model
from keras_qat.graph.graph import flatten_edges
from keras_qat.graph.reading import is_model
from keras_qat.layers.models.quantized_model import QuantizedModel


def quantized_model_in(model: Any, purpose: str) -> QuantizedModel:
    """Returns the quantized model that a model is, or that it only wraps.

    A wrapper is a functional or sequential model that calls another model on its inputs and returns
    that model's outputs, in the same order: `keras.Model(x, qat(x))`.

    Args:
        model: A model.
        purpose: The purpose that needs a quantized model, for the message, such as "exported".

    Raises:
        NotQuantizedError: If it is not such a model. The message names a quantized model inside it.

    Example:
    >>> import keras_qat
    >>> qat = keras_qat.quantize_model(keras.Sequential([keras.Input((4,)), keras.layers.ReLU()]))
    >>> quantized_model_in(keras.Sequential([qat]), "exported") is qat
    True
    """
    inner = find_quantized_model(model)
    if inner is None:
        raise NotQuantizedError(
            f"Only a quantized model can be {purpose}.",
            received=f"a {type(model).__name__}",
            fix=_fix(model),
        )
    return inner


def find_quantized_model(model: Any) -> QuantizedModel | None:
    """Returns the quantized model that a model is, or that it only wraps, or None."""
    while model is not None and not isinstance(model, QuantizedModel):
        model = _wrapped(model)
    return model


def _wrapped(model: Any) -> Any:
    """Returns the model that a model only calls on its inputs, or None."""
    if isinstance(model, keras.Sequential):  # which need not be built
        return model.layers[0] if len(model.layers) == 1 else None
    if not is_model(model):
        return None
    graph = read_model(model)
    calls = [node for node in graph.nodes.values() if not node.is_input]
    if len(calls) != 1 or not is_model(calls[0].head):
        return None
    (call,) = calls
    inner = read_model(call.head)
    is_plain = (
        [edge.node for edge in call.inputs] == list(graph.inputs)
        and len(flatten_edges(inner.input_structure)) == len(call.inputs)
        and [edge.index for edge in graph.output_edges] == list(range(len(call.shapes)))
    )
    return call.head if is_plain else None


def _fix(model: Any) -> str:
    layers = model.layers if isinstance(model, keras.Model) else ()
    name = next((each.name for each in layers if isinstance(each, QuantizedModel)), None)
    if name is None:
        return "Pass the model that `keras_qat.quantize_model` returned."
    return f"Pass the quantized model inside it: `model.get_layer({name!r})`."
