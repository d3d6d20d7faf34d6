"""The integer rules of the reference kernels, one function for each LiteRT operator.

`verify` recomputes with them the tensors inside layers that are written as several operators.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_qat.arithmetic.elementwise import add, subtract
from keras_qat.arithmetic.fixed_point import conv_multiplier
from keras_qat.arithmetic.multiply import multiply
from keras_qat.arithmetic.pooling import average
from keras_qat.arithmetic.requantize import (
    quantize,
    requantize,
    requantize_float64,
    rescale,
)
from keras_qat.layers.core.fused import activation_limits
from keras_qat.litert import Operator, Quantization, Tensor
from keras_qat.litert.format.operators import declaration_of
from keras_qat.scheme import SCHEMES
from keras_qat.verification.windows import Windows, convolve, convolve_back, convolve_channels

_FUSED = {"NONE": "linear", "RELU": "relu", "RELU6": "relu6"}


@dataclasses.dataclass(frozen=True)
class Call:
    """An operator and the values of its operands.

    Attributes:
        operator: The operator.
        values: Value of each operand; None for an absent operand.
        shape: Shape of the output for these values.
    """

    operator: Operator
    values: Sequence[Any]
    shape: tuple[int, ...]

    @property
    def options(self) -> Mapping[str, Any]:
        """Options of the operator."""
        return self.operator.options

    @property
    def output(self) -> Tensor:
        """The output tensor of the operator."""
        return self.operator.outputs[0]

    @property
    def is_quantized(self) -> bool:
        """Whether the output is 8-bit integers with a scale."""
        return self.output.dtype in SCHEMES_BY_TYPE and self.output.quantization is not None

    def grid(self, index: int | None = None) -> tuple[Any, Any]:
        """Returns the scale and the zero point of an operand, or of the output."""
        tensor = self.output if index is None else self.operator.inputs[index]
        assert tensor is not None
        assert tensor.quantization is not None
        return _grid(tensor.quantization)

    def centered(self, index: int) -> Any:
        """Returns the values of an operand minus its zero point; real values unchanged."""
        values, tensor = self.values[index], self.operator.inputs[index]
        if tensor is None or tensor.quantization is None:
            return values
        zero_point = tensor.quantization.zero_point.astype("int32")
        if zero_point.size > 1:  # one for each channel
            shape = [-1 if i == tensor.quantization.axis else 1 for i in range(values.ndim)]
            zero_point = zero_point.reshape(shape)
        return values.astype("int32") - zero_point

    def limits(self) -> tuple[Any, Any]:
        """Returns the least and the greatest integer of the output."""
        fused = _FUSED[self.options.get("fusedActivationFunction", "NONE")]
        return activation_limits(fused, *self.grid(), SCHEMES_BY_TYPE[self.output.dtype])


SCHEMES_BY_TYPE = {scheme.dtype: scheme for scheme in SCHEMES.values()}


def _grid(quantization: Quantization) -> tuple[Any, Any]:
    scale, zero_point = quantization.scale, quantization.zero_point.astype("int32")
    return (scale[0], zero_point[0]) if scale.size == 1 else (scale, zero_point)


def compute(call: Call) -> np.ndarray | None:
    """Computes the output of an operator.

    Args:
        call: The operator and its operands.

    Returns:
        An array of the output's type, or None if there is no rule for the operator.
    """
    rule = RULES.get(call.operator.code)
    if rule is None:
        return None
    result = rule(call)
    return None if result is None else np.asarray(ops.convert_to_numpy(result), call.output.dtype)


def _copied(move: Callable[..., Any], *numbers: int) -> Callable[[Call], Any]:
    """Makes a rule that moves values, with the values of other operands as arguments."""
    return lambda call: move(call, call.values[0], *(call.values[i] for i in numbers))


def _strided(call: Call, x: Any, begin: Any, end: Any, strides: Any) -> Any:
    options, index = call.options, []
    for axis, (first, last, step) in enumerate(zip(begin, end, strides, strict=True)):
        low = None if options["beginMask"] >> axis & 1 else int(first)
        high = None if options["endMask"] >> axis & 1 else int(last)
        index.append(slice(low, high, int(step)))
        if options["shrinkAxisMask"] >> axis & 1:
            index[-1] = int(first)
    return x[tuple(index)]


def _padded(call: Call, x: Any, pads: Any) -> Any:
    value = 0 if call.output.quantization is None else call.grid()[1]
    return np.pad(x, pads, constant_values=value)


def _mirrored(call: Call, x: Any, pads: Any) -> Any:
    return np.pad(x, pads, "reflect" if call.options["mode"] == "REFLECT" else "symmetric")


def _maximum_of_windows(call: Call) -> Any:
    x, options = call.values[0], call.options
    windows = Windows(options, _window(options), x.shape[1:3])
    least = np.iinfo(x.dtype).min if x.dtype.kind in "iu" else -np.inf
    return np.max([part for _, part in windows.gathered(x, least)], axis=0)


def _average_of_windows(call: Call) -> Any:
    x, options = call.values[0], call.options
    windows = Windows(options, _window(options), x.shape[1:3])
    wide = "int64" if x.dtype.kind in "iu" else "float64"
    total = sum(part for _, part in windows.gathered(x.astype(wide)))
    ones = np.ones((1, *x.shape[1:3], 1), wide)
    count = sum(part for _, part in windows.gathered(ones))
    return average(total, count) if call.is_quantized else total / count


def _window(options: Mapping[str, Any]) -> tuple[int, int]:
    return options["filterHeight"], options["filterWidth"]


def _binary(real: Callable[[Any, Any], Any], integer: Callable[..., Any] | None = None) -> Any:
    """Makes a rule of two operands: plain numbers, or 8-bit integers with scales."""

    def rule(call: Call) -> Any:
        a, b = call.values
        if call.is_quantized and integer is not None:
            sides = a.astype("int32"), *call.grid(0), b.astype("int32"), *call.grid(1)
            return integer(*sides, *call.grid(), *call.limits())
        with np.errstate(all="ignore"):
            return _activated(call, np.asarray(real(a, b)))

    return rule


def _activated(call: Call, y: np.ndarray) -> np.ndarray:
    """Applies a fused activation to real values."""
    fused = call.options.get("fusedActivationFunction", "NONE")
    if y.dtype.kind != "f" or fused == "NONE":
        return y
    return np.clip(y, 0, 6 if fused == "RELU6" else None)


def _unary(function: Callable[[Any], Any]) -> Callable[[Call], Any]:
    """Makes a rule of one operand for real values."""

    def rule(call: Call) -> Any:
        if call.output.dtype != "float32":
            return None
        with np.errstate(all="ignore"):
            return function(call.values[0])

    return rule


def _reduced(function: Callable[..., Any]) -> Callable[[Call], Any]:
    """Makes a rule that reduces axes of plain numbers."""

    def rule(call: Call) -> Any:
        if call.is_quantized and function is not np.max:
            return None
        x, axes = call.values
        kept = function(x, axis=tuple(np.ravel(axes).tolist()), keepdims=True)
        return kept.reshape(call.shape)

    return rule


def _summed(sums: Callable[[Call], Any], *, dense: bool = False) -> Any:
    """Makes a rule for sums of products, with a bias and an activation.

    Args:
        sums: Function that computes the sums, exactly for integers.
        dense: Whether the kernel requantizes in double precision.
    """

    def rule(call: Call) -> Any:
        declaration = declaration_of(call.operator.code)
        data, weights, last = map(declaration.place, ("data", "weights", "bias"))
        bias = None if last is None or last >= len(call.values) else call.values[last]
        total = sums(call)
        total = total if bias is None else total + bias
        if not call.is_quantized:
            return _activated(call, total)
        total = np.asarray(total, "int64").astype("int32")
        scales = call.grid(data)[0], call.grid(weights)[0], call.grid()[0]
        after = call.grid()[1], *call.limits()
        if dense:
            return requantize_float64(total, *scales, *after)
        return requantize(total, *conv_multiplier(*scales), *after)

    return rule


def _dense_sums(call: Call) -> Any:
    x, weights = call.centered(0), call.centered(1)
    x = x if call.options["keepNumDims"] else x.reshape(-1, weights.shape[1])
    return x.astype("float64") @ weights.astype("float64").T


def _products(call: Call) -> Any:
    """Computes a BATCH_MATMUL. With an int32 output its kernels ignore zero points and scales."""
    a, b = (x.astype("float64") for x in call.values)
    a = a.swapaxes(-1, -2) if call.options["adjX"] else a
    b = b.swapaxes(-1, -2) if call.options["adjY"] else b
    return None if call.is_quantized else a @ b


def _quantized(call: Call) -> Any:
    x, limits = call.values[0], call.limits()
    if x.dtype.kind == "f":
        return quantize(x, *call.grid(), *limits)
    return rescale(x.astype("int32"), *call.grid(0), *call.grid(), *limits)


def _dequantized(call: Call) -> Any:
    return call.centered(0).astype("float32") * call.grid(0)[0]


def _gelu(call: Call) -> Any:
    is_float = call.output.dtype == "float32"
    return ops.gelu(call.values[0], call.options["approximate"]) if is_float else None


def _leaky(call: Call) -> Any:
    x = call.values[0]
    return None if call.is_quantized else np.where(x < 0, x * call.options["alpha"], x)


RULES: Mapping[str, Callable[[Call], Any]] = {
    # Operators that move values.
    "CONCATENATION": lambda call: np.concatenate(call.values, axis=call.options["axis"]),
    "GATHER": lambda call: np.take(*call.values, axis=call.options["axis"]),
    "MIRROR_PAD": _copied(_mirrored, 1),
    "PACK": lambda call: np.stack(call.values, axis=call.options["axis"]),
    "PAD": _copied(_padded, 1),
    "PADV2": lambda call: np.pad(
        call.values[0], call.values[1], constant_values=call.values[2].item()
    ),
    "RESHAPE": lambda call: call.values[0].reshape(call.shape),
    "SHAPE": lambda call: np.array(call.values[0].shape),
    "STRIDED_SLICE": _copied(_strided, 1, 2, 3),
    "TRANSPOSE": lambda call: np.transpose(*call.values),
    # Types.
    "CAST": lambda call: call.values[0],
    "DEQUANTIZE": _dequantized,
    "QUANTIZE": _quantized,
    # Operators of two operands.
    "ADD": _binary(np.add, add),
    "ATAN2": _binary(np.arctan2),
    "DIV": _binary(np.divide),
    "EQUAL": _binary(np.equal),
    "FLOOR_DIV": _binary(np.floor_divide),
    "GREATER": _binary(np.greater),
    "GREATER_EQUAL": _binary(np.greater_equal),
    "LESS": _binary(np.less),
    "MAXIMUM": _binary(np.maximum),
    "MINIMUM": _binary(np.minimum),
    "MUL": _binary(np.multiply, multiply),
    "POW": _binary(np.power),
    "SQUARED_DIFFERENCE": _binary(lambda a, b: np.square(a - b)),
    "SUB": _binary(np.subtract, subtract),
    # Sums of products.
    "BATCH_MATMUL": _products,
    "CONV_2D": _summed(lambda call: convolve(call.centered(0), call.centered(1), call.options)),
    "DEPTHWISE_CONV_2D": _summed(
        lambda call: convolve_channels(call.centered(0), call.centered(1), call.options)
    ),
    "FULLY_CONNECTED": _summed(_dense_sums, dense=True),
    "TRANSPOSE_CONV": _summed(
        lambda call: convolve_back(call.centered(2), call.centered(1), call.options, call.shape)
    ),
    # Windows and axes.
    "AVERAGE_POOL_2D": _average_of_windows,
    "MAX_POOL_2D": _maximum_of_windows,
    "MEAN": _reduced(np.mean),
    "REDUCE_MAX": _reduced(np.max),
    "SUM": _reduced(np.sum),
    # Functions of real values.
    "ABS": _unary(np.abs),
    "COS": _unary(np.cos),
    "EXP": _unary(np.exp),
    "FLOOR": _unary(np.floor),
    "GELU": _gelu,
    "LEAKY_RELU": _leaky,
    "LOG": _unary(np.log),
    "LOGISTIC": _unary(ops.sigmoid),
    "NEG": _unary(np.negative),
    "RELU": _unary(ops.relu),
    "RELU6": _unary(ops.relu6),
    "RELU_N1_TO_1": _unary(lambda x: np.clip(x, -1, 1)),
    "RSQRT": _unary(lambda x: 1 / np.sqrt(x)),
    "SIGN": _unary(np.sign),
    "SIN": _unary(np.sin),
    "SQRT": _unary(np.sqrt),
    "SQUARE": _unary(np.square),
    "TANH": _unary(np.tanh),
}
