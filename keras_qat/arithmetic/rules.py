"""The integer rules of operators whose kernels differ, by their names in operators.toml."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from keras_qat.arithmetic import arm64
from keras_qat.arithmetic.elementwise import add, subtract
from keras_qat.arithmetic.hard_swish import hard_swish_table
from keras_qat.arithmetic.int16 import functions as int16
from keras_qat.arithmetic.int16.elementwise import HEADROOM, add_in_blocks
from keras_qat.arithmetic.int16.quantize import quantize_in_blocks
from keras_qat.arithmetic.int16.requantize import requantize_wide
from keras_qat.arithmetic.lstm import LITERT, MICRO
from keras_qat.arithmetic.multiply import multiply, requantize_product
from keras_qat.arithmetic.optimized.requantize import (
    requantize_half_up,
    requantize_transpose_conv,
    requantize_transpose_conv_uint8,
)
from keras_qat.arithmetic.optimized.softmax import softmax as optimized_softmax
from keras_qat.arithmetic.pooling import mean
from keras_qat.arithmetic.prelu import leaky_relu
from keras_qat.arithmetic.requantize import (
    quantize,
    requantize_fixed_point,
    requantize_float64,
    rescale,
)
from keras_qat.arithmetic.resize import IN_FLOAT, IN_INTEGERS
from keras_qat.arithmetic.softmax import softmax
from keras_qat.arithmetic.xnnpack import mean as xnnpack_mean
from keras_qat.arithmetic.xnnpack import quantize as xnnpack_quantize
from keras_qat.arithmetic.xnnpack import resize as xnnpack_resize
from keras_qat.arithmetic.xnnpack import taken as xnnpack_taken
from keras_qat.arithmetic.xnnpack.requantize import requantize_float32

Rule = Any  # a function, an `Interpolation` or an `LstmKernel`

# The rules of one operator have the same arguments.
RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "add": add,
        "add_in_blocks": add_in_blocks,
        "add_int16": functools.partial(add, headroom=HEADROOM),
        "arm64_hard_swish": functools.partial(hard_swish_table, rounds_up=True),
        "arm64_mean": arm64.mean,
        "arm64_multiply": xnnpack_taken.multiply_arm64,
        "arm64_requantize_half_up": arm64.requantize_half_up,
        "arm64_softmax": arm64.softmax,
        "hard_swish": hard_swish_table,
        "leaky_relu": leaky_relu,
        "logistic_int16": int16.logistic,
        "lstm": LITERT,
        "mean": mean,
        "micro_lstm": MICRO,
        "multiply": multiply,
        "multiply_in_double": functools.partial(multiply, in_double=True),
        "optimized_logistic_int16": int16.optimized_logistic,
        "optimized_softmax": optimized_softmax,
        "optimized_tanh_int16": int16.optimized_tanh,
        "quantize": quantize,
        "quantize_in_blocks": quantize_in_blocks,
        "interpolate": IN_INTEGERS,
        "interpolate_in_float": IN_FLOAT,
        "requantize_fixed_point": requantize_fixed_point,
        "requantize_float32": requantize_float32,
        "requantize_float64": requantize_float64,
        "requantize_half_up": requantize_half_up,
        "requantize_product": requantize_product,
        "requantize_transpose_conv": requantize_transpose_conv,
        "requantize_transpose_conv_uint8": requantize_transpose_conv_uint8,
        "requantize_wide": requantize_wide,
        "rescale": rescale,
        "softmax": softmax,
        "softmax_int16": int16.softmax,
        "subtract": subtract,
        "subtract_int16": functools.partial(subtract, headroom=HEADROOM),
        "tanh_int16": int16.tanh,
        "xnnpack_add": xnnpack_taken.add,
        "xnnpack_interpolate": xnnpack_resize.IN_INTEGERS,
        "xnnpack_leaky_relu": xnnpack_taken.leaky_relu,
        "xnnpack_mean": xnnpack_mean.mean,
        "xnnpack_multiply": xnnpack_taken.multiply,
        "xnnpack_quantize": xnnpack_quantize.quantize,
        "xnnpack_rescale": xnnpack_taken.rescale,
        "xnnpack_subtract": xnnpack_taken.subtract,
    }
)
