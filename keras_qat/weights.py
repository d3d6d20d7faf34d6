"""integer_weights: the constants of an exported file, as arrays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from keras_qat.layers import QuantizedModel
from keras_qat.lowering import lower_model


class IntegerTensor(NamedTuple):
    """A constant of a LiteRT model. Its real values are `(values - zero_point) * scale`.

    Attributes:
        values: int8 or uint8 weights or int32 biases, in the layout of LiteRT's operator: a
            CONV_2D has `(out, height, width, in)`, a DEPTHWISE_CONV_2D `(1, height, width, out)`, a
            FULLY_CONNECTED `(out, in)`.
        scale: float32 array with one scale, or one for each channel.
        zero_point: int64 array of the same shape.
        axis: The dimension of `values` that numbers the channels.
    """

    values: np.ndarray
    scale: np.ndarray
    zero_point: np.ndarray
    axis: int


def integer_weights(model: QuantizedModel) -> dict[str, IntegerTensor]:
    """Returns the integer weights and biases of a quantized model, as `export_litert` writes them.

    Args:
        model: A model from `keras_qat.quantize_model`, calibrated or trained.

    Returns:
        The quantized constants by their names in the file: the layer's name and `/kernel`,
        `/bias` and others.

    Raises:
        NotQuantizedError: If the model was not made by `quantize_model`.
        MissingRangeError: If tensors lack min/max data: the scale of a bias depends on the input's.

    Example:
    >>> import keras, keras_qat
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="head")])
    >>> qat = keras_qat.quantize_model(model)
    >>> keras_qat.calibrate(qat, np.eye(4, dtype="float32"), verbose=0)
    >>> weights = integer_weights(qat)
    >>> list(weights), str(weights["head/kernel"].values.dtype), weights["head/kernel"].values.shape
    (['head/kernel', 'head/bias'], 'int8', (2, 4))
    """
    found = {}
    for operator in lower_model(model).operators:
        for tensor in operator.inputs:
            if tensor is None or tensor.data is None or tensor.quantization is None:
                continue
            scale, zero_point = tensor.quantization.scale, tensor.quantization.zero_point
            values, axis = np.array(tensor.data), tensor.quantization.axis
            found[tensor.name] = IntegerTensor(values, np.array(scale), np.array(zero_point), axis)
    return found
