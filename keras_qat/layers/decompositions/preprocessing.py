"""Rescaling and Normalization, written as a product and a sum with constants.

`write_affines` combines them into one factor and one offset for each channel. The next layer
absorbs these if this is exact.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

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
