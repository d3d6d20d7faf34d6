"""Compares a quantized model with its .tflite file, tensor by tensor, integer by integer."""

from __future__ import annotations

import argparse

from keras_qat_cli.arguments import add_data, add_kernels
from keras_qat_cli.console import Outcome, tracked

HELP = "check that a .tflite file computes the same as its Keras model"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("model", help="the quantized model, as `keras-qat quantize` saves it")
    parser.add_argument("file", help="the .tflite file that was exported from it")
    add_kernels(parser, None)
    add_data(parser, "data for both", required=True, samples=500)


def run(options: argparse.Namespace) -> Outcome:
    """Runs the command. A proof of exactness needs the kernels of the model's target."""
    import keras_qat
    from keras_qat_cli.data import open_data
    from keras_qat_cli.models import inputs_of_keras, load_keras

    model = load_keras(options.model)
    data = open_data(options, inputs_of_keras(model))
    tracked_data = tracked(data, "verify", data.count)
    report = keras_qat.verify(model, options.file, tracked_data, kernels=options.kernels, verbose=0)
    return Outcome(str(report), report.to_dict(), code=0 if report.exact else 1)
