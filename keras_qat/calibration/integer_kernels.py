"""The kernels of quantized layers as arrays, in integers and in float."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from keras_qat.layers.kernels.integer_weights import channel_shape
from keras_qat.layers.kernels.weighted import WeightedLayer


def folded_kernel(layer: WeightedLayer) -> np.ndarray:
    """Returns the kernel of a layer in float, with its batch normalization folded into it.

    Args:
        layer: A built layer.
    """
    return ops.convert_to_numpy(layer.folded_weights().kernel)


def integer_kernel(layer: WeightedLayer) -> tuple[np.ndarray, np.ndarray]:
    """Returns the integer kernel that inference and files use, and its scales.

    Args:
        layer: A layer of a quantized model with ranges.

    Returns:
        A float32 array of whole numbers, minus the zero point; and a float32 array of scales that
        broadcasts against it.
    """
    neighbours: Any = layer.neighbours
    (before,), after = neighbours.inputs, neighbours.output
    weights = layer.integer_weights(before.grid().scale, after.grid().scale)
    kernel, scale = (ops.convert_to_numpy(each) for each in weights[:2])
    shape = channel_shape(kernel, layer.channel_axes) if scale.size > 1 else (1,) * kernel.ndim
    return kernel, scale.reshape(shape)
