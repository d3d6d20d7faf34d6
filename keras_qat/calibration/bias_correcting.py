"""Bias correction: removes the shift that rounding causes in the mean of each channel."""

from __future__ import annotations

import numpy as np
from keras import ops

from keras_qat.calibration.integer_kernels import integer_kernel
from keras_qat.calibration.walking import Values
from keras_qat.layers.kernels.rescaling import output_offset
from keras_qat.layers.kernels.weighted import WeightedLayer


def correct_bias(layer: WeightedLayer, real: Values, rounded: Values, kernel: np.ndarray) -> None:
    """Adds the mean error of each output channel to the bias of a layer.

    The error is measured on data, before the activation: the difference between the sums of the
    float model and those of the quantized weights and inputs. It is the empirical bias correction
    of "Data-Free Quantization through Weight Equalization and Bias Correction" (Nagel et al. 2019,
    https://arxiv.org/abs/1906.04721). A batch normalization gets it in its offset. A layer without
    a bias is not changed.

    Args:
        layer: A layer of a quantized model with ranges.
        real: The inputs of the layer in float, an array for each batch.
        rounded: The inputs of the layer in the quantized model.
        kernel: The folded kernel in float, before any change of the weights.
    """
    offset = output_offset(layer)
    if offset is None:
        return
    integers, scale = integer_kernel(layer)
    error = _mean(layer, real, kernel) - _mean(layer, rounded, integers * scale)
    offset.assign(ops.convert_to_numpy(offset) + error.astype("float32"))


def _mean(layer: WeightedLayer, inputs: Values, kernel: np.ndarray) -> np.ndarray:
    """Returns the mean of each output channel of the sums, float64 `(channels,)`."""
    sums, count = np.zeros(()), 0
    for x in inputs:
        y = layer.kernel_operator.apply(layer, ops.convert_to_tensor(x), kernel)
        flat = ops.convert_to_numpy(y).reshape(-1, y.shape[-1])
        sums, count = sums + flat.sum(axis=0, dtype="float64"), count + len(flat)
    return sums / count
