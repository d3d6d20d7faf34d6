"""Compares forms of one computation in LiteRT: agreement of both runtimes, accuracy, time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import common  # noqa: F401, the tests can be imported
import numpy as np

from keras_qat.litert import Model, Operator, Quantization, Runner, Tensor, to_bytes
from tests.vela import summary_by_vela

KERNELS = ("reference", "default")
SEEDS = range(5)


class Chain:
    """A sequence of operators, each with constants.

    Args:
        shape: The shape of the input, without the batch.
        scale: The scale of the input.
        zero_point: The zero point of the input.
        dtype: The type of the input.
    """

    def __init__(self, shape, scale, zero_point=0, dtype="int8"):
        self.x = self.y = Tensor("x", (None, *shape), dtype, grid(scale, zero_point))
        self.operators: list[Operator] = []

    def add(
        self, code, shape, output=None, dtype="int8", *, version=1, options=None, operands=None
    ):
        """Adds an operator with an output shape and grid. The operand `...` is the last output."""
        y = Tensor(f"y{len(self.operators)}", (None, *shape), dtype, output)
        inputs = tuple(self.y if each is ... else each for each in operands or (...,))
        self.operators.append(Operator(code, inputs, (y,), version, options or {}))
        self.y = y
        return self

    def model(self) -> Model:
        return Model({"x": self.x}, {self.y.name: self.y}, tuple(self.operators))


def grid(scale: Any, zero_point: int = 0) -> Quantization:
    scales = np.atleast_1d(np.float32(scale))
    return Quantization(scales, np.full(scales.shape, zero_point, "int64"))


def constant(name: str, data: Any, quantization: Quantization | None = None) -> Tensor:
    return Tensor(name, data.shape, str(data.dtype), quantization, data)


def mean(shape, sx, zx, out) -> Chain:
    axes = constant("axes", np.int32([1, 2]))
    options = {"keepDims": False}
    return Chain(shape, sx, zx).add(
        "MEAN", shape[2:], out, version=2, options=options, operands=(..., axes)
    )


def steps_mean(shape, sx, zx, out) -> Chain:
    rows = (shape[0] * shape[1], shape[2])
    options = {"newShape": np.int32([-1, *rows])}
    chain = Chain(shape, sx, zx).add("RESHAPE", rows, grid(sx, zx), options=options)
    axes, options = constant("axes", np.int32([1])), {"keepDims": False}
    return chain.add("MEAN", shape[2:], out, version=2, options=options, operands=(..., axes))


def average_pool(shape, sx, zx, out) -> Chain:
    del out
    window = {"strideH": 1, "strideW": 1, "filterHeight": shape[0], "filterWidth": shape[1]}
    options = {"padding": "VALID", **window}
    pooled = (1, 1, shape[2])
    return Chain(shape, sx, zx).add(
        "AVERAGE_POOL_2D", pooled, grid(sx, zx), version=2, options=options
    )


def depthwise(shape, sx, zx, out) -> Chain:
    count, channels = shape[0] * shape[1], shape[2]
    scale = 1 / (127 * count)
    kernel = constant("kernel", np.full((1, *shape), 127, "int8"), grid(scale))
    bias = constant("bias", np.zeros(channels, "int32"), grid(sx * scale))
    fields = {"padding": "VALID", "strideH": 1, "strideW": 1, "depthMultiplier": 1}
    fields |= {"dilationHFactor": 1, "dilationWFactor": 1}
    return Chain(shape, sx, zx).add(
        "DEPTHWISE_CONV_2D",
        (1, 1, channels),
        out,
        version=3,
        options=fields,
        operands=(..., kernel, bias),
    )


def product(shape, sx, zx, out) -> Chain:
    rows, channels = shape[0] * shape[1], shape[2]
    options = {"newShape": np.int32([-1, rows, channels])}
    chain = Chain(shape, sx, zx).add("RESHAPE", (rows, channels), grid(sx, zx), options=options)
    ones = constant("ones", np.full((1, 1, rows), 127, "int8"), grid(1 / (127 * rows)))
    options = {"adjX": False, "adjY": False}
    return chain.add(
        "BATCH_MATMUL", (1, channels), out, version=2, options=options, operands=(ones, ...)
    )


def cast_sum(shape, sx, zx, out) -> Chain:
    options = {"inDataType": "INT8", "outDataType": "INT32"}
    chain = Chain(shape, sx, zx).add("CAST", shape, None, "int32", options=options)
    axes, options = constant("axes", np.int32([1, 2])), {"keepDims": False}
    count = shape[0] * shape[1]
    summed = grid(sx / count, count * zx)
    chain.add("SUM", shape[2:], summed, "int32", options=options, operands=(..., axes))
    return chain.add("QUANTIZE", shape[2:], out, version=2)


AVERAGES: dict[str, Callable[..., Chain]] = {
    "MEAN over height and width": mean,
    "RESHAPE, MEAN over one axis": steps_mean,
    "AVERAGE_POOL_2D, with the input's range": average_pool,
    "DEPTHWISE_CONV_2D by a kernel of 127s": depthwise,
    "RESHAPE, BATCH_MATMUL by a row of 127s": product,
    "CAST, SUM in int32, QUANTIZE": cast_sum,
}


def compare_averages(shape: tuple[int, int, int]) -> Iterator[dict[str, Any]]:
    """Yields one record for each form of an average of images after a ReLU."""
    for name, make in AVERAGES.items():
        runs = []
        for seed in SEEDS:
            batch = -(-20_000 // shape[2])
            x = np.maximum(np.random.default_rng(seed).normal(0, 1, (batch, *shape)), 0)
            sx = x.max() / 255
            q = np.clip(np.rint(x / sx) - 128, -128, 127).astype("int8")
            exact = (q + 128.0).mean((1, 2)) * sx
            chain = make(shape, sx, -128, grid(exact.max() / 255, -128))
            runs.append(run(chain.model(), q, exact))
        costs = timed(chain, q) | on_npu(chain)
        yield {"question": f"average of {shape}", "form": name, **summed(runs), **costs}


def compare_forms(forms: dict[tuple[str, str], Callable]) -> Iterator[dict[str, Any]]:
    """Yields one record for each operator on random integers."""
    for (question, name), make in forms.items():
        runs = []
        for seed in SEEDS:
            chain, x = make(np.random.default_rng(seed))
            runs.append(run(chain.model(), x))
        yield {"question": question, "form": name, **summed(runs)}


def run(model: Model, x: np.ndarray, exact: np.ndarray | None = None) -> dict[str, Any]:
    """Compares both runtimes' outputs with each other and with the exact values."""
    content = to_bytes(model)
    one, other = (Runner(content, kernels=kernels).run([x])[0] for kernels in KERNELS)
    away = np.abs(one.astype("int64") - other.astype("int64"))
    result = {"elements": away.size, "differing": int(np.sum(away > 0)), "largest": int(away.max())}
    if exact is not None:
        (y,) = model.outputs.values()
        for kernels, values in zip(KERNELS, (one, other), strict=True):
            real = (values.reshape(exact.shape) - y.quantization.zero_point) * y.quantization.scale
            noise = np.mean((real - exact) ** 2) / np.mean(exact**2)
            result[f"{kernels}_db"] = -10 * np.log10(noise)
    return result


def summed(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the sums of counts, the largest difference, and the mean of decibels."""
    joined: dict[str, Any] = {}
    for key in runs[0]:
        values = [each[key] for each in runs]
        joined[key] = max(values) if key == "largest" else sum(values)
        if key.endswith("_db"):
            joined[key] = round(float(np.mean(values)), 1)
    return joined


def timed(chain: Chain, x: np.ndarray, repeats: int = 100) -> dict[str, float]:
    """Returns the microseconds for one sample and one thread, the minimum of many runs."""
    result = {}
    for kernels in KERNELS:
        runner = Runner(to_bytes(chain.model()), kernels=kernels)
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            runner.run([x[:1]])
            seconds.append(time.perf_counter() - start)
        result[f"{kernels}_us"] = round(1e6 * min(seconds), 1)
    return result


def on_npu(chain: Chain) -> dict[str, float]:
    """Returns vela's estimate for an Ethos-U55 (1000 cycles, KiB), or None for the CPU."""
    summary = summary_by_vela(to_bytes(chain.model()))
    cycles, memory = float(summary["cycles_total"]), float(summary["sram_memory_used"])
    return {"npu_kilocycles": round(cycles / 1000, 1), "npu_kib": round(memory, 1)}
