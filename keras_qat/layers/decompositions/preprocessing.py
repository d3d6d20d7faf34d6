"""Preprocessing layers, written in operations.

Rescaling and Normalization are a product and a sum with constants. `write_affines` combines them
into one factor and one offset for each channel. The next layer absorbs these if this is exact.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.errors import UnsupportedLayerError
from keras_qat.layers.core.registry import register


@register(keras.layers.Rescaling)
def rescaled(layer: Any, inputs):
    """Computes `inputs * scale + offset`."""
    scaled = ops.multiply(ops.cast(inputs, "float32"), np.asarray(layer.scale, "float32"))
    return ops.add(scaled, np.asarray(layer.offset, "float32"))


@register(keras.layers.Normalization)
def normalized(layer: Any, inputs):
    """Computes `(inputs - mean) / deviation`, or its inverse."""
    mean, variance = (np.array(ops.convert_to_numpy(v)) for v in (layer.mean, layer.variance))
    deviation = np.maximum(np.sqrt(variance), keras.backend.epsilon())
    inputs = ops.cast(inputs, "float32")
    if layer.invert:
        return ops.add(ops.multiply(inputs, deviation), mean)
    return ops.add(ops.multiply(inputs, 1.0 / deviation), -mean / deviation)


@register(keras.layers.CategoryEncoding)
def encoded(layer: Any, inputs, count_weights=None):
    """Computes ones for the categories of a sample, or the number of times that each occurs."""
    if count_weights is not None or layer.sparse:
        raise UnsupportedLayerError(
            "Categories are encoded as dense tensors, without weights.",
            layer=layer.name,
            received="`count_weights`" if count_weights is not None else "sparse=True",
            fix="Multiply the output by the weights, or remove `sparse`.",
        )
    if layer.output_mode == "one_hot":
        is_single = len(inputs.shape) > 1 and inputs.shape[-1] == 1
        ids = ops.squeeze(inputs, axis=-1) if is_single else inputs
        return ops.one_hot(ids, layer.num_tokens, dtype="float32")
    found = ops.one_hot(inputs, layer.num_tokens, dtype="float32")
    return (ops.max if layer.output_mode == "multi_hot" else ops.sum)(found, axis=1)
