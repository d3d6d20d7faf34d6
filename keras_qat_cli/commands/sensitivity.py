"""Ranks the layers of a model by the cost of their quantization."""

from __future__ import annotations

import argparse

from keras_qat_cli.arguments import (
    add_conversion,
    add_data,
    add_range_rules,
    conversion_options,
    range_options,
)
from keras_qat_cli.console import Outcome, is_terminal, say
from keras_qat_cli.pictures import picture_path, save_picture

HELP = "rank the layers by the cost of their quantization"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("model", help="a model that Keras saved: .keras or .h5; quantized or not")
    parser.add_argument(
        "--wider",
        metavar="SCHEME",
        help="the scheme of a layer that is left wider, such as int8 (default: float)",
    )
    parser.add_argument(
        "--metric",
        metavar="NAME",
        help="rank by a Keras metric, such as accuracy, instead of the signal-to-noise ratio; "
        "needs targets",
    )
    parser.add_argument(
        "--mode", choices=("max", "min"), default="max", help="the better metric (default: max)"
    )
    parser.add_argument(
        "--resume", metavar="FILE", help="keep the measurements here, and continue from them"
    )
    parser.add_argument("--csv", metavar="FILE", help="write the table into this file")
    parser.add_argument("--plot", metavar="FILE", help="draw it into this .png, .svg or .pdf file")
    add_data(parser, "for calibration and measurements", required=True, samples=256)
    add_conversion(parser)
    add_range_rules(parser)


def run(options: argparse.Namespace) -> Outcome:
    """Runs the command. A quantized model is measured with its own schemes."""
    import keras_qat
    from keras_qat_cli.data import open_data
    from keras_qat_cli.models import inputs_of_keras, load_keras

    picture = picture_path(options.plot)
    model = load_keras(options.model)
    data = open_data(options, inputs_of_keras(model))
    is_quantized = isinstance(model, keras_qat.layers.QuantizedModel)
    conversion = {} if is_quantized else conversion_options(options) | range_options(options)
    say(f"sensitivity: {options.model} on {options.data}")
    report = keras_qat.sensitivity(
        model,
        data,
        options.metric,
        wider=options.wider,
        mode=options.mode,
        path=options.resume,
        verbose=1 if is_terminal() else 0,
        **conversion,
    )
    if options.csv is not None:
        report.to_csv(options.csv)
    if picture is not None:
        save_picture(report.plot(), picture)
    return Outcome(str(report), report.to_dict())
