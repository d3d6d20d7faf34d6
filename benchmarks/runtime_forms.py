"""Operators that the runtimes compute differently or that this project avoids, on random data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from runtime_choices import Chain, compare_averages, compare_forms, constant, grid


def integers(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(-128, 128, shape).astype("int8")


def scales(rng: np.random.Generator) -> tuple[float, float, int, int]:
    """Draws two scales of similar size and two zero points."""
    return (*np.exp(rng.normal(-3, 0.3, 2)), *rng.integers(-100, 100, 2))


def leaky_relu(rng):
    sx, sy, zx, zy = scales(rng)
    options = {"alpha": 0.2}
    chain = Chain((1000,), sx, zx).add(
        "LEAKY_RELU", (1000,), grid(sy, zy), version=2, options=options
    )
    return chain, integers(rng, 100, 1000)


def prelu(rng):
    sx, sy, zx, zy = scales(rng)
    slope = constant("slope", np.int8([127]), grid(0.2 / 127))
    chain = Chain((1000,), sx, zx).add("PRELU", (1000,), grid(sy, zy), operands=(..., slope))
    return chain, integers(rng, 100, 1000)


def requantize(rng):
    sx, sy, zx, zy = scales(rng)
    chain = Chain((1000,), sx, zx).add("QUANTIZE", (1000,), grid(sy, zy), version=2)
    return chain, integers(rng, 100, 1000)


def from_uint8(rng):
    sx, _, zx, _ = scales(rng)
    chain = Chain((1000,), sx, int(zx) + 128, "uint8").add(
        "QUANTIZE", (1000,), grid(sx, zx), version=2, options={}
    )
    return chain, rng.integers(0, 256, (100, 1000)).astype("uint8")


def resize(before: tuple[int, int], after: tuple[int, int]) -> Callable:
    def make(rng):
        options = {"alignCorners": False, "halfPixelCenters": True}
        size = constant("size", np.int32(after))
        chain = Chain((*before, 16), 0.1).add(
            "RESIZE_BILINEAR",
            (*after, 16),
            grid(0.1),
            version=3,
            options=options,
            operands=(..., size),
        )
        return chain, integers(rng, 8, *before, 16)

    return make


def averaging(multiplier: float) -> Callable:
    """Makes a MEAN of 64 integers that multiplies their sum by a given number."""

    def make(rng):
        axes, options = constant("axes", np.int32([1, 2])), {"keepDims": False}
        out = grid(1 / (64 * multiplier))
        chain = Chain((8, 8, 16), 1.0)
        chain.add("MEAN", (16,), out, version=2, options=options, operands=(..., axes))
        x = np.rint(rng.normal(0, min(60, 5 / multiplier), (2000, 8, 8, 16)))
        return chain, np.clip(x, -128, 127).astype("int8")

    return make


def transposed(rng):
    kernel = constant("kernel", integers(rng, 16, 3, 3, 8), grid(np.exp(rng.normal(-5, 1, 16))))
    bias = constant("bias", np.zeros(16, "int32"), grid(0.1 * kernel.quantization.scale))
    shape = constant("shape", np.int32([8, 16, 16, 16]))
    fields = {"padding": "SAME", "strideH": 2, "strideW": 2}
    chain = Chain((8, 8, 8), 0.1).add(
        "TRANSPOSE_CONV",
        (16, 16, 16),
        grid(3.0),
        version=3,
        options=fields,
        operands=(shape, kernel, ..., bias),
    )
    return chain, integers(rng, 8, 8, 8, 8)


MULTIPLIERS = (0.9, 0.6, 0.4, 0.2, 0.1, 0.05, 0.02, 0.01, 0.001)
FORMS: dict[tuple[str, str], Callable] = {
    ("leaky ReLU", "LEAKY_RELU"): leaky_relu,
    ("leaky ReLU", "PRELU with a constant"): prelu,
    ("another range", "QUANTIZE int8 to int8"): requantize,
    ("uint8 input", "QUANTIZE uint8 to int8, a shift by 128"): from_uint8,
    ("bilinear resizing", "16 to 32"): resize((16, 16), (32, 32)),
    ("bilinear resizing", "16 to 64"): resize((16, 16), (64, 64)),
    ("bilinear resizing", "16 to 48"): resize((16, 16), (48, 48)),
    ("bilinear resizing", "17 to 40"): resize((17, 17), (40, 40)),
    ("bilinear resizing", "40 to 17"): resize((40, 40), (17, 17)),
    ("bilinear resizing", "32 to 16"): resize((32, 32), (16, 16)),
    ("transposed convolution", "TRANSPOSE_CONV with a constant shape"): transposed,
}
FORMS |= {("MEAN of 64", f"sum times {each}"): averaging(each) for each in MULTIPLIERS}


def measure_choices() -> list[dict[str, Any]]:
    """Returns all comparisons, one record for each form."""

    def all_of_them() -> Iterator[dict[str, Any]]:
        for shape in ((7, 7, 1280), (8, 8, 64)):
            yield from compare_averages(shape)
        yield from compare_forms(FORMS)

    return list(all_of_them())
