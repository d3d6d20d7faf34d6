"""Oracles of the arithmetic: LiteRT's kernels, and Python's integers."""

import fractions
import platform

import numpy as np
import pytest

from keras_qat.litert import Model, Operator, Quantization, Runner, Tensor, to_bytes
from tests.delegates import undelegated

INT8 = (-128, 127)
# The rules of uint8, and of some operators of int8, are others on ARM64.
on_x86 = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="These are the kernels of x86-64."
)


def activation(array, scale, zero_point):
    """Returns an input of a one-operator model and its values."""
    tensor = Tensor(f"x{id(array)}", array.shape, array.dtype.name, per_tensor(scale, zero_point))
    return tensor, array


def constant(name, array, scale=None, axis=0, zero_point=0):
    """Returns a constant operand. It is quantized if it has a scale."""
    if scale is None:
        return Tensor(name, array.shape, array.dtype.name, None, array), None
    scale = np.atleast_1d(np.float32(scale))
    quantization = Quantization(scale, np.full(len(scale), zero_point, "int64"), axis)
    return Tensor(name, array.shape, array.dtype.name, quantization, array), None


def per_tensor(scale, zero_point):
    return Quantization(np.array([scale], "float32"), np.array([zero_point], "int64"))


def reference(code, operands, shape, scale, zero_point, version=1, **options):
    """Returns the output of one operator in LiteRT's reference kernels as int32.

    The output tensor is uint8 if the input is uint8, else int8.
    """
    content = one_operator(code, operands, shape, scale, zero_point, version, **options)
    return _output(content, operands, "reference")


def xnnpack(code, operands, shape, scale, zero_point, version=1, **options):
    """Returns the output of one operator in XNNPACK, to which LiteRT must delegate it."""
    content = one_operator(code, operands, shape, scale, zero_point, version, **options)
    assert undelegated(content) == ([], 1)
    return _output(content, operands, "default")


def optimized(code, operands, shape, scale, zero_point, version=1, **options):
    """Returns the output of one operator in LiteRT's optimized kernels, not in XNNPACK."""
    content = one_operator(code, operands, shape, scale, zero_point, version, **options)
    assert undelegated(content) == ([("y", code)], 0)
    return _output(content, operands, "default")


def one_operator(code, operands, shape, scale, zero_point, version=1, *, dtype=None, **options):
    """Returns a file of one operator. The output is uint8 if the input is, unless `dtype` is given.

    Args:
        code: The operator.
        operands: Each operand's tensor, and the array that runs give it. A constant has no array.
        shape: Shape of the output.
        scale: Scale of the output.
        zero_point: Zero point of the output.
        version: Version of the operator.
        dtype: Type of the output.
        **options: Options of the operator.
    """
    tensors = tuple(tensor for tensor, _ in operands)
    dtype = dtype or ("uint8" if tensors[0].dtype == "uint8" else "int8")
    output = Tensor("y", shape, dtype, per_tensor(scale, zero_point))
    inputs = {tensor.name: tensor for tensor, array in operands if array is not None}
    operator = Operator(code, tensors, (output,), version, options)
    return to_bytes(Model(inputs, {"y": output}, (operator,)))


def _output(content, operands, kernels):
    arrays = [array for _, array in operands if array is not None]
    return Runner(content, kernels=kernels).run(arrays)[0].astype("int32")


def int8s(rng, shape):
    return rng.integers(-128, 128, shape, "int8")


def integers(rng, dtype, shape):
    """Draws integers of a whole type."""
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max + 1, shape, dtype)


def scales(rng, size, low=-9, high=4):
    """Draws float32 scales, log-uniform between two powers of two."""
    return np.exp2(rng.uniform(low, high, size)).astype("float32")


def round_half_away(x):
    """Rounds a Fraction or float exactly."""
    x = fractions.Fraction(x)
    size = int(abs(x) + fractions.Fraction(1, 2))
    return -size if x < 0 else size


def quantize_multiplier(real):
    """Computes `QuantizeMultiplier` of a float in exact arithmetic."""
    fraction, shift = np.frexp(real)
    multiplier = round_half_away(fractions.Fraction(float(fraction)) * 2**31)
    if multiplier == 2**31:
        multiplier, shift = 2**30, shift + 1
    return (multiplier, int(shift)) if real and shift >= -31 else (0, 0)


def wrap(x):
    return (x + 2**31) % 2**32 - 2**31


def srdhm(a, b):
    return min((a * b + 2**30) >> 31, 2**31 - 1)


def rounding_divide_by_pot(x, n):
    return round_half_away(fractions.Fraction(x, 2**n))


def multiply(x, multiplier, shift):
    """Computes `MultiplyByQuantizedMultiplier` in exact arithmetic."""
    high = srdhm(wrap(x << max(shift, 0)), multiplier)
    return rounding_divide_by_pot(high, max(-shift, 0))
