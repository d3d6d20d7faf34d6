"""Observes the tensors of a quantized model in one pass over data."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.backend import on_one_replica
from keras_qat.data.batches import Batch
from keras_qat.errors import InvalidDataError
from keras_qat.graph import Edge, Node, read_model
from keras_qat.graph.reading import tensors_by_edge
from keras_qat.layers import QuantizedLayer, QuantizedModel
from keras_qat.layers.core.modes import float_mode
from keras_qat.layers.models.input_stats import input_boundaries
from keras_qat.quantizers import Outliers, RangeObserver, RangeRule, find_outliers

Range = tuple[RangeObserver, float, float]

# Tensors with so many values for each sample are computed in a compiled function, which keeps only
# those that it needs later. Fewer are computed eagerly, if there is only one batch of data.
_MOST_EAGER = 2**17


class Extremes(keras.layers.Layer):
    """The smallest and the largest value of each sample of some tensors, of shape (samples, 2)."""

    def call(self, inputs):
        """Computes both values of each tensor."""
        return [_extremes(x) for x in inputs]

    def compute_output_spec(self, inputs):
        """Returns the shapes of the outputs, which Keras would find by tracing the call."""
        return [keras.KerasTensor((x.shape[0], 2), x.dtype) for x in inputs]


def check_width(name: str, minimum: Any, maximum: Any) -> None:
    """Raises if float32 cannot represent the width of a range.

    Args:
        name: Name of the layer that makes the tensor.
        minimum: Smallest value on the data.
        maximum: Largest value on the data.

    Raises:
        InvalidDataError: If the width overflows.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        finite = np.isfinite(np.float32(maximum) - np.float32(minimum))
    if not finite:
        raise InvalidDataError(
            "The values of a tensor overflow float32 on this data.",
            layer=name,
            received=f"the range {minimum:g} to {maximum:g}",
            fix="Scale the data as it was for training.",
        )


def observed_tensors(model: QuantizedModel) -> Iterator[tuple[Node, RangeObserver, Any]]:
    """Yields each observer with its tensor, and the node that makes the tensor.

    Args:
        model: A quantized model.
    """
    tensors = tensors_by_edge(model)
    for node in read_model(model).nodes.values():
        if not isinstance(node.head, QuantizedLayer):
            continue
        for part, observer in node.head.observers().items():
            tensor = tensors[Edge(node.name)]
            name = f"keras_qat_{node.name}_{observer.name}"
            if part != "output":
                compute = functools.partial(node.head.inner_tensor, part)
                inputs = [tensors[edge] for edge in node.inputs]
                tensor = keras.layers.Lambda(compute, dtype="float32", name=name)(
                    inputs[0] if len(inputs) == 1 else inputs
                )
            elif type(node.head).observed_values is not QuantizedLayer.observed_values:
                compute = node.head.observed_values
                tensor = keras.layers.Lambda(compute, dtype="float32", name=name)(tensor)
            yield node, observer, tensor


def observe(
    model: QuantizedModel, data: Iterable[Batch], bar: keras.utils.Progbar, rule: RangeRule
) -> tuple[list[Range], list[Outliers]]:
    """Observes the tensors of a model in one pass over data.

    Args:
        model: A quantized model.
        data: Batches of its inputs.
        bar: A progress bar, which is updated with the number of batches.
        rule: The rule for the ranges.

    Returns:
        The range of each tensor, with its observer, and the outliers: samples that are left out if
        the rule sets outliers aside, and samples that alone make a range wide.

    Raises:
        InvalidDataError: If the values of a tensor overflow float32.
    """
    found = list(observed_tensors(model))
    if not found:
        return [], []
    seen = _seen(model, [tensor for _, _, tensor in found], data, bar, rule)
    outliers, kept = [], np.ones(seen.extremes.shape[1], bool)
    if rule.sets_outliers_aside:
        outliers, kept = find_outliers(seen.sizes, _allowed_sizes(model, seen.are_pixels))
    ends = seen.extremes[:, kept]
    ranges = []
    for (node, observer, _), own, sums in zip(found, ends, seen.sums, strict=True):
        check_width(node.name, own[:, 0].min(), own[:, 1].max())
        is_pixels = seen.are_pixels.get(node.inputs[0].node)
        minimum, maximum = (0.0, 255.0) if is_pixels else rule.range_of(own, sums, node.head.scheme)
        ranges.append((observer, minimum, maximum))
    observers = [(node.name, observer) for node, observer, _ in found]
    outliers += _kept_outliers(observers, np.abs(ends).max(axis=2))
    return ranges, outliers


