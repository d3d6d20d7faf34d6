"""Sigmoid, hyperbolic tangent and softmax of 16-bit integers, as the kernels interpolate tables."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from keras_qat.arithmetic.exact_float import as_float64, as_int32
from keras_qat.arithmetic.fixed_point import multiply_by_quantized_multiplier, quantize_multiplier
from keras_qat.arithmetic.lstm_tables import fixed_point_tables, sigmoid_entries
from keras_qat.backend import float64

LOW, HIGH = -(2**15), 2**15 - 1
# The largest scale of inputs: above it integers of the kernels overflow. Larger ones count as this
# one here, and `export_litert` raises an error.
LARGEST_SCALE = 5.0
# The scales of inputs for which optimized kernels compute in fixed point, with their integer bits.
_SIGMOID_SCALE = 2.0**-12
_TANH_SCALES = {3: 2.0**-12, 4: 2.0**-11}


def logistic(q: Any, scale: Any) -> Any:
    """Computes the sigmoid; the output has scale 1/32768 and zero point 0.

    Source: `Logistic` of int16 in TFLite's `kernels/internal/reference/integer_ops/logistic.h`, and
    `SigmoidPrepare` in `kernels/activations.cc`.

    Args:
        q: int32 tensor of 16-bit values.
        scale: float32 scalar, the scale of `q`, at most 5.

    Returns:
        int32 tensor like `q`.

    Example:
    >>> logistic(ops.array([0, 4096, -32768], "int32"), 2.0**-12).numpy()
    array([16384, 23956,    11], dtype=int32)
    """
    x = _in_table_steps(q, scale, [_SIGMOID_SCALE])
    value = _interpolated(x, 9, 0x7FFF << 10)
    return ops.right_shift(ops.where(x >= 0, value + 2**9, 2**25 - value + 2**9 - 1), 10)


def tanh(q: Any, scale: Any) -> Any:
    """Computes the hyperbolic tangent; the output has scale 1/32768 and zero point 0.

    Source: `Tanh` of int16 in TFLite's `kernels/internal/reference/integer_ops/tanh.h`, and
    `TanhPrepare` in `kernels/activations.cc`.

    Args:
        q: int32 tensor of 16-bit values.
        scale: float32 scalar, the scale of `q`, at most 5.

    Returns:
        int32 tensor like `q`.

    Example:
    >>> tanh(ops.array([0, 4096, -32768], "int32"), 2.0**-12).numpy()
    array([     0,  24956, -32767], dtype=int32)
    """
    x = _in_table_steps(q, scale, _TANH_SCALES.values())
    value = _interpolated(x, 8, 0xFFFF << 8)
    return ops.right_shift(ops.where(x >= 0, value - 2**23 + 2**7, 2**23 - value + 2**7 - 1), 8)


def optimized_logistic(q: Any, scale: Any) -> Any:
    """Computes `logistic` as LiteRT's optimized kernels do: in fixed point for a scale of 2^-12.

    Args:
        q: int32 tensor of 16-bit values.
        scale: float32 scalar, the scale of `q`, at most 5.

    Returns:
        int32 tensor like `q`.

    Example:
    >>> int(optimized_logistic(ops.array(4096, "int32"), 2.0**-12))
    23952
    """
    fixed = ops.take(as_int32(fixed_point_tables().sigmoid), as_int32(q) - LOW, axis=0)
    return ops.where(_is(scale, _SIGMOID_SCALE), fixed, logistic(q, scale))


def optimized_tanh(q: Any, scale: Any) -> Any:
    """Computes `tanh` as LiteRT's optimized kernels do: in fixed point for 2^-12 and 2^-11.

    Args:
        q: int32 tensor of 16-bit values.
        scale: float32 scalar, the scale of `q`, at most 5.

    Returns:
        int32 tensor like `q`.

    Example:
    >>> int(optimized_tanh(ops.array(4096, "int32"), 2.0**-12))
    24964
    """
    result = tanh(q, scale)
    for bits, power in _TANH_SCALES.items():
        fixed = ops.take(as_int32(fixed_point_tables().tanh[bits]), as_int32(q) - LOW, axis=0)
        result = ops.where(_is(scale, power), fixed, result)
    return result


def softmax(q: Any, input_scale: Any, *, beta: float = 1.0) -> Any:
    """Applies softmax over the last axis; the output has scale 1/32768 and zero point 0.

    Source: `SoftmaxInt16` in TFLite's `kernels/internal/reference/softmax.h`.

    Args:
        q: int32 tensor `(..., classes)` of 16-bit values.
        input_scale: float32 scalar, times `beta` at most 5.
        beta: Factor of the logits.

    Returns:
        int32 tensor like `q`.

    Example:
    >>> softmax(ops.array([[0, 0, -32768]], "int32"), 0.001).numpy()
    array([[16384, 16384,     1]], dtype=int32)
    """
    q = as_int32(q)
    with float64():
        steps = as_float64(_bounded(input_scale, beta)) * float(np.float32(beta))
        multiplier = quantize_multiplier(steps / (10.0 / 65535.0))
    difference = q - ops.max(q, axis=-1, keepdims=True)
    scaled = multiply_by_quantized_multiplier(difference, *multiplier) + HIGH
    terms = _looked_up(ops.clip(scaled, LOW, HIGH), _exponentials())
    total = ops.sum(terms, axis=-1, keepdims=True)
    # The number of bits of the sum, and the sum in 17 bits, rounded.
    bits = sum(ops.cast(total >= 2**bit, "int32") for bit in range(31))
    with float64():
        left = ops.left_shift(ops.cast(total, "int64"), ops.cast(31 - bits, "int64"))
        shifted = ops.cast(ops.right_shift(left + 2**13, ops.cast(14, "int64")), "int32")
    place = ops.clip(shifted - (2**15 + 2**16), LOW, HIGH)
    reciprocal = _looked_up(place, _reciprocals())
    return ops.clip(_rounded_product(terms, reciprocal, bits - 1), 0, HIGH)


def _rounded_product(a: Any, b: Any, right: Any) -> Any:
    """Returns `(a * b + 2**(right - 1)) >> right`."""
    half = ops.left_shift(as_int32(1), right - 1)
    return ops.right_shift(a * b + half, right)


def _in_table_steps(q: Any, scale: Any, powers: Any) -> Any:
    """Returns integers in steps of 1 / (3 * 4096), by a multiplier of 15 bits.

    For scales that are some powers of two the multiplier is exact.
    """
    with float64():
        factor = as_float64(_bounded(scale)) * (4096.0 * 3.0)
        doubled = factor * ops.cast(2.0 ** np.arange(31), "float64")
        shift = ops.cast(ops.sum(ops.cast(doubled <= 32767.0 / 2.0, "int32")), "int32")
        power = ops.take(ops.cast(2.0 ** np.arange(32), "float64"), shift, axis=0)
        multiplier = ops.cast(factor * power, "int32")
        for each in powers:
            exact = as_int32(3 * round(each * 4096.0))
            is_exact = _is(scale, each)
            multiplier = ops.where(is_exact, exact, multiplier)
            shift = ops.where(is_exact, as_int32(0), shift)
    half = ops.right_shift(ops.left_shift(as_int32(1), shift), as_int32(1))
    return ops.right_shift(as_int32(q) * multiplier + half, shift)


def _bounded(scale: Any, beta: float = 1.0) -> Any:
    """Returns a scale whose product with `beta` is at most the largest scale."""
    return ops.minimum(ops.convert_to_tensor(scale, "float32"), np.float32(LARGEST_SCALE / beta))


def _is(scale: Any, power: float) -> Any:
    return ops.convert_to_tensor(scale, "float32") == np.float32(power)


def _interpolated(x: Any, bits: int, most: int) -> Any:
    """Interpolates the sigmoid of magnitudes, whose `bits` last bits lie between two entries."""
    size, entries = ops.abs(x), as_int32(sigmoid_entries().astype("int32"))
    place = ops.minimum(ops.right_shift(size, bits), 254)
    part = ops.bitwise_and(size, 2**bits - 1)
    base, following = (ops.take(entries, place + i, axis=0) for i in (0, 1))
    value = ops.left_shift(base, bits) + part * (following - base)
    return ops.where(ops.right_shift(size, bits) >= 255, as_int32(most), value)


def _looked_up(q: Any, table: np.ndarray) -> Any:
    """Interpolates a table of 513 entries. Source: `LUTLookup` in TFLite's `common.h`."""
    entries, place = as_int32(table), ops.right_shift(q, 7) + 256
    base, following = (ops.take(entries, place + i, axis=0) for i in (0, 1))
    part = ops.bitwise_and(q, 127)
    return base + ops.right_shift((following - base) * part + 64, 7)


