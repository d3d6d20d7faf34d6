"""Measures operators that XNNPACK does not take, against an addition that it takes.

Each operator is a separate file on one or two tensors of 56x56x64 elements, with one thread. The
factor is its smallest time divided by that of an int8 ADD of as many elements, which XNNPACK
takes. Both run in turns. `--write` puts the factors into keras_qat/targets/xnnpack.toml, which
`check` reads.
"""

from __future__ import annotations

import datetime
import gc
import re
from collections.abc import Callable

import numpy as np
from common import ROOT, environment, interleave, parse, print_environment, print_table, save
from runtimes import processor

from keras_qat.litert import Model, Operator, Quantization, Tensor, to_bytes
from tests.delegates import undelegated

PROFILE = ROOT / "keras_qat" / "targets" / "xnnpack.toml"
SHAPE = (1, 56, 56, 64)
GRID = Quantization(np.array([0.05], "float32"), np.array([-3], "int64"))
LEAST_GRID = Quantization(np.array([0.05], "float32"), np.array([-128], "int64"))
SOFTMAX_GRID = Quantization(np.array([1 / 256], "float32"), np.array([-128], "int64"))


def tensor(name: str, dtype: str = "int8", shape=SHAPE, grid: Quantization | None = GRID) -> Tensor:
    return Tensor(name, shape, dtype, grid if dtype == "int8" else None)


def numbers(name: str, values) -> Tensor:
    return Tensor(name, np.shape(values), "int32", data=np.array(values, "int32"))


def model(code: str, inputs, output: Tensor, version: int = 1, **options) -> Model:
    """Makes a model of one operator. Its inputs are the operands that are not constant."""
    fed = {x.name: x for x in inputs if x is not None and x.data is None}
    operator = Operator(code, tuple(inputs), (output,), version, options)
    return Model(fed, {"y": output}, (operator,))


def unary(code: str, version: int = 1, **options) -> Callable[[], Model]:
    return lambda: model(code, [tensor("x")], tensor("y"), version, **options)


def binary(code: str, dtype: str, version: int = 1) -> Callable[[], Model]:
    def build() -> Model:
        inputs = [tensor("a", dtype), tensor("b", dtype)]
        return model(code, inputs, tensor("y", dtype), version)

    return build


def reduction(code: str, dtype: str) -> Callable[[], Model]:
    def build() -> Model:
        output = tensor("y", dtype, (*SHAPE[:3], 1))
        options = {"keepDims": True}
        return model(code, [tensor("x", dtype), numbers("axis", [3])], output, 2, **options)

    return build


def cast(before: str, after: str) -> Callable[[], Model]:
    options = {"inDataType": before.upper(), "outDataType": after.upper()}
    return lambda: model("CAST", [tensor("x", before)], tensor("y", after), 1, **options)


def gather(dtype: str) -> Model:
    """Makes a GATHER from a table of 256 entries, as in the lookup of a function."""
    table = Tensor("table", (256,), dtype, GRID if dtype == "int8" else None)
    data = np.zeros(256, dtype)
    table = Tensor("table", (256,), dtype, table.quantization, data)
    return model("GATHER", [table, tensor("x", "int32")], tensor("y", dtype), 2)


def pool() -> Model:
    options = {"padding": "VALID", "strideH": 2, "strideW": 2, "filterHeight": 2, "filterWidth": 2}
    output = tensor("y", shape=(1, 28, 28, 64))
    return model("AVERAGE_POOL_2D", [tensor("x")], output, 2, **options)


def prelu() -> Model:
    alpha = Tensor("alpha", (1, 1, 64), "int8", GRID, np.full((1, 1, 64), 3, "int8"))
    return model("PRELU", [tensor("x"), alpha], tensor("y"))


def padded(code: str) -> Model:
    paddings = numbers("paddings", [[0, 0], [1, 1], [1, 1], [0, 0]])
    value = Tensor("value", (1,), "int8", GRID, np.array([4], "int8"))
    output = tensor("y", shape=(1, 58, 58, 64))
    if code == "PADV2":
        return model(code, [tensor("x"), paddings, value], output, 2)
    return model(code, [tensor("x"), paddings], output, 2, mode="REFLECT")


def pack() -> Model:
    inputs, output = [tensor("a"), tensor("b")], tensor("y", shape=(1, 2, *SHAPE[1:]))
    return model("PACK", inputs, output, 2, axis=1, valuesCount=2)


def nearest() -> Model:
    output = tensor("y", shape=(1, 112, 112, 64))
    inputs = [tensor("x"), numbers("size", [112, 112])]
    options = {"halfPixelCenters": True}
    return model("RESIZE_NEAREST_NEIGHBOR", inputs, output, 3, **options)


def softmax() -> Model:
    output = tensor("y", grid=SOFTMAX_GRID)
    return model("SOFTMAX", [tensor("x")], output, 2, beta=1.0)


def backwards() -> Model:
    ends = [numbers(name, [0] * 4) for name in ("begin", "end")]
    inputs = [tensor("x"), *ends, numbers("strides", [1, 1, -1, 1])]
    options = {"beginMask": 15, "endMask": 15}
    return model("STRIDED_SLICE", inputs, tensor("y"), 2, **options)


