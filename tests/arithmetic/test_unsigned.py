"""The rules of uint8 kernels with a weight, where a wrong rounding would change most outputs.


All weights are 0.0, so the accumulators are the biases. They are next to a change of the
output, and so large that the last bit of a multiplier matters.
"""

import numpy as np
import pytest

from keras_qat.arithmetic import fixed_point, multiply, requantize
from keras_qat.litert import Model, Operator, Runner, Tensor, to_bytes
from tests.arithmetic.oracle import constant, per_tensor

CHANNELS, ZERO, ZERO_WEIGHT = 256, 7, 100
WINDOW = {"padding": "VALID", "strideH": 1, "strideW": 1}
DILATION = {"dilationHFactor": 1, "dilationWFactor": 1}
ROW, IMAGE = (1, 4), (1, 1, 1, 4)
WIDE = (1, 1, 1, CHANNELS)
OPERATORS = {
    "FULLY_CONNECTED": (ROW, (CHANNELS, 4), {"keepNumDims": False}),
    "CONV_2D": (IMAGE, (CHANNELS, 1, 1, 4), {**WINDOW, **DILATION}),
    "DEPTHWISE_CONV_2D": (
        WIDE,
        WIDE,
        {**WINDOW, **DILATION, "depthMultiplier": 1},
    ),
    "TRANSPOSE_CONV": (IMAGE, (CHANNELS, 1, 1, 4), WINDOW),
}


def run(code, scales, biases):
    shape, weight_shape, options = OPERATORS[code]
    input_scale, weight_scale, output_scale = scales
    x = Tensor("x", shape, "uint8", per_tensor(input_scale, ZERO))
    values = np.full(weight_shape, ZERO_WEIGHT, "uint8")
    w = Tensor("w", weight_shape, "uint8", per_tensor(weight_scale, ZERO_WEIGHT), values)
    b = Tensor("b", biases.shape, "int32", per_tensor(input_scale * weight_scale, 0), biases)
    y_shape = (1, CHANNELS) if code == "FULLY_CONNECTED" else WIDE
    y = Tensor("y", y_shape, "uint8", per_tensor(output_scale, 0))
    operands = (x, w, b)
    if code == "TRANSPOSE_CONV":
        operands = (constant("shape", np.array(WIDE, "int32"))[0], w, x, b)
    operator = Operator(code, operands, (y,), 4, options)
    runner = Runner(to_bytes(Model({"x": x}, {"y": y}, (operator,))), kernels="reference")
    return runner.run([np.full(shape, ZERO, "uint8")])[0].ravel().astype("int32")


def next_to_ties(scales, rng):
    """Returns accumulators within a few units of half a step, for both ways to multiply scales."""
    a, b, c = (np.float64(scale) for scale in scales)
    ties = rng.integers(20, 250, CHANNELS) + 0.5
    exact, rounded = ties / (a * b / c), ties / (np.float64(scales[0] * scales[1]) / c)
    return np.round((exact + rounded) / 2 + rng.integers(-2, 3, CHANNELS)).astype("int32")


def drawn(seed):
    rng = np.random.default_rng(seed)
    input_scale, weight_scale = np.exp2(rng.uniform(-8, 0, 2)).astype("float32")
    ratio = np.exp2(rng.uniform(-22, -20))
    output_scale = np.float32(np.float64(input_scale) * np.float64(weight_scale) / ratio)
    return rng, (input_scale, weight_scale, output_scale)


@pytest.mark.parametrize("code", ["CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"])
def test_uint8_convolutions_round_the_product_of_the_scales(code):
    others = 0
    for seed in range(20):
        rng, scales = drawn(seed)
        biases = next_to_ties(scales, rng)
        expected = run(code, scales, biases)
        multiplier = multiply.product_multiplier(*scales)
        np.testing.assert_array_equal(
            requantize.requantize(biases, *multiplier, 0, 0, 255), expected
        )
        multiplier = fixed_point.conv_multiplier(*scales)
        others += np.sum(
            np.asarray(requantize.requantize(biases, *multiplier, 0, 0, 255)) != expected
        )
    assert others > 1000  # the rule of int8 gives other results


def test_uint8_fully_connected_multiplies_scales_in_double():
    for seed in range(20):
        rng, scales = drawn(seed)
        biases = next_to_ties(scales, rng)
        actual = requantize.requantize_float64(biases, *scales, 0, 0, 255)
        np.testing.assert_array_equal(actual, run("FULLY_CONNECTED", scales, biases))