@dataclasses.dataclass(frozen=True)
class _Seen:
    """The observations of the calibration data.

    Attributes:
        extremes: The smallest and the largest value of each sample, of shape (tensors, samples, 2).
        sums: The sums of the rule over all batches, for each tensor. None if the rule has none.
        sizes: The largest magnitude of each sample in each input, by name.
        are_pixels: Whether all data of an input is uint8, by name.
    """

    extremes: np.ndarray
    sums: list[Any]
    sizes: dict[str, np.ndarray]
    are_pixels: dict[str, bool]


def _sums_of(rule: RangeRule, tensor: Any, index: int) -> Any:
    """Returns the tensor that a rule adds up over batches, or None if it needs only the extremes.

    The operations of the rule are in a layer of their own, because their names could be names of
    layers of the model.
    """
    if rule.sums(ops.cast(tensor, "float32")) is None:
        return None
    return keras.layers.Lambda(rule.sums, dtype="float32", name=f"keras_qat_sums_{index}")(tensor)


def _seen(
    model: QuantizedModel,
    tensors: Sequence[Any],
    data: Iterable[Batch],
    bar: keras.utils.Progbar,
    rule: RangeRule,
) -> _Seen:
    """Computes the extremes of each sample, and the sums of the rule, over all batches."""
    # A policy of half precision would round the extremes.
    extremes_of = Extremes(dtype="float32", name="keras_qat_extremes")(list(tensors))
    sums_of = [_sums_of(rule, tensor, i) for i, tensor in enumerate(tensors)]
    outputs = [extremes_of, [tensor for tensor in sums_of if tensor is not None]]
    extremes: list[np.ndarray] = []
    sizes: list[np.ndarray] = []
    sums: list[Any] = [None] * len(tensors)
    pixels = [True] * len(model.inputs)
    values = sum(math.prod(size or 1 for size in tensor.shape[1:]) for tensor in tensors)
    with float_mode():
        observed = keras.Model(model.inputs, outputs)
        compute = on_one_replica(observed, trace_first=values > _MOST_EAGER)
        for batch in data:
            own, added = compute(list(batch))
            extremes.append(np.stack([_by_sample(each, len(batch[0])) for each in own]))
            if added:
                added = [each.astype("float64") for each in added]
                sums = added if sums[0] is None else list(map(np.add, sums, added))
            sizes.append(np.stack([_sizes(x) for x in batch]))
            pixels = [p and x.dtype == np.uint8 for p, x in zip(pixels, batch, strict=True)]
            bar.update(len(extremes))
    bar.update(len(extremes), finalize=True)
    inputs = read_model(model).inputs
    return _Seen(
        np.concatenate(extremes, axis=1),
        sums,
        dict(zip(inputs, np.concatenate(sizes, axis=1), strict=True)),
        dict(zip(inputs, pixels, strict=True)),
    )


def _kept_outliers(observers: list[tuple[str, RangeObserver]], sizes: np.ndarray) -> list[Outliers]:
    """Returns samples that are far larger than all others in a tensor, but are not set aside."""
    found = []
    for (name, observer), own in zip(observers, sizes.astype("float64"), strict=True):
        allowed = max(map(abs, observer.specification.usual_range or (0.0,)))
        found += find_outliers({name: own}, {name: allowed})[0]
    return [dataclasses.replace(each, is_kept=True) for each in found]


def _extremes(x: Any) -> Any:
    """Returns the smallest and the largest value of each sample of a tensor."""
    axes = tuple(range(1, len(x.shape)))
    ends = (ops.min(x, axes), ops.max(x, axes)) if axes else (x, x)
    return ops.stack(ends, axis=1)


def _by_sample(extremes: np.ndarray, samples: int) -> np.ndarray:
    """Returns extremes for each sample. A tensor without the axis of samples has one pair.

    Where parts of a sample are merged into the batch, each sample has several pairs.
    """
    parts = extremes.reshape(1 if len(extremes) % samples else samples, -1, 2)
    ends = np.stack([parts[..., 0].min(axis=1), parts[..., 1].max(axis=1)], axis=1)
    return np.broadcast_to(ends, (samples, 2))


def _sizes(x: np.ndarray) -> np.ndarray:
    """Returns the largest magnitude of each sample."""
    flat = x.reshape(len(x), -1)
    return np.maximum(np.abs(flat.min(axis=1), dtype="float64"), flat.max(axis=1))


def _allowed_sizes(model: QuantizedModel, are_pixels: dict[str, bool]) -> dict[str, float]:
    """Returns the magnitude of each input that is no outlier: infinite for ids and pixels."""
    allowed = {}
    for name, boundary in input_boundaries(model):
        known = (0.0, 0.0)
        if boundary is not None and boundary.stats is not None:
            known = boundary.stats.range
        elif boundary is not None and boundary.observer is not None:
            known = boundary.observer.specification.usual_range or known
        is_any_right = boundary is None or are_pixels[name]
        allowed[name] = np.inf if is_any_right else max(map(abs, known))
    return allowed
