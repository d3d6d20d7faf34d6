"""Ranges, scales and straight-through fake quantization."""

from keras_qat.quantizers.delay import QuantDelay, checked_steps, delayed, unless_delayed
from keras_qat.quantizers.fake_quantize import fake_quantize
from keras_qat.quantizers.input_stats import InputStats
from keras_qat.quantizers.observers import RangeObserver, ValueRange, checked_default_range
from keras_qat.quantizers.tensor_parameters import FixedParameters, Grid, RangeParameters
from keras_qat.quantizers.weights import (
    WeightGrid,
    fake_quantize_weights,
    quantize_weights,
    reciprocal,
    weight_grid,
)

__all__ = [
    "FixedParameters",
    "Grid",
    "InputStats",
    "QuantDelay",
    "RangeObserver",
    "RangeParameters",
    "ValueRange",
    "WeightGrid",
    "checked_default_range",
    "checked_steps",
    "delayed",
    "fake_quantize",
    "fake_quantize_weights",
    "quantize_weights",
    "reciprocal",
    "unless_delayed",
    "weight_grid",
]
