"""Writes a quantized model as a .tflite file."""

from __future__ import annotations

import argparse
import dataclasses

from keras_qat_cli.arguments import add_default_range, count
from keras_qat_cli.console import Outcome

HELP = "write a quantized model as a .tflite file"
_TYPES = ("int8", "uint8", "float32")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("model", help="a quantized model, as `keras-qat quantize` saves it")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the .tflite file")
    for end in ("input", "output"):
        parser.add_argument(
            f"--{end}-type",
            choices=_TYPES,
            help=f"type of the {end}s (default: that of the model's scheme)",
        )
    add_default_range(parser)
    parser.add_argument(
        "--target",
        help="check that the file runs there (default: the target of the model)",
    )
    parser.add_argument(
        "--batch-size",
        type=count,
        metavar="N",
        help="size of every batch, so that all shapes are constants (default: dynamic)",
    )


def run(options: argparse.Namespace) -> Outcome:
    """Runs the command."""
    import keras_qat
    from keras_qat_cli.models import load_keras

    model = load_keras(options.model)
    keras_qat.export_litert(
        model,
        options.output,
        inference_input_type=options.input_type,
        inference_output_type=options.output_type,
        default_ranges_stats=options.default_range and tuple(options.default_range),
        target=options.target,
        batch_size=options.batch_size,
    )
    report = keras_qat.inspect_litert(options.output)
    text = (
        f"Wrote {options.output}: {report.size:,} bytes, {len(report.operators)} operators.\n"
        f"{report.oldest_runtime}\n"
        f"{report.verdict}"
    )
    data = {
        "file": options.output,
        "size": report.size,
        "operators": len(report.operators),
        "is_fully_integer": report.is_fully_integer,
        "oldest_runtime": dataclasses.asdict(report.oldest_runtime),
        "default_ranges": model.default_ranges,
    }
    return Outcome(text, data)
