"""Reports the integer form of each layer of a model, and the problems of the conversion."""

from __future__ import annotations

import argparse

from keras_qat_cli.arguments import add_conversion, add_data, conversion_options
from keras_qat_cli.console import Outcome
from keras_qat_cli.pictures import picture_path, save_picture

HELP = "report the integer form of each layer, and the problems of the conversion"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("model", help="a model that Keras saved: .keras or .h5; quantized or not")
    parser.add_argument(
        "--strict", action="store_true", help="exit with 1 for warnings too, not only for errors"
    )
    parser.add_argument(
        "--plot", metavar="FILE", help="draw the ranges into this .png, .svg or .pdf file"
    )
    add_data(parser, "for findings about ranges", required=False, samples=128)
    add_conversion(parser)


def run(options: argparse.Namespace) -> Outcome:
    """Runs the command."""
    import keras_qat
    from keras_qat_cli.data import open_data
    from keras_qat_cli.models import inputs_of_keras, load_keras

    picture = picture_path(options.plot)
    model = load_keras(options.model)
    data = None if options.data is None else open_data(options, inputs_of_keras(model))
    report = keras_qat.check(model, calibration_data=data, **conversion_options(options))
    if picture is not None:
        save_picture(report.plot(), picture)
    found = report.findings if options.strict else report.errors
    return Outcome(str(report), report.to_dict(), code=1 if found else 0)