@functools.cache
def _exponentials() -> np.ndarray:
    return _table(np.exp, 10.0 / 65535.0, HIGH)


@functools.cache
def _reciprocals() -> np.ndarray:
    return _table(lambda x: 1.0 / (1.0 + x), 1.0 / 65535.0, LOW)


def _table(function: Callable[[Any], Any], scale: float, zero_point: int) -> np.ndarray:
    """Returns the entries of a function, whose errors at the middles between entries are halved.

    Source: `LUTPopulateInt16` in TFLite's `kernels/internal/common.h`, with outputs of 2 / 65535.
    """
    first, last = scale * (LOW - zero_point), scale * (HIGH - zero_point)
    per_step = 65536.0 / ((2.0 / 65535.0) * HIGH - (2.0 / 65535.0) * LOW)
    step = (last - first) / 512
    i = np.arange(512)
    here, there = function(first + i * step), function(first + (i + 1) * step)
    middle = _away(function(first + i * step + step / 2) * per_step)
    entry = _away(here * per_step)
    between = _away((there * per_step + entry) / 2)
    entries = entry - _away((between - middle) / 2)
    entries = np.append(entries, _away(function(last) * per_step))
    return np.clip(entries, LOW, HIGH).astype("int32")


def _away(x: Any) -> Any:
    return np.copysign(np.floor(np.abs(x) + 0.5), x)
