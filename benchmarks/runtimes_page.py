"""Writes docs/runtimes.md from the measurements of benchmarks/runtimes.py."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

SCHEMES = ("int8", "int8_per_tensor")
NUMBERS = Path(__file__).parents[1] / "docs" / "releases.json"

PAGE = """\
# Two runtimes

`python benchmarks/runtimes.py` writes this page. Do not edit it.

LiteRT has two sets of kernels. TensorFlow Lite Micro and CMSIS-NN follow the *reference* kernels,
except for a step in dense layers. The *default* kernels, XNNPACK and LiteRT's optimized kernels,
run on phones and PCs. They round some operators differently. This page lists these operators, the
frequency of differences, and the consequences. The [target of the
model](targets.md#which-kernels-keras-equals) decides which kernels inference in Keras equals.

Measured with ai-edge-litert {litert}, numpy {numpy}, on {machine}, one thread. XNNPACK has
different code for other processors.

## Operator by operator

A contract case is a small model for the tests of one layer (`tests/layers`). Each operator of each
contract case was written to a separate file. Both runtimes ran this file on the inputs that the
operator has in the case's model, so that differences do not accumulate. The measurement used
{seeds} seeds, {scales} scales of the data, and calibrated ranges. A difference of 1 is one step of
the output.

{operators}

In convolutions, products and averages the differences have one cause. The reference kernels
multiply an int32 sum by a 31-bit fraction, round to an integer, shift it right and round *again*.
XNNPACK multiplies in float32 and rounds once. With a shift of k bits, the reference kernels first
round about one sum in 2^(k+1) to a tie, and then in the wrong direction. Convolutions shift by
about 8 bits, products of two tensors by about 6, averages of whole images by 1 to 5.

## Operators with another form, and avoided operators

{choices}

**Leaky ReLU** becomes LEAKY_RELU. XNNPACK's kernel differs from the reference kernel, because it
uses multipliers of 8 bits. The two kernels of PRELU with a constant slope agree, but they take many
times as long ([performance](performance.md)). `activations="lookup"` and negative slopes use PRELU.

**A requantization**, QUANTIZE from int8 to int8, differs for the same reason. It is rare, because
tensors that need one range share it from the beginning, also in training ([one tensor, one
range](README.md#one-tensor-one-range)). It is necessary only if a kernel prescribes the range of
one of them, as in a sigmoid before a concatenation. A QUANTIZE from uint8 at the input or output of
a file only shifts by 128.

**Bilinear resizing** is one RESIZE_BILINEAR with half-pixel centers, as in Keras. The reference
kernel rounds positions to 1/1024 of a pixel, and XNNPACK rounds weights to 1/2048. At factors of 2
and 4 both are exact fractions, and only ties differ. At other factors up to {resized:.0f} % of the
elements differ by several steps. No integer operator is equal in both runtimes at the same cost. If
this difference matters, use a factor of 2 or 4, or `interpolation="nearest"`, which is equal in
both.

**Transposed convolutions** get the shape of their output from SHAPE and ADD if the batch is
dynamic. This TRANSPOSE_CONV agrees with the reference except for ties, where the optimized kernel
rounds up in blocks of eight channels. In a file for [one batch size](targets.md#one-batch-size) the
shape is constant. XNNPACK then takes the operator, and a few elements differ.

**LOGISTIC, TANH and similar operators** look up their results in tables. The kernels compute the
tables with functions of C libraries, which differ in their last bits. If an exact result is next to
a rounding tie, the tables could differ. To avoid this, a scale is widened, by 0.8 % at most, until
no entry of the table is within a thousandth of a step of a tie. The scale of the output is widened,
or the scale of the input if the kernel prescribes the scale of the output. If both scales are
prescribed, as in the tanh of a sigmoid, no scale can be widened. `activations="lookup"` widens no
scale. All other functions are lookups by CAST, ADD and GATHER, with the table in the file.

**ELU** has no reference kernel. When this package uses the reference kernels (`verify`,
`LiteRTModel(..., kernels="reference")`, `Runner`, the table above), it runs LiteRT's kernel for ELU
without a delegate. The kernel runs once on all 256 integers. A copy of the file looks up the
results by CAST, ADD and GATHER. Other programs that choose the reference kernels cannot load the
file. The kernel of microcontrollers computes `exp(x) - 1` in float32, and gives other integers if
the scale of its input is below 2^-17.

**A standalone ReLU or ReLU6** is an ADD of zero that fuses it. RELU and RELU6 agree too, but
XNNPACK does not take them ([performance](performance.md)). They are used only if the input's scale
is more than 256 times the output's scale.

## The average of an image

An average has a much narrower range than its image. LiteRT's MEAN gives the average a separate
range. MEAN is the operator in which the runtimes differ most. The difference depends on the
multiplier of the sum, `input scale / (output scale * number of pixels)`. For 64 pixels:

{means}

No other form has a separate range, agrees in both runtimes, and costs nothing. The table compares
forms on images after a ReLU. It has the signal-to-noise ratio against the exact average of the same
integers, the time for one image, and vela's estimate for an Ethos-U55 with 128 multipliers:

{averages}

- AVERAGE_POOL_2D agrees everywhere and is fast, but its output has the range of its input. This
  loses about 16 dB, more than 2 of 8 bits.
- A BATCH_MATMUL with a row of 127s also agrees everywhere, and is as exact as one rounding allows.
  But XNNPACK does not take it. The product first transposes a copy of the image, which doubles the
  memory. The NPU needs three to four times as many cycles.
- A DEPTHWISE_CONV_2D with a kernel of 127s shifts by 7 more bits, so it differs 50 to 150 times
  less often. It has a weight for each pixel and channel, and XNNPACK is slow with large kernels.
- A SUM in int32 agrees, but needs a tensor of four times the size, and vela leaves all of it to
  the CPU.
- A MEAN over one axis, after a RESHAPE, computes the same integers as over two axes.

Each form has a cost, so MEAN is used. The difference is one step of a tensor that has {db:.0f} dB.

## Accumulated differences in a network, in int8 and uint8

A difference of one step affects all later operators. A sum of hundreds of inputs that may
differ is more likely to differ, too. A deep network of random weights does not damp differences, so
the small shares above become large. The table shows a MobileNet at 64x64 with the weights of
`applications_exact.py` and 8 images, on {network_cpu}. The first rows show each operator alone, on
the inputs that it has in the reference runtime. The row "all in sequence" shows all operators, each
on the output of the previous one.

{networks}

A fifth of all elements differ. The cause is not a single operator: alone, no operator differs by
more than one step. The cause is not uint8 either: int8 differs as much. In uint8, convolutions
differ more often than in int8, especially depthwise convolutions. With one scale for all channels,
the multiplier of most channels is larger than with a separate scale, and shifts by fewer bits.
`verify` lists the layers in order. Look for the first layer that differs.
{targets}"""

TARGETS = """
## Microcontrollers and ARM64

`python benchmarks/runtime_targets.py` measures this section. It makes contract cases for a
target, exports them, and compares all tensors that the files compute with the [kernels of the
target](targets.md#kernels-of-microcontrollers-and-arm64), as `verify` does. One seed, {samples}
samples, ranges that are narrower or wider than those of the data. The slow tests
(`tests/verification/test_target_kernels.py`) do the same for all cases and both targets.

{runtimes}

For ARM64, each operator also ran alone in the default kernels of x86-64, on the inputs that it had
on ARM64. Operators with differences in the column "x86-64 differs" are the reason for a separate
target. A model for `litert` that has one of them may differ on ARM64, and a model for
`litert-arm64` may differ on x86-64. A 0 does not prove equality: some operators differ
only in [rare ties](targets.md#which-kernels-keras-equals).

{processors}

Not covered: other cores than the Cortex-A76, such as those without dot products of int8 or with
i8mm or SME, real hardware, and the kernels of CMSIS-NN. The emulator computes what the instructions
of the core specify.
{models}"""

MODELS = """
Keras models of the MLPerf Tiny benchmark, calibrated with {calibration} random images and compared
on {images} others, in all tensors. Each row has the number of integers that differ from each set of
kernels. Those of the target are in bold.

{table}
"""

RELEASES = """
## Releases of LiteRT

`python benchmarks/releases.py` measured this table. Models of all contract cases, with the target
`"litert"` and {seeds} seeds, were exported once. Each release ran the same files with its default
kernels, as they are and with all tensors as outputs. The table compares its integers with those
that Keras computes for the output of each layer. A difference also affects the layers after it.

{runs}

- **LiteRT 2.1.3 and newer** compute the integers of Keras. The profile of the target `"litert"`
  names these releases.
- **LiteRT 2.0.2 to 2.1.2** compute wrong values in BATCH_MATMUL of two int8 tensors, such as in
  attention. All other operators equal Keras.
- **LiteRT 1.3 and 1.4** round BATCH_MATMUL of two int8 tensors differently, by one step. All other
  operators equal Keras.
- **Before LiteRT 1.3**, BATCH_MATMUL from int8 to int32 computes other sums. Layer,
  group, RMS and unit normalization then compute wrong values. Use `BatchNormalization` there.
- **LiteRT 1.0** also rounds MEAN differently, by one step.
- **TensorFlow Lite 2.14** has no version 12 of FULLY_CONNECTED, so it loads no dense layer with a
  scale for each channel. It also rounds convolutions, sums, products, means, requantizations, leaky
  ReLU and resized images differently. No target of this package has these kernels.

`inspect_litert`, `check` and `export_litert` state the oldest runtime that loads a file, and the
releases that load it and compute wrong values ([targets](targets.md#releases)).
"""


def page(results: dict[str, Any]) -> str:
    """Returns the page for the results that `runtimes.py` and `releases.py` saved."""
    return _differences(results) + _releases(json.loads(NUMBERS.read_text()))


def _differences(results: dict[str, Any]) -> str:
    """Returns the part of the page about the two sets of kernels of one release."""
    environment, choices = results["environment"], results["choices"]
    forms = [each for each in choices if "reference_us" not in each]
    means = [each for each in forms if each["question"] == "MEAN of 64"]
    averages = [each for each in choices if "reference_us" in each]
    resized = [each for each in forms if each["question"] == "bilinear resizing"]
    return PAGE.format(
        litert=environment["ai-edge-litert"],
        numpy=environment["numpy"],
        machine=f"{environment['machine']} ({results['cpu']})",
        seeds=len(results["seeds"]),
        scales=len(results["scales"]),
        operators=_operators(results["operators"]),
        choices=_forms([each for each in forms if each not in means]),
        means=_multipliers(means),
        averages=_averages(averages),
        resized=max(_percent(each) for each in resized),
        db=averages[0]["reference_db"],
        network_cpu=results["networks"]["cpu"],
        networks=_networks(results["networks"]["schemes"]),
        targets=_targets(results["targets"]) if "targets" in results else "",
    )


def _targets(found: dict[str, Any]) -> str:
    """Returns the section about the targets that `runtime_targets.py` measured."""
    runtimes = [
        (
            f"`{target}`",
            each["runtime"],
            f"{each['cases']} of {each['all_cases']}",
            len(each["keras"]),
            f"{sum(x['elements'] for x in each['keras'].values()):,}",
            sum(x["differing"] for x in each["keras"].values()),
            ", ".join(f"`{name}`" for name in each["refused"]),
        )
        for target, each in found["operators"].items()
    ]
    headings = ("target", "kernels", "cases", "operators", "integers", "differ", "refused cases")
    arm64 = found["operators"]["litert-arm64"]
    processors = [
        (code, f"{other['elements']:,}", own["differing"], _share(other), other["largest"])
        for code, other in arm64["default"].items()
        for own in [arm64["keras"][code]]
    ]
    columns = ("operator", "elements", "Keras differs", "x86-64 differs", "by at most")
    return TARGETS.format(
        samples=found["samples"],
        runtimes=_table(headings, runtimes),
        processors=_table(columns, processors),
        models=_models(found["models"]) if found["models"] else "",
    )


def _models(records: list[dict[str, Any]]) -> str:
    kernels = ("default", "reference", "arm64", "tflite-micro")

    def cell(record: dict[str, Any], name: str) -> str:
        count = record["mismatches"].get(name)
        text = "not run" if count is None else f"{count:,}"
        return f"**{text}**" if name == record["kernels"] else text

    rows = [
        (
            each["model"],
            f"`{each['target']}`",
            each["tensors"],
            f"{each['elements']:,}",
            *(cell(each, name) for name in kernels),
        )
        for each in records
    ]
    table = _table(("model", "target", "tensors", "integers", *kernels), rows)
    first = records[0]
    return MODELS.format(calibration=first["calibration"], images=first["images"], table=table)


def _releases(results: dict[str, Any]) -> str:
    """Returns the part of the page about several releases."""
    rows = [
        (
            _runtime(run["runtime"]),
            run["scheme"],
            f"{run['files']}",
            run["refused"],
            f"{run['elements']:,}",
            _share(run),
            run["largest"],
        )
        for run in sorted(results["runs"], key=lambda run: SCHEMES.index(run["scheme"]))
    ]
    headings = ("runtime", "scheme", "files", "not loaded", "elements", "differ", "by at most")
    return RELEASES.format(seeds=len(results["seeds"]), runs=_table(headings, rows))


def _runtime(requirement: str) -> str:
    package, _, version = requirement.partition("==")
    return f"{'LiteRT' if package == 'ai-edge-litert' else 'TensorFlow Lite'} {version}"


def _operators(records: list[dict[str, Any]]) -> str:
    kinds = sorted({(record["operator"], record["type"]) for record in records})
    rows = []
    for kind in kinds:
        same = [each for each in records if (each["operator"], each["type"]) == kind]
        total = {key: sum(each[key] for each in same) for key in ("elements", "differing")}
        largest = max(each["largest"] for each in same)
        layers = ", ".join(f"`{each['layer']}`" for each in same)
        rows.append((*kind, f"{total['elements']:,}", _share(total), largest, layers))
    return _table(("operator", "output", "elements", "differ", "by at most", "in"), rows)


def _networks(schemes: dict[str, list[dict[str, Any]]]) -> str:
    rows = [
        (scheme, each["operator"], f"{each['elements']:,}", _share(each), each["largest"])
        for scheme, records in schemes.items()
        for each in records
        if each["differing"]
    ]
    return _table(("scheme", "operator", "elements", "differ", "by at most"), rows)


def _forms(records: list[dict[str, Any]]) -> str:
    rows = [
        (each["question"], each["form"], f"{each['elements']:,}", _share(each), each["largest"])
        for each in records
    ]
    return _table(("for", "operator", "elements", "differ", "by at most"), rows)


def _multipliers(records: list[dict[str, Any]]) -> str:
    rows = [(each["form"], f"{each['elements']:,}", _share(each)) for each in records]
    return _table(("MEAN of 64", "elements", "differ"), rows)


def _averages(records: list[dict[str, Any]]) -> str:
    headings = (
        *("of", "written as", "differ", "reference, dB", "default, dB"),
        *("reference, µs", "default, µs", "NPU, 1000 cycles", "NPU, KiB"),
    )
    keys = ("reference_db", "default_db", "reference_us", "default_us", "npu_kilocycles", "npu_kib")
    rows = [
        (
            each["question"].removeprefix("average of "),
            each["form"],
            _share(each),
            *(each[key] or "CPU" for key in keys),
        )
        for each in records
    ]
    return _table(headings, rows)


def _percent(record: dict[str, Any]) -> float:
    return 100 * record["differing"] / record["elements"]


def _share(record: dict[str, Any]) -> str:
    return f"{_percent(record):.2g} %" if record["differing"] else "0"


def _table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)
