"""The forms of each activation, as functions that add their operators to a chain."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from activation_chains import SHAPE, SX, ZX, binary, lookup, lookups, one, output, scalar
from runtime_choices import constant, grid


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def swish(x):
    return x * sigmoid(x)


def hard_sigmoid(x):
    return np.clip(x / 6 + 0.5, 0, 1)


def hard_swish(x):
    return x * hard_sigmoid(x)


def erf_gelu(x):
    return np.array([v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x])


def tanh_gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def elu(x):
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def elu_of(alpha, scale=1.0):
    return lambda x: scale * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def celu(alpha):
    return lambda x: alpha * elu(x / alpha)


def leaky_relu(x):
    return np.where(x > 0, x, 0.2 * x)


def softplus(x):
    return np.log1p(np.exp(x))


def mish(x):
    return x * np.tanh(softplus(x))


SELU = 1.6732632423543772, 1.0507009873554805


ONE = grid(1 / 255, -128)
LOGISTIC = grid(1 / 256, -128)
TANH = grid(1 / 128, 0)
SIX = grid(6 / 254, -128)
RELU = grid(6 / 255, -128)


def logistic_product(chain):
    """Computes swish: x times its sigmoid."""
    x = chain.y
    y = chain.add("LOGISTIC", SHAPE, LOGISTIC, version=2).y
    return binary(chain, "MUL", x, y, output(swish))


def shifted(chain):
    """Computes `relu6(x + 3)`."""
    return binary(chain, "ADD", chain.y, scalar("three", 3.0), SIX, "RELU6")


def hard_sigmoid_relu6(chain):
    return binary(shifted(chain), "MUL", chain.y, scalar("sixth", 1 / 6), output(hard_sigmoid))


def hard_sigmoid_saturating(chain):
    """Computes `x / 6 + 0.5`. The output saturates at 0 and 1."""
    sixth = grid(SX / 6, ZX)
    binary(chain, "MUL", chain.y, scalar("sixth", 1 / 6), sixth)
    return binary(chain, "ADD", chain.y, scalar("half", 0.5), ONE)


def hard_sigmoid_depthwise(chain):
    """Computes one depthwise convolution. Its output saturates at 0 and 1."""
    kernel = constant("sixths", np.full((1, 1, 1, 64), 127, "int8"), grid(1 / 6 / 127))
    bias = np.full(64, round(0.5 / (SX / 6 / 127)), "int32")
    fields = {"padding": "VALID", "strideH": 1, "strideW": 1, "depthMultiplier": 1}
    fields |= {"dilationHFactor": 1, "dilationWFactor": 1}
    return chain.add(
        "DEPTHWISE_CONV_2D",
        SHAPE,
        ONE,
        version=3,
        options=fields,
        operands=(..., kernel, constant("halves", bias, grid(SX / 6 / 127))),
    )


def times(gate, product=hard_swish):
    """Multiplies x by a gate of x.

    Args:
        gate: A function that adds the operators of the gate.
        product: The function that the product computes, for the range of the output.
    """

    def write(chain):
        x = chain.y
        y = gate(chain).y
        return binary(chain, "MUL", x, y, output(product))

    return write


def hard_swish_late(chain):
    """Multiplies by a sixth at the end."""
    times(shifted, lambda x: 6 * hard_swish(x))(chain)
    return binary(chain, "MUL", chain.y, scalar("sixth", 1 / 6), output(hard_swish))


def scaled_elu(slope, scale=1.0):
    """Computes `scale * elu(x, alpha=slope)`: ELU, a slope for its negative part, and a factor."""

    def write(chain):
        chain.add("ELU", SHAPE, output(elu))
        options, out = {"alpha": slope}, output(elu_of(slope))
        chain.add("LEAKY_RELU", SHAPE, out, version=2, options=options)
        if scale == 1.0:
            return chain
        return binary(chain, "MUL", chain.y, scalar("factor", scale), output(elu_of(slope, scale)))

    return write


def celu_products(alpha):
    """Computes `alpha * elu(x / alpha)`. Both products only change the scale."""

    def write(chain):
        binary(chain, "MUL", chain.y, scalar("inverse", 1 / alpha), grid(SX / alpha, ZX))
        narrow = output(lambda x: elu(x / alpha))
        chain.add("ELU", SHAPE, narrow)
        out = grid(alpha * narrow.scale[0], int(narrow.zero_point[0]))
        return binary(chain, "MUL", chain.y, scalar("alpha", alpha), out)

    return write


def prelu(chain):
    slope = constant("slope", np.full((1, 1, 1, 1), 127, "int8"), grid(0.2 / 127))
    return chain.add("PRELU", SHAPE, output(leaky_relu), operands=(..., slope))


def relu6_limits(chain):
    """Computes MAXIMUM and MINIMUM. The outputs have the quantization parameters of the input."""
    return extreme("MINIMUM", 4.0)(extreme("MAXIMUM", 0.0)(chain))


def plus_zero(fused):
    """Adds zero, with a fused activation."""
    zero = constant("zero", np.array(0, "int8"), grid(SX))
    return lambda chain: binary(chain, "ADD", chain.y, zero, RELU, fused)


def times_one(fused):
    """Multiplies by one, with a fused activation."""
    return lambda chain: binary(chain, "MUL", chain.y, scalar("one", 1.0), RELU, fused)


def extreme(code, value):
    """Computes the maximum or minimum of x and a value."""

    def write(chain):
        limit = constant(f"{code} limit", np.array(round(value / SX) + ZX, "int8"), grid(SX, ZX))
        return chain.add(
            code,
            SHAPE,
            grid(SX, ZX),
            version=2,
            options={},
            operands=(..., limit),
        )

    return write


FORMS: dict[str, dict[str, Callable]] = {
    "none": {"the convolution alone": lambda chain: chain},
    "swish": {"LOGISTIC, MUL": logistic_product, **lookups(swish)},
    "tanh": {"TANH": one("TANH", TANH, 2), "CAST, ADD, GATHER": lookup(np.tanh)},
    "leaky_relu": {
        "LEAKY_RELU": one("LEAKY_RELU", output(leaky_relu), 2, {"alpha": 0.2}),
        "PRELU": prelu,
    },
    "gelu": {
        "GELU": one("GELU", output(erf_gelu), 2, {"approximate": False}),
        "GELU of tanh": one("GELU", output(tanh_gelu), 2, {"approximate": True}),
    },
    "elu": {"ELU": one("ELU", output(elu)), "CAST, ADD, GATHER": lookup(elu)},
    "elu, alpha 0.5": {
        "ELU, LEAKY_RELU": scaled_elu(0.5),
        "CAST, ADD, GATHER": lookup(elu_of(0.5)),
    },
    "selu": {
        "ELU, LEAKY_RELU, MUL": scaled_elu(*SELU),
        "CAST, ADD, GATHER": lookup(elu_of(*SELU)),
    },
    "celu, alpha 2": {
        "MUL, ELU, MUL": celu_products(2.0),
        "CAST, ADD, GATHER": lookup(celu(2.0)),
    },
    "exp": {"EXP": one("EXP", output(np.exp), 2)},
    "hard_sigmoid": {
        "ADD with RELU6, MUL": hard_sigmoid_relu6,
        "MUL, ADD that saturates": hard_sigmoid_saturating,
        "DEPTHWISE_CONV_2D that saturates": hard_sigmoid_depthwise,
    },
    "hard_swish": {
        "HARD_SWISH": one("HARD_SWISH", output(hard_swish)),
        "ADD with RELU6, MUL, MUL": hard_swish_late,
        "ADD with RELU6, MUL (a sixth elsewhere)": times(shifted, lambda x: 6 * hard_swish(x)),
        "ADD with RELU6, MUL of a sixth, MUL": times(hard_sigmoid_relu6),
        "MUL, ADD that saturates, MUL": times(hard_sigmoid_saturating),
        "DEPTHWISE_CONV_2D that saturates, MUL": times(hard_sigmoid_depthwise),
    },
    "relu": {
        "RELU": one("RELU", RELU, 2),
        "MAXIMUM": extreme("MAXIMUM", 0.0),
        "ADD of zero with RELU": plus_zero("RELU"),
        "MUL by one with RELU": times_one("RELU"),
    },
    "relu6": {
        "RELU6": one("RELU6", RELU, 2),
        "MAXIMUM, MINIMUM": relu6_limits,
        "ADD of zero with RELU6": plus_zero("RELU6"),
        "MUL by one with RELU6": times_one("RELU6"),
    },
}
