"""Compares the forms of an activation after a 1x1 convolution of 56x56x64.

For each: milliseconds of XNNPACK with 1 and 2 threads (interleaved, the minimum), the arena of
TensorFlow Lite Micro, and the operators that vela leaves to the CPU. Needs tflite-micro and
ethos-u-vela; `--page` writes the table of docs/performance.md.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from common import ROOT, parse, print_environment, print_table, save
from ethos_u import ACCELERATOR, left_to_cpu
from runtime_choices import Chain, constant, grid

from keras_qat.litert import to_bytes
from tests.vela import compiled_by_vela

SHAPE = (56, 56, 64)
SX, ZX = 12 / 255, 0  # scale of the convolution's output, about -6 to 6
REAL = SX * (np.arange(-128, 128) - ZX)
ROUNDS = 50
PAGE = ROOT / "docs" / "performance.md"


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
    return lambda chain: chain.add(code, SHAPE, out, version=version, options=options)


def binary(chain: Chain, code: str, a: Any, b: Any, out: Any, fused: str = "NONE") -> Chain:
    options = {"fusedActivationFunction": fused}
    return chain.add(code, SHAPE, out, version=2, options=options, operands=(a, b))


def scalar(name: str, value: float) -> Any:
    return constant(name, np.array(127, "int8"), grid(value / 127))


def table(function: Callable[[Any], Any]) -> np.ndarray:
    out = output(function)
    steps = function(REAL) / out.scale[0]
    return np.clip(np.rint(steps) + out.zero_point[0], -128, 127).astype("int8")


def gathered(chain: Chain, function: Callable[[Any], Any], wrapped: bool = False) -> Chain:
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


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def swish(x):
    return x * sigmoid(x)


def hard_sigmoid(x):
    return np.clip(x / 6 + 0.5, 0, 1)


def hard_swish(x):
    return x * hard_sigmoid(x)


def erf_gelu(x):
    import math

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
    x = chain.y
    y = chain.add("LOGISTIC", SHAPE, LOGISTIC, version=2).y
    return binary(chain, "MUL", x, y, output(swish))


def shifted(chain):
    return binary(chain, "ADD", chain.y, scalar("three", 3.0), SIX, "RELU6")


def hard_sigmoid_relu6(chain):
    return binary(shifted(chain), "MUL", chain.y, scalar("sixth", 1 / 6), output(hard_sigmoid))


def hard_sigmoid_saturating(chain):
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


def times(gate, out_of_gate=hard_swish):
    def write(chain):
        x = chain.y
        y = gate(chain).y
        return binary(chain, "MUL", x, y, output(out_of_gate))

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
    """Computes two operators, each with the quantization parameters of its input."""
    return extreme("MINIMUM", 4.0)(extreme("MAXIMUM", 0.0)(chain))


def plus_zero(fused):
    zero = constant("zero", np.array(0, "int8"), grid(SX))
    return lambda chain: binary(chain, "ADD", chain.y, zero, RELU, fused)


def times_one(fused):
    return lambda chain: binary(chain, "MUL", chain.y, scalar("one", 1.0), RELU, fused)


def extreme(code, value):
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

_MICRO = """
import pickle, sys
from tflite_micro.python.tflite_micro import runtime
content, x = pickle.load(sys.stdin.buffer)
interpreter = runtime.Interpreter.from_bytes(content, arena_size=64_000_000)
interpreter.set_input(x, 0)
interpreter.invoke()
interpreter.print_allocations()
"""


def arena(content: bytes, x: np.ndarray) -> str:
    """Returns the bytes of arena in TensorFlow Lite Micro, or "-" if it does not run the file."""
    import pickle

    child = subprocess.run(
        [sys.executable, "-c", _MICRO], input=pickle.dumps((content, x)), capture_output=True
    )
    text = (child.stdout + child.stderr).decode(errors="replace")
    found = re.search(r"Arena allocation total (\d+)", text)
    return found.group(1) if found and child.returncode == 0 else "-"


def interpreters(content: bytes, threads: int) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_content=content, num_threads=threads)
    runner.resize_tensor_input(runner.get_input_details()[0]["index"], [1, *SHAPE])
    runner.allocate_tensors()
    return runner


def milliseconds(files: dict[Any, bytes], threads: int) -> dict[Any, float]:
    runners = {key: interpreters(content, threads) for key, content in files.items()}
    best = dict.fromkeys(runners, np.inf)
    for _ in range(ROUNDS):
        for key, runner in runners.items():
            start = time.perf_counter()
            runner.invoke()
            best[key] = min(best[key], time.perf_counter() - start)
    return {key: 1e3 * seconds for key, seconds in best.items()}


def measure() -> list[dict[str, Any]]:
    files = {}
    for function, forms in FORMS.items():
        for form, write in forms.items():
            content = to_bytes(write(convolution()).model())
            try:
                interpreters(content, 1).invoke()
            except (RuntimeError, ValueError) as error:
                print(f"{function}: {form}: {str(error)[:100]}")
                continue
            files[function, form] = content
    one_thread, two_threads = (milliseconds(files, threads) for threads in (1, 2))
    x = np.random.default_rng(1).integers(-128, 128, (1, *SHAPE)).astype("int8")
    records = []
    for key, content in files.items():
        try:
            left = sorted(left_to_cpu(compiled_by_vela(content, ACCELERATOR)))
        except AssertionError:
            left = ["refused"]
        records.append(
            {
                "function": key[0],
                "form": key[1],
                "ms_1": round(one_thread[key], 3),
                "ms_2": round(two_threads[key], 3),
                "arena": arena(content, x),
                "cpu": len(left) if left != ["refused"] else "refused",
            }
        )
    return records


def table_of(records: list[dict[str, Any]]) -> str:
    """Returns the table of docs/performance.md."""
    lines = ["| function | form | ms, 1 thread | ms, 2 threads | arena, kB | on the CPU |"]
    lines.append("|---|---|---|---|---|---|")
    for each in records:
        kilobytes = "-" if each["arena"] == "-" else f"{int(each['arena']) / 1000:.0f}"
        cells = each["function"], each["form"], f"{each['ms_1']:.3f}", f"{each['ms_2']:.3f}"
        lines.append(f"| {' | '.join((*cells, kilobytes, str(each['cpu'])))} |")
    return "\n".join(lines)


def write_page(records: list[dict[str, Any]]) -> None:
    before, after = "<!-- forms -->\n", "\n<!-- end of forms -->"
    text = PAGE.read_text()
    head, tail = text.partition(before)[0], text.partition(after)[2]
    PAGE.write_text(f"{head}{before}{table_of(records)}{after}{tail}")


def main() -> None:
    args = parse(__doc__, lambda p: p.add_argument("--page", action="store_true", help=str(PAGE)))
    print_environment()
    records = measure()
    print_table("", list(records[0]), [list(each.values()) for each in records])
    save(args.json, records)
    if args.page:
        write_page(records)


if __name__ == "__main__":
    main()
