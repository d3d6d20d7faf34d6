"""Small models with hand-computed outputs."""

import numpy as np
import pytest

from keras_qat.litert import Model, Operator, Quantization, Tensor

CONV_OPTIONS = {"padding": "VALID", "strideH": 1, "strideW": 1, "fusedActivationFunction": "NONE"}


def per_tensor(scale, zero_point):
    return Quantization(np.array([scale], np.float32), np.array([zero_point], np.int64))


def build_conv(batch=None):
    """Makes a 2x2 VALID convolution of two channels with multipliers 0.5*0.5/1 and 0.5*0.25/1."""
    weights = np.array([[[1, 2], [-1, 3]], [[-1, 1], [0, -4]]], np.int8)[..., None]
    scales = np.array([0.5, 0.25], np.float32)
    zeros = np.array([0, 0], np.int64)
    x = Tensor("x", (batch, 2, 2, 1), "int8", per_tensor(0.5, -1))
    w = Tensor("w", (2, 2, 2, 1), "int8", Quantization(scales, zeros), weights)
    bias = Quantization(np.array([0.25, 0.125], np.float32), zeros)
    b = Tensor("b", (2,), "int32", bias, np.array([4, -2], np.int32))
    y = Tensor("y", (batch, 1, 1, 2), "int8", per_tensor(1.0, 3))
    conv = Operator("CONV_2D", (x, w, b), (y,), 3, CONV_OPTIONS)
    return Model({"image": x}, {"logits": y}, (conv,))


# x + 1 is [2, 4, 6, 8], zeros, 128s. Accumulators with bias: 28+4, -30-2; 4, -2; 640+4, -512-2.
# Times 1/4 and 1/8, plus 3: 11, -1; 4, 2.75 -> 3; 164 -> 127, -61.25 -> -61.
CONV_INPUT = np.array([[1, 3, 5, 7], [-1] * 4, [127] * 4], np.int8).reshape(3, 2, 2, 1)
CONV_OUTPUT = np.array([[11, -1], [4, 3], [127, -61]], np.int8).reshape(3, 1, 1, 2)


def build_network(seed=0):
    """Makes QUANTIZE, PAD, CONV_2D, ADD, MAX_POOL_2D, RESHAPE, DEQUANTIZE with random weights."""
    rng = np.random.default_rng(seed)
    q = per_tensor(0.05, -4)
    ones, zeros = np.array(rng.uniform(0.01, 0.02, 4), np.float32), np.zeros(4, np.int64)
    kernel = rng.integers(-127, 128, (4, 3, 3, 4), np.int8)
    x = Tensor("x", (None, 8, 8, 4), "float32")
    xq = Tensor("x_int8", (None, 8, 8, 4), "int8", q)
    pads = Tensor(
        "pads", (4, 2), "int32", data=np.array([[0, 0], [1, 1], [1, 1], [0, 0]], np.int32)
    )
    padded = Tensor("padded", (None, 10, 10, 4), "int8", q)
    w = Tensor("w", (4, 3, 3, 4), "int8", Quantization(ones, zeros), kernel)
    b = Tensor(
        "b",
        (4,),
        "int32",
        Quantization(ones * np.float32(0.05), zeros),
        np.array([9] * 4, np.int32),
    )
    conv = Tensor("conv", (None, 8, 8, 4), "int8", per_tensor(0.3, 5))
    added = Tensor("added", (None, 8, 8, 4), "int8", per_tensor(0.31, 2))
    pooled = Tensor("pooled", (None, 4, 4, 4), "int8", per_tensor(0.31, 2))
    shape = Tensor("shape", (2,), "int32", data=np.array([-1, 64], np.int32))
    flat = Tensor("flat", (None, 64), "int8", per_tensor(0.31, 2))
    y = Tensor("y", (None, 64), "float32")
    pool = {"filterHeight": 2, "filterWidth": 2, "strideH": 2, "strideW": 2, "padding": "VALID"}
    operators = (
        Operator("QUANTIZE", (x,), (xq,), 1),
        Operator("PAD", (xq, pads), (padded,), 2),
        Operator("CONV_2D", (padded, w, b), (conv,), 3, CONV_OPTIONS),
        Operator("ADD", (conv, xq), (added,), 2),
        Operator("MAX_POOL_2D", (added,), (pooled,), 2, pool),
        Operator("RESHAPE", (pooled, shape), (flat,), 1),
        Operator("DEQUANTIZE", (flat,), (y,), 2),
    )
    return Model({"x": x}, {"y": y}, operators)


@pytest.fixture
def conv_model():
    return build_conv()


@pytest.fixture
def fixed_conv_model():
    return build_conv(batch=1)


@pytest.fixture
def network():
    return build_network()


@pytest.fixture
def conv_case():
    return CONV_INPUT, CONV_OUTPUT
