"""Ranges, scales and straight-through fake quantization."""

from keras_qat.quantizers.default_range import checked_default_range
from keras_qat.quantizers.delay import QuantDelay, checked_steps, delayed, unless_delayed
from keras_qat.quantizers.fake_quantize import fake_quantize, with_range_gradient
from keras_qat.quantizers.fixed_parameters import FixedParameters, Grid
from keras_qat.quantizers.input_stats import InputStats
from keras_qat.quantizers.min_max import MinMax
from keras_qat.quantizers.misfits import MISFIT_FIX, range_misfit
from keras_qat.quantizers.observers import RangeObserver, make_observers
from keras_qat.quantizers.outliers import Outliers, find_outliers
from keras_qat.quantizers.range_rule import RangeRule
from keras_qat.quantizers.range_rules import get_range_rule, weight_rule
from keras_qat.quantizers.robust import Robust
from keras_qat.quantizers.specification import Derived, Fixed, Free, Shared, Specification
from keras_qat.quantizers.tensor_parameters import RangeParameters, grids_once
from keras_qat.quantizers.value_range import ValueRange
from keras_qat.quantizers.weight_range import WeightRange
from keras_qat.quantizers.weights import (
    WeightGrid,
    clip_weights,
    fake_quantize_weights,
    quantize_weights,
    reciprocal,
    weight_grid,
)

__all__ = [
    "MISFIT_FIX",
    "Derived",
    "Fixed",
    "FixedParameters",
    "Free",
    "Grid",
    "InputStats",
    "MinMax",
    "Outliers",
    "QuantDelay",
    "RangeObserver",
    "RangeParameters",
    "RangeRule",
    "Robust",
    "Shared",
    "Specification",
    "ValueRange",
    "WeightGrid",
    "WeightRange",
    "checked_default_range",
    "checked_steps",
    "clip_weights",
    "delayed",
    "fake_quantize",
    "fake_quantize_weights",
    "find_outliers",
    "get_range_rule",
    "grids_once",
    "make_observers",
    "quantize_weights",
    "range_misfit",
    "reciprocal",
    "unless_delayed",
    "weight_grid",
    "weight_rule",
    "with_range_gradient",
]
