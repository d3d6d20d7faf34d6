"""Checks that a float model can be quantized, before anything is rewritten."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.errors import InvalidModelError, UnsupportedLayerError
from keras_qat.graph.graph import Edge, Graph
from keras_qat.graph.keras_internals import layers_of
from keras_qat.graph.reading import is_model, read_model


def check_float(graph: Graph) -> None:
    """Raises if a layer is quantized, including layers of nested models."""
    if any(getattr(node.head, "scheme", None) is not None for node in graph.nodes.values()):
        raise InvalidModelError(
            "The model is quantized already.",
            layer=graph.name,
            fix="Pass the float model. To continue training a quantized model, call `fit`.",
        )


def quantization_errors(model: Any) -> Iterator[UnsupportedLayerError]:
    """Yields an error for each layer that `keras.Model.quantize` gave integer weights."""
    for layer in layers_of(model, include_self=False):
        mode = getattr(layer, "quantization_mode", None)
        if mode is not None:
            yield UnsupportedLayerError(
                "The layer is quantized already, by Keras itself.",
                layer=layer.name,
                received=f"quantization_mode='{mode}'",
                fix="Pass the model as it was before `quantize`.",
            )


def input_errors(graph: Graph) -> Iterator[InvalidModelError]:
    """Yields an error for each input that is not used, or has a size that is not known."""
    used = {*graph.consumers(), *graph.output_edges}
    for name in graph.inputs:
        if Edge(name) not in used:
            yield InvalidModelError(
                "No output of the model depends on an input.",
                layer=name,
                fix="Leave it out: `keras.Model(inputs, outputs)` with the inputs that are used.",
            )
        shape = graph.nodes[name].shapes[0]
        if None in shape[1:]:
            yield InvalidModelError(
                "An input of the model has a size that is not known.",
                layer=name,
                received=f"shape {shape}",
                expected="a fixed size for all axes but the first",
                fix="Build the model with a fixed `keras.Input(shape)`.",
            )


def training_errors(graph: Graph) -> Iterator[UnsupportedLayerError]:
    """Yields an error for each batch normalization that is called with `training=True`."""
    for node in graph.nodes.values():
        if node.arguments[1].get("training") is True:
            for norm in _batch_norms(node.head):
                yield UnsupportedLayerError(
                    "A batch normalization that is called with `training=True` uses the statistics "
                    "of each batch at inference too, which a file cannot represent.",
                    layer=norm.name,
                    received=f"training=True in the call of '{node.name}'",
                    expected="statistics that are known when the file is written",
                    fix="Leave `training` out of the call: Keras sets it during `fit`.",
                )


def _batch_norms(operation: Any) -> Iterator[keras.layers.Layer]:
    """Returns the batch normalizations that an operation contains."""
    if type(operation) is keras.layers.BatchNormalization:
        yield operation
    for node in read_model(operation).nodes.values() if is_model(operation) else ():
        yield from _batch_norms(node.head)


def weight_errors(model: keras.Model) -> Iterator[InvalidModelError]:
    """Yields an error for each weight with values that are not finite."""
    for weight in model.weights:
        # NumPy would copy each weight.
        if keras.backend.is_float_dtype(weight.dtype) and not ops.all(ops.isfinite(weight)):
            value = ops.convert_to_numpy(weight)
            yield InvalidModelError(
                "A weight has values that are not finite numbers.",
                layer=weight.path,
                received=f"{int((~np.isfinite(value)).sum())} NaN or infinite value(s)",
                fix="Train the model again from a checkpoint before it diverged.",
            )
