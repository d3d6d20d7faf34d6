"""Ranges, scales and straight-through fake quantization."""

from keras_qat.quantizers.fake_quantize import fake_quantize
from keras_qat.quantizers.observers import RangeObserver, ValueRange
from keras_qat.quantizers.tensor_parameters import FixedParameters, Grid, RangeParameters
from keras_qat.quantizers.weights import (
    fake_quantize_weights,
    quantize_weights,
    reciprocal,
    weight_scale,
)

__all__ = [
    "FixedParameters",
    "Grid",
    "RangeObserver",
    "RangeParameters",
    "ValueRange",
    "fake_quantize",
    "fake_quantize_weights",
    "quantize_weights",
    "reciprocal",
    "weight_scale",
]
