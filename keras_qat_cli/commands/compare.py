"""Compares two models, Keras or .tflite: accuracy, agreement, size and latency, side by side."""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Mapping
from typing import Any

from keras_qat_cli.arguments import add_data, add_kernels, count, number
from keras_qat_cli.console import Outcome, table, tracked
from keras_qat_cli.errors import UsageError

HELP = "two models side by side: accuracy, agreement, size, latency"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("first", help="a .keras, .h5 or .tflite file")
    parser.add_argument("second", help="another")
    add_kernels(parser, "default", ("reference", "default"))
    parser.add_argument(
        "--threads", type=count, default=1, metavar="N", help="of a .tflite file (default: 1)"
    )
    parser.add_argument(
        "--runs",
        type=count,
        default=20,
        metavar="N",
        help="how often one sample is run, in turns, for the median latency (default: 20)",
    )
    parser.add_argument(
        "--min-agreement",
        type=number,
        default=0.0,
        metavar="PART",
        help="exit with 1 if they agree on less than this part, such as 0.99",
    )
    add_data(
        parser, "what both are run on, with targets for the accuracy", required=True, samples=None
    )


def run(options: argparse.Namespace) -> Outcome:
    """Runs the command."""
    from keras_qat_cli.data import open_data
    from keras_qat_cli.models import open_model

    paths = (options.first, options.second)
    models = [open_model(path, options.kernels, options.threads) for path in paths]
    data = open_data(options, models[0].inputs)
    tally = _Tally()
    first = None
    for batch in tracked(data.pairs(), "compare", data.count):
        inputs, targets = _real(batch[0]), batch[1]
        first = inputs if first is None else first
        tally.add([model.predict(inputs) for model in models], targets)
    latencies = _latencies(models, first, options.runs)
    sizes = [os.path.getsize(path) for path in paths]
    rows = [
        {"file": path, "kind": model.kind, "accuracy": accuracy, "size": size, "latency_ms": each}
        for path, model, accuracy, size, each in zip(
            paths, models, tally.accuracies(), sizes, latencies, strict=True
        )
    ]
    found = {"models": rows, **tally.to_dict()}
    code = 1 if tally.agreement < options.min_agreement else 0
    return Outcome(_text(rows, tally), found, code)


class _Tally:
    """What was counted over all batches."""

    def __init__(self):
        self.samples = self.predictions = self.agreeing = 0
        self.labelled = 0
        self.correct = [0, 0]
        self.largest_difference = 0.0

    @property
    def agreement(self) -> float:
        """Part of the predictions that are the same."""
        return self.agreeing / self.predictions

    def accuracies(self) -> list[float | None]:
        """Of each model; None without targets."""
        if not self.labelled:
            return [None, None]
        return [correct / self.labelled for correct in self.correct]

    def to_dict(self) -> dict[str, Any]:
        """What is about both models."""
        return {
            "samples": self.samples,
            "agreement": self.agreement,
            "largest_difference": self.largest_difference,
        }

    def add(self, outputs: list[Any], targets: Any) -> None:
        """Counts a batch: the outputs of both models, and the targets or None."""
        import numpy as np

        pairs = _paired(*outputs)
        self.samples += len(pairs[0][0])
        for one, other in pairs:
            same = _classes(one) == _classes(other)
            self.predictions += same.size
            self.agreeing += int(same.sum())
            gap = np.abs(one.astype("float64") - other).max(initial=0.0)
            self.largest_difference = max(self.largest_difference, float(gap))
        if targets is None:
            return
        if len(pairs) > 1:
            raise UsageError(
                "The accuracy of several outputs is not one number.",
                fix="Give data without targets.",
            )
        wanted = _labels(np.asarray(targets), pairs[0][0])
        self.labelled += wanted.size
        for i, output in enumerate(pairs[0]):
            self.correct[i] += int((_classes(output) == wanted).sum())


def _paired(first: Any, second: Any) -> list[tuple[Any, Any]]:
    """The outputs of both models, by name where both have the same, else in order."""
    from keras_qat_cli.models import outputs_by_name

    one, other = outputs_by_name(first), outputs_by_name(second)
    names = list(one) if one.keys() == other.keys() else list(other)
    pairs = list(zip(one.values(), (other[name] for name in names), strict=False))
    if len(one) != len(other) or any(a.shape != b.shape for a, b in pairs):
        raise UsageError(
            "The models have different outputs.",
            received=" and ".join(
                str({name: x.shape for name, x in outputs.items()}) for outputs in (one, other)
            ),
        )
    return pairs


def _classes(output: Any) -> Any:
    """What is predicted: the largest of several values; of one value whether it is above 0.5."""
    import numpy as np

    output = output if output.ndim > 1 else output[:, None]
    if output.shape[-1] > 1:
        return np.argmax(output, axis=-1)
    return (output[..., 0] > 0.5).astype("int64")


def _labels(targets: Any, output: Any) -> Any:
    """Targets as numbers of classes: they may be one-hot, or have a last axis of one."""
    shape = output.shape[:-1] if output.ndim > 1 else output.shape
    if targets.shape == output.shape and output.ndim > 1:
        return _classes(targets)
    if targets.shape in (shape, (*shape, 1)):
        return targets.reshape(shape)
    raise UsageError(
        "The targets do not go with the outputs.",
        received=f"targets of shape {targets.shape}, outputs of {output.shape}",
        expected=f"numbers of classes of shape {shape}, or one-hot {output.shape}",
    )


def _real(inputs: Any) -> Any:
    """8-bit arrays as real values: a file would take those of its own type as they are."""
    if isinstance(inputs, Mapping):
        return {name: _real(value) for name, value in inputs.items()}
    if isinstance(inputs, tuple | list):
        return tuple(map(_real, inputs))
    import numpy as np

    array = np.asarray(inputs)
    return array.astype("float32") if array.dtype.itemsize == 1 else array


def _latencies(models: list[Any], inputs: Any, runs: int) -> list[float]:
    """Median milliseconds of one sample; the models take turns, so that both have the same luck."""
    import keras

    sample = keras.tree.map_structure(lambda array: array[:1], inputs)
    times: list[list[float]] = [[] for _ in models]
    for turn in range(runs + 1):
        for model, own in zip(models, times, strict=True):
            start = time.perf_counter()
            model.predict(sample)
            if turn:  # the first prepares
                own.append(1000 * (time.perf_counter() - start))
    return [statistics.median(own) for own in times]


def _text(rows: list[dict[str, Any]], tally: _Tally) -> str:
    cells = [
        (
            row["file"],
            row["kind"],
            "" if row["accuracy"] is None else f"{row['accuracy']:.4f}",
            f"{row['size']:,}",
            f"{row['latency_ms']:.3f}",
        )
        for row in rows
    ]
    headings = ("model", "kind", "accuracy", "bytes", "ms per sample")
    return (
        f"{table(f'Over {tally.samples} samples', headings, cells, texts=2)}\n"
        f"They agree on {tally.agreeing} of {tally.predictions} predictions "
        f"({100 * tally.agreement:.2f} %); outputs differ by {tally.largest_difference:g} at most."
    )
