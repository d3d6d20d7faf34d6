"""calibrate: observes the range of every activation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.data import Batch, batches, count_batches
from keras_qat.errors import InvalidDataError, NotQuantizedError
from keras_qat.graph import Edge, read_model
from keras_qat.graph.reading import tensors_by_edge
from keras_qat.layers import QuantizedLayer, QuantizedModel, float_mode


def calibrate(
    model: QuantizedModel, data: Any, steps: int | None = None, *, verbose: int | str = "auto"
) -> None:
    """Sets the range of every activation to what it takes on data, computed in float.

    The old ranges are forgotten. Data of dtype uint8 gives an input the range 0 to 255, whatever
    values it has, so that a file with uint8 inputs takes pixels as they are.

    Args:
        model: A model from `keras_qat.quantize_model`.
        data: A numpy array (a tuple, or a dict by input name, for several inputs); or a
            `tf.data.Dataset`, generator, or list of batches or samples. A few hundred samples
            like those of the deployment are enough.
        steps: How many batches to use; None for all.
        verbose: 0 for no progress bar, 1 for one, `"auto"` for 1.

    Raises:
        NotQuantizedError: If the model was not made by `quantize_model`.
        InvalidDataError: If the data is empty, does not fit the model, or is not finite. The
            model is not changed then.

    Example:
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> import keras_qat
    >>> qat = keras_qat.quantize_model(model)
    >>> calibrate(qat, np.eye(4, dtype="float32"), verbose=0)
    """
    if not isinstance(model, QuantizedModel):
        raise NotQuantizedError(
            "Only a quantized model can be calibrated.",
            received=f"a {type(model).__name__}",
            fix="Pass what `keras_qat.quantize_model` returned.",
        )
    count = count_batches(data, model)
    target = steps if count is None else min(count, steps or count)
    bar = keras.utils.Progbar(target, verbose=0 if verbose == 0 else 1, unit_name="batch")
    ranges = list(_observe(model, batches(data, model, steps=steps), bar))
    for layer, _, _ in ranges:
        layer.observer.reset()
    for layer, minimum, maximum in ranges:
        layer.observer.widen(minimum, maximum)


class _Extremes(keras.layers.Layer):
    """The smallest and largest value of a batch, of shape (1, 2)."""

    def call(self, inputs):
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


def _observe(
    model: QuantizedModel, data: Iterable[Batch], bar: keras.utils.Progbar
) -> Iterator[tuple[QuantizedLayer, float, float]]:
    """Yields each observed layer with its smallest and largest output over all batches."""
    graph, tensors = read_model(model), tensors_by_edge(model)
    nodes = [node for node in graph.nodes.values() if getattr(node.head, "observer", None)]
    if not nodes:
        return
    outputs = [_Extremes()(tensors[Edge(node.name)]) for node in nodes]
    observer = keras.Model(model.inputs, outputs)
    seen: list[np.ndarray] = []
    pixels = [True] * len(model.inputs)
    with float_mode():
        for batch in data:
            extremes = keras.tree.flatten(observer.predict_on_batch(list(batch)))
            seen.append(np.concatenate(extremes))
            pixels = [p and x.dtype == np.uint8 for p, x in zip(pixels, batch, strict=True)]
            bar.update(len(seen))
    bar.update(len(seen), finalize=True)
    are_pixels = dict(zip(graph.inputs, pixels, strict=True))
    low, high = np.min(seen, axis=0)[:, 0], np.max(seen, axis=0)[:, 1]
    for node, minimum, maximum in zip(nodes, low, high, strict=True):
        _check_width(node.name, minimum, maximum)
        if are_pixels.get(node.inputs[0].node):
            minimum, maximum = 0, 255
        yield node.head, float(minimum), float(maximum)