def reshape() -> Model:
    sizes = numbers("sizes", [1, 3136, 64])
    output = tensor("y", "int32", (1, 3136, 64))
    return model("RESHAPE", [tensor("x", "int32"), sizes], output, 1)


def rsqrt() -> Model:
    return model("RSQRT", [tensor("x", grid=LEAST_GRID)], tensor("y", grid=LEAST_GRID), 2)


BASE = binary("ADD", "int8", 2)
OPERATORS: dict[tuple[str, str], Callable[[], Model]] = {
    ("ADD", "int32"): binary("ADD", "int32"),
    ("AVERAGE_POOL_2D", "int8"): pool,
    ("CAST", "int32"): cast("int32", "int8"),
    ("CAST", "int8"): cast("int8", "int32"),
    ("EXP", "int8"): unary("EXP", 2),
    ("FLOOR_DIV", "int32"): binary("FLOOR_DIV", "int32"),
    ("GATHER", "int32"): lambda: gather("int32"),
    ("GATHER", "int8"): lambda: gather("int8"),
    ("GELU", "int8"): unary("GELU", 2),
    ("HARD_SWISH", "int8"): unary("HARD_SWISH", 1),
    ("MAXIMUM", "int32"): binary("MAXIMUM", "int32"),
    ("MAXIMUM", "int8"): binary("MAXIMUM", "int8", 2),
    ("MINIMUM", "int32"): binary("MINIMUM", "int32"),
    ("MINIMUM", "int8"): binary("MINIMUM", "int8", 2),
    ("MIRROR_PAD", "int8"): lambda: padded("MIRROR_PAD"),
    ("MUL", "int32"): binary("MUL", "int32"),
    ("PACK", "int8"): pack,
    ("PADV2", "int8"): lambda: padded("PADV2"),
    ("PRELU", "int8"): prelu,
    ("REDUCE_MAX", "int32"): reduction("REDUCE_MAX", "int32"),
    ("RELU", "int8"): unary("RELU", 2),
    ("RELU6", "int8"): unary("RELU6", 2),
    ("RESHAPE", "int32"): reshape,
    ("RESIZE_NEAREST_NEIGHBOR", "int8"): nearest,
    ("RSQRT", "int8"): rsqrt,
    ("SOFTMAX", "int8"): softmax,
    ("SQUARED_DIFFERENCE", "int8"): binary("SQUARED_DIFFERENCE", "int8", 2),
    ("STRIDED_SLICE", "int8"): backwards,
    ("SUB", "int32"): binary("SUB", "int32"),
    ("SUM", "int32"): reduction("SUM", "int32"),
}


def invoker(content: bytes) -> Callable[[], object]:
    """Returns a function that runs an interpreter with one thread and random inputs."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter, rng = Interpreter(model_content=content, num_threads=1), np.random.default_rng(0)
    interpreter.allocate_tensors()
    for details in interpreter.get_input_details():
        high = 127 if details["dtype"] == np.int8 else 255
        values = rng.integers(1, high, details["shape"]).astype(details["dtype"])
        interpreter.set_tensor(details["index"], values)
    return interpreter.invoke


def measure(rounds: int) -> list[dict]:
    gc.freeze()  # a collection of Keras's objects takes longer than an operator
    base, records = invoker(to_bytes(BASE())), []
    assert not undelegated(to_bytes(BASE()))[0]
    for (code, dtype), build in OPERATORS.items():
        content = to_bytes(build())
        timings = interleave({"this": invoker(content), "base": base}, rounds)
        milliseconds = {name: 1e3 * min(timing.wall) for name, timing in timings.items()}
        records.append(
            {
                "operator": code,
                "type": dtype,
                "milliseconds": milliseconds["this"],
                "factor": milliseconds["this"] / milliseconds["base"],
                "delegated": not undelegated(content)[0],
            }
        )
    return records


def write(records: list[dict]) -> None:
    """Replaces the factors and the date of the profile."""
    text = PROFILE.read_text()
    lines = [
        f'"{r["operator"]} {r["type"]}" = {r["factor"]:.3g}' for r in records if not r["delegated"]
    ]
    text = re.sub(r"(?<=\[factors\]\n).*", "\n".join(lines) + "\n", text, flags=re.DOTALL)
    version = f"ai-edge-litert {environment()['ai-edge-litert']}, {processor()}"
    today = datetime.date.today().isoformat()
    text = re.sub(r'(measured = )".*"', rf'\1"{version}, {today}"', text)
    PROFILE.write_text(text)


def arguments(parser) -> None:
    parser.add_argument(
        "--rounds", type=int, default=50, help="invocations, of which the fastest counts"
    )
    parser.add_argument("--write", action="store_true", help="renew the profile")


def main() -> None:
    args = parse(__doc__, arguments)
    print_environment()
    records = measure(args.rounds)
    rows = [
        (r["operator"], r["type"], f"{r['milliseconds']:.3f}", f"{r['factor']:.2g}", r["delegated"])
        for r in records
    ]
    print_table("Against an int8 ADD", ["operator", "type", "ms", "factor", "XNNPACK"], rows)
    save(args.json, records)
    if args.write:
        write(records)


if __name__ == "__main__":
    main()
