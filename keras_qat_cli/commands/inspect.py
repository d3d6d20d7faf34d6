"""Reports on any .tflite file: operators, tensors, costs, and whether it is fully integer."""

from __future__ import annotations

import argparse

from keras_qat_cli.console import Outcome

HELP = "report the content of any .tflite file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("file", help="a .tflite file")
    parser.add_argument(
        "--fully-integer", action="store_true", help="exit with 1 if the file is not fully integer"
    )


def run(options: argparse.Namespace) -> Outcome:
    """Runs the command."""
    import keras_qat

    report = keras_qat.inspect_litert(options.file)
    fails = options.fully_integer and not report.is_fully_integer
    return Outcome(str(report), report.to_dict(), code=1 if fails else 0)
