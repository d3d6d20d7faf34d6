"""Writes a quantized model as a .tflite file."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from keras_qat_cli.arguments import add_default_range, count, number, part
from keras_qat_cli.console import Outcome
from keras_qat_cli.errors import UsageError

HELP = "write a quantized model as a .tflite file"
_TYPES = ("int8", "uint8", "int16", "float32")
# Arguments of `keras_qat.DetectionPostProcess` besides the anchors.
_DETECTION = (
    "boxes",
    "num_classes",
    "scales",
    "max_detections",
    "score_threshold",
    "iou_threshold",
)


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
    _add_detection(parser)


def _add_detection(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of detectors: those of `keras_qat.DetectionPostProcess`."""
    group = parser.add_argument_group("detectors: decode boxes and drop overlapping ones")
    group.add_argument(
        "--anchors",
        metavar="FILE",
        help="an .npy of shape (n, 4): y center, x center, height and width of each anchor",
    )
    group.add_argument("--boxes", metavar="NAME", help="the output that has the boxes")
    group.add_argument(
        "--num-classes", type=count, metavar="N", help="number of classes, without a background"
    )
    group.add_argument(
        "--scales",
        type=number,
        nargs=4,
        metavar=("Y", "X", "H", "W"),
        help="what boxes are divided by (default: 1 1 1 1)",
    )
    group.add_argument(
        "--max-detections", type=count, metavar="N", help="most detections (default: 100)"
    )
    for name, what in (("score", "least score"), ("iou", "largest overlap")):
        group.add_argument(
            f"--{name}-threshold", type=part, metavar="X", help=f"{what} (default: 0.5)"
        )


def _detection(options: argparse.Namespace) -> Any:
    """Returns the post-processing of a detector, or None without anchors."""
    import numpy as np

    import keras_qat

    given = {name: getattr(options, name) for name in _DETECTION}
    given = {name: value for name, value in given.items() if value is not None}
    if options.anchors is None:
        if given:
            first = next(iter(given)).replace("_", "-")
            raise UsageError(
                "The arguments of detectors need anchors.",
                received=f"--{first} without --anchors",
                fix="Add --anchors anchors.npy.",
            )
        return None
    try:
        anchors = np.load(options.anchors, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(
            "The file of anchors cannot be read.", received=f"{options.anchors}: {error}"
        ) from error
    return keras_qat.DetectionPostProcess(anchors, **given)


def run(options: argparse.Namespace) -> Outcome:
    """Runs the command."""
    import keras_qat
    from keras_qat_cli.models import load_keras

    detection = _detection(options)
    model = load_keras(options.model)
    keras_qat.export_litert(
        model,
        options.output,
        inference_input_type=options.input_type,
        inference_output_type=options.output_type,
        default_ranges_stats=options.default_range and tuple(options.default_range),
        target=options.target,
        batch_size=options.batch_size,
        detection=detection,
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
