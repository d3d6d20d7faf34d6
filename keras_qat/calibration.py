"""calibrate, suggest_default_ranges: observing the range of every activation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.data import Batch, batches, count_batches
from keras_qat.errors import InvalidDataError
from keras_qat.graph import Edge, Node, read_model
from keras_qat.graph.reading import tensors_by_edge
from keras_qat.layers import QuantizedLayer, QuantizedModel, float_mode
from keras_qat.layers.finiteness import check_finite, layer_weight_errors
from keras_qat.layers.input_stats import check_input_stats
from keras_qat.layers.quantized_model import named_observers
from keras_qat.layers.wrapped import quantized_model_in
from keras_qat.quantizers import RangeObserver


def calibrate(
    model: QuantizedModel, data: Any, steps: int | None = None, *, verbose: int | str = "auto"
) -> None:
    """Sets the range of every activation to what it takes on data, computed in float.

    The old ranges are forgotten. Data of dtype uint8 gives an input the range 0 to 255, whatever
    values it has, so that a file with uint8 inputs takes pixels as they are. So does an input that
    the model scales down as one does with pixels, by a `Rescaling(1 / 255)` or the like, for any
    data within 0 to 255 that takes more than a quarter of it; resizing, or augmentation, may come
    before. Of an input with `quantized_input_stats` the range is only compared; an
    `InputStatsWarning` says if it differs.

    Args:
        model: A model from `keras_qat.quantize_model`.
        data: A numpy array (a tuple, or a dict by input name, for several inputs); or a
            `tf.data.Dataset`, generator, or list of batches or samples. A few hundred samples
            like those of the deployment are enough.
        steps: How many batches to use; None for all.
        verbose: 0 for no progress bar, 1 for one, `"auto"` for 1.

    Raises:
        NotQuantizedError: If the model was not made by `quantize_model`.
        InvalidModelError: If a weight of the model is not finite.
        InvalidDataError: If the data is empty, does not fit the model, or is not finite. The
            model is not changed then.

    Example:
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> import keras_qat
    >>> qat = keras_qat.quantize_model(model)
    >>> calibrate(qat, np.eye(4, dtype="float32"), verbose=0)
    """
    model = quantized_model_in(model, "calibrated")
    ranges = _observed(model, data, steps, verbose)
    for observer, _, _ in ranges:
        observer.reset()
    for observer, minimum, maximum in ranges:
        observer.widen(minimum, maximum)
    check_input_stats(model)


def suggest_default_ranges(
    model: QuantizedModel, data: Any, steps: int | None = None, *, verbose: int | str = "auto"
) -> tuple[float, float] | None:
    """Finds a range that covers all values of all tensors that lack min/max data.

    The tensors that have a default range now lack it as well. The model is not changed.

    Args:
        model: A model from `keras_qat.quantize_model`.
        data: Data of the kinds that `calibrate` takes.
        steps: How many batches to use; None for all.
        verbose: 0 for no progress bar, 1 for one, `"auto"` for 1.

    Returns:
        The smallest and the largest value, for `default_ranges_stats` of `export_litert`; None if
        no tensor lacks min/max data.

    Raises:
        NotQuantizedError: If the model was not made by `quantize_model`.
        InvalidDataError: If the data is empty, does not fit the model, or is not finite.

    Example:
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, "relu", name="sum",
    ...                                                                 kernel_initializer="ones")])
    >>> import keras_qat
    >>> qat = keras_qat.quantize_model(model)
    >>> suggest_default_ranges(qat, np.array([[-1.0, 2.0], [4.0, 3.0]], "float32"), verbose=0)
    (-1.0, 7.0)
    """
    model = quantized_model_in(model, "calibrated")
    observed = _observed(model, data, steps, verbose)
    lacking = {id(own) for _, own in named_observers(model) if not own.is_observed}
    ranges = [(low, high) for observer, low, high in observed if id(observer) in lacking]
    if not ranges:
        return None
    lows, highs = zip(*ranges, strict=True)
    return min(lows), max(highs)


def _observed(
    model: QuantizedModel, data: Any, steps: int | None, verbose: int | str
) -> list[tuple[RangeObserver, float, float]]:
    """Each observer with the smallest and largest value of its tensor on data."""
    check_finite(model, layer_weight_errors)
    count = count_batches(data, model)
    target = steps if count is None else min(count, steps or count)
    bar = keras.utils.Progbar(target, verbose=0 if verbose == 0 else 1, unit_name="batch")
    return list(_observe(model, batches(data, model, steps=steps), bar))


class Extremes(keras.layers.Layer):
    """The smallest and largest value of a batch, of shape (1, 2)."""

    def call(self, inputs):
        """Computes both."""
        return ops.reshape(ops.stack([ops.min(inputs), ops.max(inputs)]), (1, 2))


def _check_width(name: str, minimum: np.float32, maximum: np.float32) -> None:
    """Raises if float32 cannot hold the width of a range."""
    with np.errstate(over="ignore", invalid="ignore"):
        finite = np.isfinite(maximum - minimum)
    if not finite:
        raise InvalidDataError(
            "The values of a tensor overflow float32 on this data.",
            layer=name,
            received=f"the range {minimum:g} to {maximum:g}",
            fix="Scale the data as it was for training.",
        )


def _tensors(model: QuantizedModel) -> Iterator[tuple[Node, RangeObserver, Any]]:
    """Yields each observer with its tensor, and the node that makes it."""
    tensors = tensors_by_edge(model)
    for node in read_model(model).nodes.values():
        if not isinstance(node.head, QuantizedLayer):
            continue
        if node.head.observer is not None:
            yield node, node.head.observer, tensors[Edge(node.name)]
        for observer, compute in node.head.inner_observations():
            inputs = [tensors[edge] for edge in node.inputs]
            tensor = keras.layers.Lambda(compute)(inputs[0] if len(inputs) == 1 else inputs)
            yield node, observer, tensor


def _observe(
    model: QuantizedModel, data: Iterable[Batch], bar: keras.utils.Progbar
) -> Iterator[tuple[RangeObserver, float, float]]:
    """Yields each observer with the smallest and largest value of its tensor over all batches."""
    found = list(_tensors(model))
    if not found:
        return
    model_of_extremes = keras.Model(model.inputs, [Extremes()(tensor) for _, _, tensor in found])
    seen: list[np.ndarray] = []
    pixels = [True] * len(model.inputs)
    with float_mode():
        for batch in data:
            extremes = keras.tree.flatten(model_of_extremes.predict_on_batch(list(batch)))
            seen.append(np.concatenate(extremes))
            pixels = [p and x.dtype == np.uint8 for p, x in zip(pixels, batch, strict=True)]
            bar.update(len(seen))
    bar.update(len(seen), finalize=True)
    are_pixels = dict(zip(read_model(model).inputs, pixels, strict=True))
    low, high = np.min(seen, axis=0)[:, 0], np.max(seen, axis=0)[:, 1]
    for (node, observer, _), minimum, maximum in zip(found, low, high, strict=True):
        _check_width(node.name, minimum, maximum)
        if are_pixels.get(node.inputs[0].node):
            minimum, maximum = 0, 255
        yield observer, float(minimum), float(maximum)
