"""LiteRTModel: a deployed file with the methods of a Keras model."""

from __future__ import annotations

import functools
import os
from collections import Counter
from typing import Any

import keras
import numpy as np

from keras_qat.data.batches import Batch, batches, count_batches, labelled_batches
from keras_qat.data.scores import scores
from keras_qat.errors import LiteRTFormatError
from keras_qat.inspection import FileReport, inspect_litert
from keras_qat.litert import Runner
from keras_qat.litert_model.io_tensors import (
    as_data,
    file_inputs,
    names_of,
    raw_input,
    to_file_input,
    to_real,
)
from keras_qat.litert_model.summary import print_summary

_METRICS = ("accuracy",)
# The targets whose QUANTIZE rounds real values as the kernels do.
_TARGETS = {"default": "litert", "arm64": "litert-arm64", "tflite-micro": "tflite-micro"}
_THREADS = range(1, 2**31)  # the interpreter takes an int of 32 bits


class LiteRTModel:
    """A `.tflite` file that predicts and is evaluated like a Keras model.

    Data and results are real values. Inputs are quantized with their scale and zero point in the
    file, and outputs are dequantized. The same array gives the same result as in the quantized
    Keras model, whatever its dtype: uint8 pixels are the values 0 to 255. Files of any tool work
    if the first dimension of each input and output is the batch.

    Args:
        path: The file.
        kernels: `"default"` for XNNPACK and the optimized kernels, which LiteRT runs on phones and
            PCs; `"reference"` for the reference kernels; `"tflite-micro"` or `"arm64"` as for
            `keras_qat.verify`.
        num_threads: Threads that LiteRT's kernels in this process may use.
        raw_inputs: Whether arrays hold integers of the input's type in the file, which are passed
            to the interpreter unchanged, instead of real values.

    Attributes:
        input_names: Names of the inputs in the file's signature, else the tensors' names.
        output_names: Names of the outputs, likewise.
        inputs: `TensorDetails` of each input.
        outputs: `TensorDetails` of each output.
        report: The report of `keras_qat.inspect_litert` on the file.

    Raises:
        LiteRTFormatError: If the file cannot be read or run, `kernels` is unknown, or
            `num_threads` is not a positive number.
        MissingPackageError: If the kernels are not installed.

    Example:
    >>> import pathlib, tempfile, keras_qat
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> x = np.eye(4, dtype="float32")
    >>> qat = keras_qat.quantize_model(model)
    >>> keras_qat.calibrate(qat, x, verbose=0)
    >>> path = pathlib.Path(tempfile.mkdtemp(), "model.tflite")
    >>> _ = keras_qat.export_litert(qat, path)
    >>> deployed = LiteRTModel(path, kernels="reference")
    >>> bool((deployed.predict(x, verbose=0) == qat.predict(x, verbose=0)).all())
    True
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        kernels: str = "default",
        num_threads: int = 1,
        *,
        raw_inputs: bool = False,
    ):
        if (
            isinstance(num_threads, bool)
            or not isinstance(num_threads, int)
            or num_threads not in _THREADS
        ):
            raise LiteRTFormatError(
                "The number of threads must be a positive whole number.",
                received=f"num_threads={num_threads!r}",
            )
        rounding = functools.partial(to_file_input, target=_TARGETS.get(kernels, "reference"))
        self._to_input = raw_input if raw_inputs else rounding
        self.report: FileReport = inspect_litert(path)
        self._runner = Runner(path, kernels=kernels, num_threads=num_threads)
        self.inputs, self.outputs = self._runner.inputs, self._runner.outputs
        signature = next((s for s in self.report.signatures if s.subgraph == 0), None)
        ends = ({}, {}) if signature is None else (signature.inputs, signature.outputs)
        self.input_names = names_of(self.inputs, ends[0], "input")
        self.output_names = names_of(self.outputs, ends[1], "output")
        self._ends = file_inputs(self.inputs, self.input_names)

    def predict(
        self,
        x: Any,
        batch_size: int = 32,
        verbose: int | str = "auto",
        steps: int | None = None,
    ) -> Any:
        """Runs the file on data.

        Args:
            x: An array (a tuple, a list, or a dict by name, for several inputs); or a
                `tf.data.Dataset`, `keras.utils.PyDataset`, generator, or list of batches or
                samples. Targets in it are not used.
            batch_size: Size of a batch cut from arrays. A file with a fixed batch size is run as
                often as needed.
            verbose: 0 for nothing, 1 for a progress bar, 2 for one line; `"auto"` is 1.
            steps: How many batches at most; None for all.

        Returns:
            An array of real values, one row for each sample; a dict by `output_names` if there
            are several outputs.

        Raises:
            InvalidDataError: If the data is empty, does not fit the inputs or is not finite.
            LiteRTFormatError: If a kernel fails, or an output has no row for each sample.
        """
        bar = self._bar(x, batch_size, verbose, steps)
        parts: list[list[np.ndarray]] = []
        for batch in batches(x, self._ends, steps=steps, batch_size=batch_size):
            parts.append(self._run(batch))
            bar.update(len(parts))
        bar.update(len(parts), finalize=True)
        joined = [np.concatenate(column) for column in zip(*parts, strict=True)]
        return as_data(joined, self.output_names)

    def predict_on_batch(self, x: Any) -> Any:
        """Runs the file on one batch.

        Args:
            x: An array; a tuple or list of them, or a dict by name, for several inputs.

        Returns:
            Real values, in the form that `predict` returns.

        Raises:
            InvalidDataError: If the batch does not fit the inputs or is not finite.
            LiteRTFormatError: If a kernel fails, or an output has no row for each sample.
        """
        (batch,) = batches([x], self._ends)
        return as_data(self._run(batch), self.output_names)

    def evaluate(
        self,
        x: Any,
        y: Any = None,
        *,
        sample_weight: Any = None,
        metrics: Any = _METRICS,
        loss: Any = None,
        batch_size: int = 32,
        verbose: int | str = "auto",
        steps: int | None = None,
    ) -> dict[str, float]:
        """Computes Keras metrics of the file's predictions.

        Args:
            x: Data as for `predict`; without `y`, batches `(inputs, targets)` or
                `(inputs, targets, weights)`.
            y: The targets of arrays. For several outputs a list or a dict by name.
            sample_weight: A weight for each sample, used with `y`. For several outputs a dict by
                name. As in Keras, the loss is weighted and metrics are not.
            metrics: Metrics as `keras.Model.compile` takes them: names or objects, by name of the
                output if there are several. By default the accuracy of each output.
            loss: A loss as `compile` takes it, or None.
            batch_size: Size of a batch cut from arrays.
            verbose: 0 for nothing, 1 for a progress bar, 2 for one line; `"auto"` is 1.
            steps: How many batches at most; None for all.

        Returns:
            The metrics by name, and `"loss"` if there is one.

        Raises:
            InvalidDataError: If the data is empty, does not fit the inputs, is not finite, has no
                targets, or targets that the metrics do not take.
            LiteRTFormatError: If a kernel fails, or an output has no row for each sample.

        Example:
        >>> from keras_qat.litert import Model, Operator, Tensor, write
        >>> import pathlib, tempfile
        >>> ends = Tensor("x", (None, 2), "float32"), Tensor("y", (None, 2), "float32")
        >>> path = pathlib.Path(tempfile.mkdtemp(), "relu.tflite")
        >>> operator = Operator("RELU", ends[:1], ends[1:])
        >>> write(Model({"x": ends[0]}, {"y": ends[1]}, (operator,)), path)
        >>> LiteRTModel(path).evaluate(np.float32([[1, 2], [4, 3]]), np.array([1, 1]), verbose=0)
        {'accuracy': 0.5}
        """
        bar = self._bar(x, batch_size, verbose, steps)
        parts, labels, weights = [], [], []
        for batch, *rest in labelled_batches(
            x, self._ends, y, sample_weight, steps=steps, batch_size=batch_size
        ):
            parts.append(self._run(batch))
            labels.append(rest[0])
            weights.append(rest[1])
            bar.update(len(parts))
        outputs = [np.concatenate(column) for column in zip(*parts, strict=True)]
        found = scores(
            dict(zip(self.output_names, outputs, strict=True)),
            keras.tree.map_structure(_joined, *labels),
            keras.tree.map_structure(_joined, *weights),
            self._metrics(metrics),
            loss,
        )
        bar.update(len(parts), list(found.items()), finalize=True)
        return found

    def summary(self) -> None:
        """Prints the inputs, the outputs, the count of each operator, and the size of the file."""
        counts = Counter(operator.name for operator in self.report.operators)
        ends = [
            ("input", self.input_names, self.inputs),
            ("output", self.output_names, self.outputs),
        ]
        print_summary(self.report, ends, counts)

    def _run(self, batch: Batch) -> list[np.ndarray]:
        """Runs a batch."""
        size = len(batch[0])
        arrays = [self._to_input(x, t) for x, t in zip(batch, self.inputs, strict=True)]
        results = self._runner.run(arrays)
        for tensor, result in zip(self.outputs, results, strict=True):
            if result.shape[:1] != (size,):
                raise LiteRTFormatError(
                    f"The output {tensor.name!r} does not have one row for each sample.",
                    received=f"shape {result.shape} for {size} samples",
                    fix="Run the file with LiteRT's interpreter itself.",
                )
        rows = zip(results, self.outputs, strict=True)
        return [to_real(result, tensor) for result, tensor in rows]

    def _metrics(self, metrics: Any) -> Any:
        """Returns metrics as Keras takes them, with the default for each output."""
        if metrics is _METRICS and len(self.output_names) > 1:
            return {name: list(metrics) for name in self.output_names}
        return list(metrics) if isinstance(metrics, tuple) else metrics

    def _bar(
        self, x: Any, batch_size: int, verbose: int | str, steps: int | None
    ) -> keras.utils.Progbar:
        count = count_batches(x, self._ends, batch_size)
        target = steps if count is None else min(count, steps or count)
        return keras.utils.Progbar(target, verbose=1 if verbose == "auto" else int(verbose))


def _joined(*arrays: Any) -> np.ndarray | None:
    """Concatenates the arrays of all batches. Returns None if there are no arrays."""
    return None if arrays[0] is None else np.concatenate(arrays)
