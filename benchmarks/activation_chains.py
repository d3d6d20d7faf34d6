"""Parts of the models that activation_forms.py measures: a convolution, operators and lookups."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from runtime_choices import Chain, constant, grid

SHAPE = (56, 56, 64)
SX, ZX = 12 / 255, 0  # scale of the convolution's output, about -6 to 6
REAL = SX * (np.arange(-128, 128) - ZX)


def convolution() -> Chain:
    """Makes the convolution. Its output has 256 values."""
    rng = np.random.default_rng(0)
    scale = 0.02
    kernel = rng.integers(-127, 128, (64, 1, 1, 64)).astype("int8")
    fields = {"padding": "VALID", "strideH": 1, "strideW": 1, "dilationHFactor": 1}
    fields |= {"dilationWFactor": 1}
    operands = (
        ...,
        constant("kernel", kernel, grid(np.full(64, scale / 127))),
        constant("bias", np.zeros(64, "int32"), grid(np.full(64, 0.05 * scale / 127))),
    )
    options = fields
    return Chain(SHAPE, 0.05).add(
        "CONV_2D", SHAPE, grid(SX, ZX), version=3, options=options, operands=operands
    )


def output(function: Callable[[Any], Any]) -> Any:
    """Returns the grid that covers all results of a function."""
    y = function(REAL)
    low, high = min(y.min(), 0.0), max(y.max(), 0.0)
    scale = (high - low) / 255
    return grid(scale, int(-128 - np.rint(low / scale)))


def one(code: str, out: Any, version: int = 1, options: Any = None) -> Callable[[Chain], Chain]:
    """Returns a function that adds one operator with one operand."""
    return lambda chain: chain.add(code, SHAPE, out, version=version, options=options)


def binary(chain: Chain, code: str, a: Any, b: Any, out: Any, fused: str = "NONE") -> Chain:
    """Adds an operator with two operands, and an activation that it fuses."""
    options = {"fusedActivationFunction": fused}
    return chain.add(code, SHAPE, out, version=2, options=options, operands=(a, b))


def scalar(name: str, value: float) -> Any:
    """Makes an int8 constant with one element."""
    return constant(name, np.array(127, "int8"), grid(value / 127))


def table(function: Callable[[Any], Any]) -> np.ndarray:
    """Returns the results of a function for all integers of its input."""
    out = output(function)
    steps = function(REAL) / out.scale[0]
    return np.clip(np.rint(steps) + out.zero_point[0], -128, 127).astype("int8")


def gathered(chain: Chain, function: Callable[[Any], Any], wrapped: bool = False) -> Chain:
    """Adds a GATHER from the table of a function.

    Args:
        chain: The chain, whose last tensor has the indices.
        function: The function.
        wrapped: Whether indices of negative integers come after those of other integers.
    """
    entries = table(function)
    entries = np.roll(entries, 128) if wrapped else entries
    operands = (constant("table", entries, output(function)), ...)
    options = {"axis": 0}
    return chain.add(
        "GATHER", SHAPE, output(function), version=2, options=options, operands=operands
    )


def cast(chain: Chain, before: str, after: str) -> Chain:
    types = {"inDataType": before.upper(), "outDataType": after.upper()}
    return chain.add("CAST", SHAPE, None, after, options=types)


def lookup(function):
    """Looks up after a cast to int32 and an addition, as keras_qat does."""

    def write(chain):
        cast(chain, "int8", "int32")
        offset = constant("offset", np.array(128, "int32"))
        chain.add("ADD", SHAPE, None, "int32", operands=(..., offset))
        return gathered(chain, function)

    return write


def lookup_quantize(function, dtype):
    """Looks up by integers of another type, with a zero point that is 128 larger."""

    def write(chain):
        out, options = grid(SX, ZX + 128), {}
        chain.add("QUANTIZE", SHAPE, out, dtype, version=2, options=options)
        return gathered(chain, function)

    return write


def lookup_wrapped(function, dtype):
    """Looks up after a cast to uint8, which wraps negative integers."""

    def write(chain):
        cast(cast(chain, "int8", "uint8"), "uint8", dtype)
        return gathered(chain, function, wrapped=True)

    return write


def lookup_narrow(function):
    """Looks up after a cast to int16 and an addition in int16."""

    def write(chain):
        cast(chain, "int8", "int16")
        offset = constant("offset", np.array(128, "int16"))
        chain.add("ADD", SHAPE, None, "int16", operands=(..., offset))
        return gathered(chain, function)

    return write


def lookups(function) -> dict[str, Callable]:
    return {
        "CAST, ADD, GATHER": lookup(function),
        "QUANTIZE to int16, GATHER": lookup_quantize(function, "int16"),
        "QUANTIZE to int32, GATHER": lookup_quantize(function, "int32"),
        "CAST to uint8, CAST to int16, GATHER": lookup_wrapped(function, "int16"),
        "CAST to uint8, CAST to int32, GATHER": lookup_wrapped(function, "int32"),
        "CAST to int16, ADD, GATHER": lookup_narrow(function),
    }
