"""Oracles of the arithmetic: LiteRT's reference kernels, and Python's integers."""

import fractions

import numpy as np

from keras_qat.litert import Model, Operator, Quantization, Runner, Tensor, to_bytes

INT8 = (-128, 127)


def activation(array, scale, zero_point):
    """Returns an input of a one-operator model and its values."""
    tensor = Tensor(f"x{id(array)}", array.shape, array.dtype.name, per_tensor(scale, zero_point))
    return tensor, array


def constant(name, array, scale=None, axis=0):
    """Returns a constant operand. It is symmetric if it has a scale."""
    if scale is None:
        return Tensor(name, array.shape, array.dtype.name, None, array), None
    scale = np.atleast_1d(np.float32(scale))
    quantization = Quantization(scale, np.zeros(len(scale), "int64"), axis)
    return Tensor(name, array.shape, array.dtype.name, quantization, array), None


def per_tensor(scale, zero_point):
    return Quantization(np.array([scale], "float32"), np.array([zero_point], "int64"))


def reference(code, operands, shape, scale, zero_point, version=1, **options):
    """Returns the output of one operator in LiteRT's reference kernels as int32.

    The output tensor is uint8 if the input is uint8, else int8.
    """
    tensors = tuple(tensor for tensor, _ in operands)
    dtype = "uint8" if tensors[0].dtype == "uint8" else "int8"
    output = Tensor("y", shape, dtype, per_tensor(scale, zero_point))
    inputs = [(tensor, array) for tensor, array in operands if array is not None]
    operator = Operator(code, tensors, (output,), version, options)
    model = Model({tensor.name: tensor for tensor, _ in inputs}, {"y": output}, (operator,))
    runner = Runner(to_bytes(model), kernels="reference")
    return runner.run([array for _, array in inputs])[0].astype("int32")


def int8s(rng, shape):
    return rng.integers(-128, 128, shape, "int8")


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
