"""Compares two models, Keras or .tflite: accuracy, agreement, size and latency, side by side."""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Mapping
from typing import Any

from keras_qat_cli.arguments import add_data, add_kernels, count, part
from keras_qat_cli.console import Outcome, table, tracked
from keras_qat_cli.errors import UsageError

HELP = "compare two models: accuracy, agreement, size, latency"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("first", help="a .keras, .h5 or .tflite file")
    parser.add_argument("second", help="another")
    add_kernels(parser, "default")
    parser.add_argument(
        "--threads", type=count, default=1, metavar="N", help="of a .tflite file (default: 1)"
    )
    parser.add_argument(
        "--runs",
        type=count,
        default=20,
        metavar="N",
        help="number of runs of one sample, for the median latency (default: 20)",
    )
    parser.add_argument(
        "--min-agreement",
        type=part,
        default=0.0,
        metavar="PART",
        help="exit with 1 if they agree on less than this part, such as 0.99",
    )
    add_data(
        parser, "data for both models, with targets for the accuracy", required=True, samples=None
    )


def run(options: argparse.Namespace) -> Outcome:
    """Runs the command."""
    from keras_qat_cli.data import open_data
    from keras_qat_cli.models import open_model
    from keras_qat_cli.tally import Tally

    paths = (options.first, options.second)
    models = [open_model(path, options.kernels, options.threads) for path in paths]
    data = open_data(options, models[0].inputs)
    tally = Tally()
    first = None
    for batch in tracked(data.pairs(), "compare", data.count):
        inputs, targets = _real(batch[0]), batch[1]
        first = inputs if first is None else first
        tally.add([model.predict(inputs) for model in models], targets)
    latencies = _latencies(models, first, options.runs)
    sizes = [os.path.getsize(path) for path in paths]
    rows = [
        {
            "file": path,
            "kind": model.kind,
            "accuracy": accuracy,
            "mean_absolute_error": error,
            "size": size,
            "latency_ms": latency,
        }
        for path, model, accuracy, error, size, latency in zip(
            paths, models, tally.accuracies(), tally.errors(), sizes, latencies, strict=True
        )
    ]
    found = {"models": rows, **tally.to_dict()}
    return Outcome(_text(rows, tally), found, _code(tally.agreement, options.min_agreement))


def _code(agreement: float | None, least: float) -> int:
    """Returns the exit code: 1 if the agreement is below the threshold."""
    if agreement is None and least:
        raise UsageError(
            "The agreement is not defined for targets that are not classes.",
            received=f"--min-agreement {least:g}",
            fix="Leave it out.",
        )
    return 0 if agreement is None or agreement >= least else 1


def _real(inputs: Any) -> Any:
    """Converts 8-bit arrays to real values. A file would use its own integer type unchanged."""
    if isinstance(inputs, Mapping):
        return {name: _real(value) for name, value in inputs.items()}
    if isinstance(inputs, tuple | list):
        return tuple(map(_real, inputs))
    import numpy as np

    array = np.asarray(inputs)
    return array.astype("float32") if array.dtype.itemsize == 1 else array


def _latencies(models: list[Any], inputs: Any, runs: int) -> list[float]:
    """Returns the median milliseconds of one sample. The models alternate for a fair comparison."""
    import keras

    sample = keras.tree.map_structure(lambda array: array[:1], inputs)
    times: list[list[float]] = [[] for _ in models]
    for turn in range(runs + 1):
        for model, own in zip(models, times, strict=True):
            start = time.perf_counter()
            model.predict(sample)
            if turn:  # the first run is a warm-up
                own.append(1000 * (time.perf_counter() - start))
    return [statistics.median(own) for own in times]


def _text(rows: list[dict[str, Any]], tally: Any) -> str:
    of_classes = tally.agreement is not None
    measure = "accuracy" if of_classes else "mean_absolute_error"
    cells = [
        (
            row["file"],
            row["kind"],
            "" if row[measure] is None else f"{row[measure]:{'.4f' if of_classes else '.4g'}}",
            f"{row['size']:,}",
            f"{row['latency_ms']:.3f}",
        )
        for row in rows
    ]
    headings = (
        "model",
        "kind",
        "accuracy" if of_classes else "mean error",
        "bytes",
        "ms per sample",
    )
    agreement = (
        f"They agree on {tally.agreeing} of {tally.predictions} predictions "
        f"({100 * tally.agreement:.2f} %); outputs"
        if of_classes
        else "Outputs"
    )
    return (
        f"{table(f'Over {tally.samples} samples', headings, cells, texts=2)}\n"
        f"{agreement} differ by {tally.largest_difference:g} at most."
    )
