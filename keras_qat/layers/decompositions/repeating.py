"""TimeDistributed, written as calls of the layer that it wraps."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_qat.layers.core.registry import register

# These layers take any number of axes before the last axis.
_ANY_RANK = (keras.layers.Activation, keras.layers.Dense, keras.layers.Dropout, keras.layers.ReLU)


@register(keras.layers.TimeDistributed)
def distributed(layer: Any, inputs):
    """Calls the wrapped layer once for all steps, which become samples of the batch."""
    if isinstance(layer.layer, _ANY_RANK):
        return layer.layer(inputs)
    batch, steps, *sizes = inputs.shape
    y = layer.layer(ops.reshape(inputs, (batch * steps, *sizes)))
    return ops.reshape(y, (batch, steps, *y.shape[1:]))
