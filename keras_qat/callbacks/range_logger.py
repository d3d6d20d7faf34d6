"""A callback that logs ranges, clipping and signal-to-noise ratios."""

from __future__ import annotations

import csv
import dataclasses
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.calibration.observing import observed_tensors
from keras_qat.callbacks.configured import ConfiguredCallback
from keras_qat.data.batches import batches
from keras_qat.errors import InvalidTrainingError
from keras_qat.layers import QuantizedModel
from keras_qat.layers.core.modes import float_mode
from keras_qat.layers.models.observed_ranges import tensor_name
from keras_qat.quantizers import RangeParameters


@dataclasses.dataclass(frozen=True)
class TensorLog:
    """A tensor at one moment of the training.

    Attributes:
        tensor: Name of the tensor in the file.
        minimum: The smallest real value that an integer stands for.
        maximum: The largest one.
        clipped: The share of values beyond them.
        snr_db: The signal-to-noise ratio of the quantization, in dB.
    """

    tensor: str
    minimum: float
    maximum: float
    clipped: float
    snr_db: float


@keras.saving.register_keras_serializable("keras_qat")
class RangeLogger(ConfiguredCallback):
    """Logs, after each epoch, ranges, the share of clipped values, and signal-to-noise ratios.

    Weights are logged always, and activations on data: they are computed in float, and compared
    with their values on the grid of the moment.

    Args:
        data: Data for the inputs, of the types that `calibrate` takes; None for weights only. It is
            not part of the configuration.
        csv_path: A file to write, with a line for each epoch and tensor. None for no file.
        log_dir: A folder for TensorBoard, which TensorFlow writes. None for no folder.
        steps: The number of batches of the data to use; None for all.

    Raises:
        InvalidTrainingError: If there is neither a file nor a folder.

    Example:
    >>> RangeLogger(csv_path="ranges.csv").get_config()
    {'csv_path': 'ranges.csv', 'log_dir': None, 'steps': None}
    """

    def __init__(
        self,
        data: Any = None,
        *,
        csv_path: str | os.PathLike | None = None,
        log_dir: str | os.PathLike | None = None,
        steps: int | None = None,
    ):
        paths = [None if each is None else os.fspath(each) for each in (csv_path, log_dir)]
        super().__init__(csv_path=paths[0], log_dir=paths[1], steps=steps)
        if paths == [None, None]:
            raise InvalidTrainingError(
                "The callback has nothing to write to.",
                received="csv_path=None, log_dir=None",
                expected="a file, a folder, or both",
                fix='Write `csv_path="ranges.csv"`, or `log_dir="logs"`.',
            )
        self.data, self.steps = data, steps
        self.csv_path, self.log_dir = paths
        self._writer: Any = None

    def on_train_begin(self, logs=None):
        """Opens the files. A file of an earlier training is replaced."""
        del logs
        if self.csv_path is not None:
            with pathlib.Path(self.csv_path).open("w", newline="") as file:
                names = [field.name for field in dataclasses.fields(TensorLog)]
                csv.writer(file).writerow(["epoch", *names])
        if self.log_dir is not None:
            import tensorflow as tf

            self._writer = tf.summary.create_file_writer(self.log_dir)

    def on_epoch_end(self, epoch, logs=None):
        """Writes a line for each tensor."""
        del logs
        found = list(self.tensors())
        if self.csv_path is not None:
            with pathlib.Path(self.csv_path).open("a", newline="") as file:
                csv.writer(file).writerows((epoch, *dataclasses.astuple(each)) for each in found)
        if self._writer is not None:
            self._write_summaries(epoch, found)

    def on_train_end(self, logs=None):
        """Closes the folder's file."""
        del logs
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def tensors(self) -> Iterator[TensorLog]:
        """Yields the log of each kernel, and of each activation if there is data."""
        for layer in self.trained_kernels():
            integers, step = map(ops.convert_to_numpy, layer.kernel_integers())
            weights, rounded = ops.convert_to_numpy(layer.kernel), integers * step
            is_clipped = np.abs(weights - rounded) > 0.501 * np.abs(step)
            clipped, snr = _quality(weights, rounded, is_clipped)
            low, high = float(rounded.min()), float(rounded.max())
            yield TensorLog(f"{layer.name}/kernel", low, high, clipped, snr)
        for model in _quantized_models(self.model):
            if self.data is not None:
                yield from _activations(model, batches(self.data, model, steps=self.steps))

    def _write_summaries(self, epoch: int, found: list[TensorLog]) -> None:
        import tensorflow as tf

        # As `tf.summary.scalar` does, which needs TensorBoard.
        kind = tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars")
        metadata = tf.compat.v1.SummaryMetadata(plugin_data=kind, data_class="DATA_CLASS_SCALAR")
        with self._writer.as_default(step=epoch):
            for each in found:
                values = dataclasses.asdict(each)
                name = values.pop("tensor")
                for kind, value in values.items():
                    tf.summary.write(f"ranges/{name}/{kind}", value, metadata=metadata)
        self._writer.flush()


def _quantized_models(model: keras.Model) -> Iterator[QuantizedModel]:
    inner = [model, *getattr(model, "layers", ())]
    return (each for each in inner if isinstance(each, QuantizedModel))


def _activations(model: QuantizedModel, data: Any) -> Iterator[TensorLog]:
    """Yields the log of each observed tensor that has a range."""
    found = [each for each in observed_tensors(model) if each[1].is_observed]
    names, grids = [], []
    for node, observer, _ in found:
        part = next(key for key, each in node.head.observers().items() if each is observer)
        own = RangeParameters(node.head.scheme, [observer])
        names.append(tensor_name(node.name, part))
        grids.append(own if part != "output" else node.head.neighbours.output or own)
    with float_mode():
        compute = keras.Model(model.inputs, [tensor for _, _, tensor in found])
        parts = [compute.predict_on_batch(list(batch)) for batch in data]
    for i, (name, parameters) in enumerate(zip(names, grids, strict=True)):
        values = np.concatenate([np.reshape(part[i], -1) for part in parts]).astype("float64")
        scale, zero_point = (float(ops.convert_to_numpy(each)) for each in parameters.grid())
        scheme = found[i][0].head.scheme
        low, high = (
            (limit - zero_point) * scale
            for limit in (scheme.activation_low, scheme.activation_high)
        )
        rounded = np.clip(np.round(values / scale) * scale, low, high)
        is_clipped = (values < low - scale / 2) | (values > high + scale / 2)
        clipped, snr = _quality(values, rounded, is_clipped)
        yield TensorLog(name, low, high, clipped, snr)


def _quality(exact: np.ndarray, rounded: np.ndarray, is_clipped: Any) -> tuple[float, float]:
    """Returns the share of clipped values, and the signal-to-noise ratio in dB."""
    signal, noise = np.square(exact).sum(), np.square(rounded - exact).sum()
    ratio = signal / noise if noise > 0 else np.inf
    snr = 10 * np.log10(ratio) if ratio > 0 else 0.0
    return float(np.mean(is_clipped)), float(snr)
