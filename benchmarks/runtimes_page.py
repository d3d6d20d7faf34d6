"""The text of docs/runtimes.md around what benchmarks/runtimes.py measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

PAGE = """\
# Two runtimes

Written by `python benchmarks/runtimes.py`: do not edit.

LiteRT has two sets of kernels. Inference in Keras equals the *reference* kernels, which TensorFlow
Lite Micro and CMSIS-NN follow, but for [a step in dense layers](targets.md). The *default* ones,
XNNPACK and LiteRT's optimized kernels, run on phones and PCs, and round some operators in another
way. This page says which, how often, and what follows for how layers are written.

Measured with ai-edge-litert {litert}, numpy {numpy}, on {machine}, one thread. XNNPACK has other
code for other processors.

## Operator by operator

Each operator of each contract case (`tests/layers`) was cut out into a file of its own, and run by
both runtimes on the inputs that it has in the case's model, so that differences do not add up:
{seeds} seeds, {scales} scales of the data, ranges as calibrated. A difference of 1 is one step of
the output.

{operators}

In convolutions, products and averages the differences come from one rule. The reference kernels
multiply an int32 sum by a 31-bit fraction, round to an integer, shift it right and round *again*;
XNNPACK multiplies in float32 and rounds once. Where the shift is k bits, about one sum in 2^(k+1)
is rounded to a tie first, and then the wrong way. Convolutions shift by some 8 bits, products of
two tensors by some 6, averages of whole images by 1 to 5.

## What is written otherwise, or avoided

{choices}

**Leaky ReLU** is LEAKY_RELU, with the integers of the reference kernel; XNNPACK's has multipliers
of 8 bits. PRELU with a constant slope, whose kernels agree, takes many times as long
([performance](performance.md)): `activations="lookup"` has it, and negative slopes get it.

**A change of range** on its own, QUANTIZE from int8 to int8, has such multipliers too, and is
rare: tensors that have to have one range share it from the beginning, in training as well
([one tensor, one range](README.md#one-tensor-one-range)). Only where a kernel prescribes the range
of one of them, as of a sigmoid before a concatenation, there is one. A QUANTIZE at the ends of a
file, from uint8, only shifts by 128.

**Bilinear resizing** is one RESIZE_BILINEAR with half-pixel centers, as in Keras. The reference
kernel knows positions in 1024ths of a pixel, XNNPACK the weights in 2048ths: at factors of 2 and 4
both are exact fractions and only ties differ; at others up to {resized:.0f} % of the elements do,
by several steps. No integer operator does the same in both runtimes at the same cost; where that
matters, use a factor of 2 or 4, or `interpolation="nearest"`, on which they agree.

**Transposed convolutions** get the shape of their output from SHAPE and ADD where the batch is
dynamic. Such a TRANSPOSE_CONV agrees with the reference; with a constant shape, which it has in a
file of [one batch size](targets.md#one-batch-size), XNNPACK takes it, and it does not quite.

**LOGISTIC, TANH and the like** look their results up in tables that the kernels make with functions
of the C library, which differ in their last bits. Where the exact result lies next to a rounding
tie, they would make two tables. So a scale is widened, by 0.8 % at most, until no entry of a table
lies within a thousandth of a step of a tie: that of the output, or of the input where the kernel
prescribes the output's. Where both are prescribed, as for the tanh of a sigmoid, nothing can be
widened; and `activations="lookup"` widens nothing. All other functions are lookups by CAST, ADD and
GATHER, whose table is in the file.

**ELU** is not among the reference kernels. Wherever this package speaks of them (`verify`,
`LiteRTModel(..., kernels="reference")`, `Runner`, the table above), ELU is LiteRT's own kernel that
no delegate replaces. It runs once on all 256 integers, and CAST, ADD and GATHER look its results up
in a copy of the file. Other programs that choose the reference kernels cannot load the file. The
kernel of microcontrollers computes `exp(x) - 1` in float32, and has other integers where the scale
of its input is below 2^-17.

**A ReLU or ReLU6 on its own** is an ADD of zero that fuses it. RELU and RELU6, which agree too, are
not taken by XNNPACK ([performance](performance.md)). They remain where the input's scale is more
than 256 times the output's.

## The average of an image

An average has a much narrower range than its image. LiteRT's MEAN gives it a range of its own, and
is the operator in which the runtimes differ most. By how much depends on one number, by which the
sum is multiplied, `input scale / (output scale * number of pixels)`; for 64 pixels:

{means}

Is there another way, with a range of its own, that costs nothing and on which both agree? For
images after a ReLU, the signal-to-noise ratio against the exact average of the same integers, the
time for one image, and vela's estimate for an Ethos-U55 with 128 multipliers:

{averages}

- AVERAGE_POOL_2D agrees everywhere and is fast, but has the range of its input: some 16 dB, more
  than 2 of 8 bits, are lost.
- A row of 127s in a BATCH_MATMUL agrees everywhere too, and is as exact as rounding once can be.
  But XNNPACK does not take it, the product transposes a copy of the image first, which doubles the
  memory, and the NPU needs three to four times as many cycles.
- A depthwise convolution by a kernel of 127s shifts by 7 bits more, and so differs 50 to 150 times
  less often. It has a weight for each pixel and channel, and XNNPACK is slow with such kernels.
- A sum in int32 agrees, at the cost of a tensor of four times the size; vela leaves all of it to
  the CPU.
- A MEAN over one axis, behind a RESHAPE, computes the same integers as over two.

So none costs nothing, and MEAN stays: the difference is one step of a tensor that has {db:.0f} dB,
and its reference integers are those of microcontrollers and of Keras.

## What adds up in a network, in int8 and uint8

A difference of one step goes on through all operators behind it, and a sum of hundreds of inputs
that each may differ is more likely to differ itself. Random weights damp nothing: in a deep network
of them the small shares above become large ones. Below is a MobileNet at 64x64 with the weights of
`applications_exact.py`, 8 images, on {network_cpu}: each kind of operator by itself, on the
inputs that it has in the reference runtime, and then all in a row, each on what the one before it
computed.

{networks}

So that a fifth of all elements differs is no fault of one operator, and not of uint8: int8 loses as
much. By itself no operator is more than one step away. In uint8 convolutions differ more often,
depthwise ones above all, by the rule above: one scale for all channels makes the multiplier of
most channels larger than a scale of their own would, and it shifts by fewer bits. `verify` lists
the layers in order: look for the first that differs.
"""


def page(results: dict[str, Any]) -> str:
    """Returns the page for what `runtimes.py` saved."""
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
    )


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
