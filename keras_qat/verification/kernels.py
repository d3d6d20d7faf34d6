"""The rules of kernels, by the names that operators.toml has for them.

`verify` recomputes with them the tensors inside layers that are written as several operators.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from keras import ops

from keras_qat.arithmetic.lstm import LstmWeights, lstm
from keras_qat.arithmetic.pooling import average
from keras_qat.backend import float64
from keras_qat.litert import Tensor
from keras_qat.scheme import get_scheme
from keras_qat.verification.call import Call
from keras_qat.verification.moves import MOVES
from keras_qat.verification.windows import Windows, convolve, convolve_back, convolve_channels

Rule = Callable[[Call], Any]


def compute(call: Call) -> np.ndarray | None:
    """Computes the output of an operator.

    Args:
        call: The operator and its operands.

    Returns:
        An array of the output's type, or None if there is no rule for the operator.
    """
    kind, _, name = call.declaration.computes.partition(" ")
    if not kind:
        return None
    result = KINDS[kind](call, name)
    return None if result is None else np.asarray(ops.convert_to_numpy(result), call.output.dtype)


def function_named(name: str) -> Callable[..., Any]:
    """Returns a function of real values: one of `FUNCTIONS`, of numpy or of `keras.ops`."""
    return FUNCTIONS.get(name) or getattr(np, name, None) or getattr(ops, name)


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "clip_to_one": lambda x: np.clip(x, -1, 1),
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "squared_difference": lambda a, b: np.square(a - b),
}


def _function(call: Call, name: str) -> Any:
    """Computes a function of one operand, of real values only."""
    if call.output.dtype != "float32":
        return None
    with np.errstate(all="ignore"):
        return function_named(name)(call.value("data"))


def _binary(call: Call, name: str) -> Any:
    """Computes an operator of two operands: plain numbers, or 8-bit integers with scales."""
    if call.is_quantized and call.rule is not None:
        pairs = zip(call.values, call.grids(), strict=True)
        operands = [each for x, grid in pairs for each in (x.astype("int32"), *grid)]
        return call.rule(*operands, *call.grid(), *call.limits())
    with np.errstate(all="ignore"):
        return _activated(call, np.asarray(function_named(name)(*call.values)))


def _activated(call: Call, y: np.ndarray) -> np.ndarray:
    """Applies a fused activation to real values."""
    fused = call.options.get("fusedActivationFunction", "NONE")
    if y.dtype.kind != "f" or fused == "NONE":
        return y
    return np.clip(y, 0, 6 if fused == "RELU6" else None)


def _gelu(call: Call, name: str) -> Any:
    del name
    is_float = call.output.dtype == "float32"
    return ops.gelu(call.value("data"), call.options["approximate"]) if is_float else None


def _leaky(call: Call, name: str) -> Any:
    del name
    x = call.value("data")
    return None if call.is_quantized else np.where(x < 0, x * call.options["alpha"], x)


def _reduced(call: Call, name: str) -> Any:
    """Reduces axes of plain numbers. Of 8-bit integers only a maximum is the same."""
    if call.is_quantized and name != "max":
        return None
    axes = tuple(np.ravel(call.value("axes")).tolist())
    return getattr(np, name)(call.value("data"), axis=axes, keepdims=True).reshape(call.shape)


def _position(call: Call, name: str) -> Any:
    """Finds the first of the largest or smallest values of an axis."""
    return getattr(np, name)(call.value("data"), axis=int(call.value("axis")))


def _largest(call: Call, name: str) -> Any:
    """Finds the largest values of the last axis, or their positions."""
    del name
    x, count = call.value("data"), int(call.value("count"))
    order = np.argsort(-x.astype("float64"), axis=-1, kind="stable")[..., :count]
    return order if call.place else np.take_along_axis(x, order, axis=-1)


def _pooled(call: Call, name: str) -> Any:
    """Computes the maximum or the average of windows."""
    x, options = call.value("data"), call.options
    windows = Windows(options, (options["filterHeight"], options["filterWidth"]), x.shape[1:3])
    is_integer = x.dtype.kind in "iu"
    if name == "max":
        least = np.iinfo(x.dtype).min if is_integer else -np.inf
        return np.max([part for _, part in windows.gathered(x, least)], axis=0)
    wide = "int64" if is_integer else "float64"
    total = sum(part for _, part in windows.gathered(x.astype(wide)))
    ones = np.ones((1, *x.shape[1:3], 1), wide)
    count = sum(part for _, part in windows.gathered(ones))
    return average(total, count) if call.is_quantized else total / count


def _summed(call: Call, name: str) -> Any:
    """Computes sums of products, exactly for integers, with a bias and an activation."""
    total, bias = SUMS[name](call), call.value("bias")
    total = total if bias is None else total + bias
    if not call.is_quantized:
        return _activated(call, total)
    is_wide = call.output.dtype == "int16"
    total = np.asarray(total, "int64").astype("int64" if is_wide else "int32")
    scales = call.grid("data")[0], call.grid("weights")[0], call.grid()[0]
    after = call.grid()[1], *call.limits()
    assert call.rule is not None, "operators.toml has the rule"
    with float64():
        return ops.convert_to_numpy(call.rule(total, *scales, *after))


def _dense_sums(call: Call) -> Any:
    x, weights = call.centered("data"), call.centered("weights")
    x = x if call.options["keepNumDims"] else x.reshape(-1, weights.shape[1])
    return x.astype("float64") @ weights.astype("float64").T


def _window_sums(sums: Callable[..., Any]) -> Rule:
    return lambda call: sums(call.centered("data"), call.centered("weights"), call.options)


SUMS: Mapping[str, Rule] = {
    "convolve": _window_sums(convolve),
    "convolve_back": lambda call: convolve_back(
        call.centered("data"), call.centered("weights"), call.options, call.shape
    ),
    "convolve_channels": _window_sums(convolve_channels),
    "dense": _dense_sums,
}


def _products(call: Call, name: str) -> Any:
    """Computes a BATCH_MATMUL. With an int32 output its kernels ignore zero points and scales."""
    del name
    a, b = (x.astype("float64") for x in call.values)
    a = a.swapaxes(-1, -2) if call.options["adjX"] else a
    b = b.swapaxes(-1, -2) if call.options["adjY"] else b
    return None if call.is_quantized else a @ b


def _recurrent(call: Call, name: str) -> Any:
    """Computes an LSTM of 8-bit integers, from states of zero."""
    del name
    if not call.is_quantized:
        return None
    inputs, values, units = call.operator.inputs, call.values, call.shape[-1]

    def stacked(first: int) -> tuple[Any, Any]:
        """Returns the integers and the scales of the kernels of the gates."""
        gates = range(first, first + 4)
        scales = np.array([_scale(inputs[i]) for i in gates], "float32")
        kernels = np.concatenate([values[i] for i in gates])
        return kernels.astype("float32").T, np.repeat(scales, units)

    bias = np.concatenate(values[12:16])
    weights = LstmWeights(*stacked(1), *stacked(5), bias)
    exponent = np.int32(np.log2(_scale(inputs[19])))
    x, scale = call.centered().astype("float32"), call.grid("data")[0]
    options = {"kernel": call.rule, "largest_product": get_scheme("int8").largest_product}
    return lstm(x, weights, scale, exponent, *call.grid(), **options) + call.grid()[1]


def _scale(tensor: Tensor | None) -> np.float32:
    assert tensor is not None and tensor.quantization is not None
    return tensor.quantization.scale[0]


def _quantized(call: Call, name: str) -> Any:
    del name
    x, limits = call.value("data"), call.limits()
    assert call.rule is not None, "operators.toml has the rule"
    if x.dtype.kind == "f":
        return call.rule(x, *call.grid(), *limits)
    return call.rule(x.astype("int32"), *call.grid("data"), *call.grid(), *limits)


def _dequantized(call: Call, name: str) -> Any:
    del name
    return call.centered().astype("float32") * call.grid("data")[0]


# The second word of the entry in the table is an argument.
KINDS: Mapping[str, Callable[[Call, str], Any]] = {
    "binary": _binary,
    "dequantize": _dequantized,
    "function": _function,
    "gelu": _gelu,
    "largest": _largest,
    "leaky": _leaky,
    "matmul": _products,
    "move": lambda call, name: MOVES[name](call),
    "pool": _pooled,
    "position": _position,
    "quantize": _quantized,
    "recurrent": _recurrent,
    "reduce": _reduced,
    "sums": _summed,
}
