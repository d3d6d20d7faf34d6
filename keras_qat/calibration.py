"""calibrate, suggest_default_ranges: observe the range of every activation."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.backend import on_one_replica
from keras_qat.data import Batch, batches, count_batches
from keras_qat.errors import (
    InvalidDataError,
    OutlierWarning,
    warn_user,
)
from keras_qat.graph import Edge, Node, read_model
from keras_qat.graph.reading import tensors_by_edge
from keras_qat.layers import QuantizedLayer, QuantizedModel
from keras_qat.layers.core.modes import float_mode
from keras_qat.layers.models.finiteness import check_finite, layer_weight_errors
from keras_qat.layers.models.input_stats import check_input_stats, input_boundaries
from keras_qat.layers.models.quantized_model import named_observers
from keras_qat.layers.models.wrapped import quantized_model_in
from keras_qat.quantizers import (
    MinMax,
    Outliers,
    RangeObserver,
    RangeRule,
    find_outliers,
    get_range_rule,
)

Range = tuple[RangeObserver, float, float]


def calibrate(
    model: QuantizedModel,
    data: Any,
    steps: int | None = None,
    *,
    range_rule: str | RangeRule = "robust",
    verbose: int | str = "auto",
) -> None:
    """Sets the range of every activation to its range on data, computed in float.

    Samples whose inputs are far larger than all others, at most one in a hundred, are set aside:
    one sample at 100 times its size would leave the others 3 of 255 steps. An `OutlierWarning`
    has their number, and `keras_qat.check` repeats it. Training holds the ranges.

    The old ranges are forgotten. An input with data of dtype uint8 gets the range 0 to 255, even
    if no value reaches the ends, so that a file with uint8 inputs takes pixels as they are. An
    input that the model scales down like pixels, such as by a `Rescaling(1 / 255)`, gets the
    same range, for any data within 0 to 255 that takes more than a quarter of it. Resizing or
    augmentation may come before. The range of an input with `quantized_input_stats` is only
    compared. An `InputStatsWarning` reports a difference.

    Args:
        model: A model from `keras_qat.quantize_model`.
        data: A numpy array (a tuple, or a dict by input name, for several inputs); or a
            `tf.data.Dataset`, generator, or list of batches or samples. A few hundred samples
            like those of the deployment are enough.
        steps: The number of batches to use; None for all.
        range_rule: A name, or an object of `keras_qat.quantizers.range_rules`. `"robust"`: the
            smallest and the largest value over all samples that are not set aside. `"minmax"`: over
            all samples. `"moving_average"`: as `"robust"`, and training moves the ranges instead of
            holding them. `"percentile"`: without the largest 0.01 % of all values at either end;
            `Percentile(99.9)` for another share.
        verbose: 0 for no progress bar, 1 or `"auto"` for a progress bar.

    Raises:
        NotQuantizedError: If the model was not made by `quantize_model`.
        InvalidRangeRuleError: If `range_rule` is unknown.
        InvalidModelError: If a weight of the model is not finite.
        InvalidDataError: If the data is empty, does not fit the model, or is not finite. The
            model is then not changed.

    Example:
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> import keras_qat
    >>> qat = keras_qat.quantize_model(model)
    >>> calibrate(qat, np.eye(4, dtype="float32"), verbose=0)
    """
    model = quantized_model_in(model, "calibrated")
    rule = get_range_rule(range_rule)
    ranges, outliers = _observed(model, data, steps, verbose, rule)
    model.set_range_rule(rule)
    for observer, _, _ in ranges:
        observer.reset()
    for observer, minimum, maximum in ranges:
        keeps_calibration = observer.specification.keeps_calibration
        observer.widen(minimum, maximum, hold=keeps_calibration or rule.holds)
    model.calibration_outliers = [each.to_dict() for each in outliers]
    for each in outliers:
        if each.is_kept:
            continue
        warn_user(f"{each} {each.fix}", OutlierWarning)
    check_input_stats(model)


def suggest_default_ranges(
    model: QuantizedModel, data: Any, steps: int | None = None, *, verbose: int | str = "auto"
) -> tuple[float, float] | None:
    """Finds a range that covers all values of all tensors that lack min/max data.

    The tensors that have a default range count as tensors that lack data. The model is not changed.

    Args:
        model: A model from `keras_qat.quantize_model`.
        data: Data of the types that `calibrate` takes.
        steps: The number of batches to use; None for all.
        verbose: 0 for no progress bar, 1 or `"auto"` for a progress bar.

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
    observed, _ = _observed(model, data, steps, verbose, MinMax())
    lacking = {id(own) for _, own in named_observers(model) if not own.is_observed}
    ranges = [(low, high) for observer, low, high in observed if id(observer) in lacking]
    if not ranges:
        return None
    lows, highs = zip(*ranges, strict=True)
    return min(lows), max(highs)


def _observed(
    model: QuantizedModel, data: Any, steps: int | None, verbose: int | str, rule: RangeRule
) -> tuple[list[Range], list[Outliers]]:
    """Returns the range of each observer's tensor on data, and the samples that were set aside."""
    check_finite(model, layer_weight_errors)
    count = count_batches(data, model)
    target = steps if count is None else min(count, steps or count)
    bar = keras.utils.Progbar(target, verbose=0 if verbose == 0 else 1, unit_name="batch")
    return _observe(model, batches(data, model, steps=steps), bar, rule)


class Extremes(keras.layers.Layer):
    """The smallest and the largest value of each sample, of shape (samples, 2)."""

    def call(self, inputs):
        """Computes both."""
        axes = tuple(range(1, len(inputs.shape)))
        ends = (ops.min(inputs, axes), ops.max(inputs, axes)) if axes else (inputs, inputs)
        return ops.stack(ends, axis=1)


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


def _tensors(model: QuantizedModel) -> Iterator[tuple[Node, RangeObserver, Any]]:
    """Yields each observer with its tensor, and the node that makes it."""
    tensors = tensors_by_edge(model)
    for node in read_model(model).nodes.values():
        if not isinstance(node.head, QuantizedLayer):
            continue
        for part, observer in node.head.observers().items():
            tensor = tensors[Edge(node.name)]
            if part != "output":
                compute = functools.partial(node.head.inner_tensor, part)
                inputs = [tensors[edge] for edge in node.inputs]
                name = f"keras_qat_{node.name}_{observer.name}"
                tensor = keras.layers.Lambda(compute, dtype="float32", name=name)(
                    inputs[0] if len(inputs) == 1 else inputs
                )
            yield node, observer, tensor


def _observe(
    model: QuantizedModel, data: Iterable[Batch], bar: keras.utils.Progbar, rule: RangeRule
) -> tuple[list[Range], list[Outliers]]:
    """Observes the tensors in one pass over the data, and leaves out outliers."""
    found = list(_tensors(model))
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
        minimum, maximum = (0.0, 255.0) if is_pixels else rule.range(own, sums)
        ranges.append((observer, minimum, maximum))
    observers = [(node.name, observer) for node, observer, _ in found]
    outliers += _kept_outliers(observers, np.abs(ends).max(axis=2))
    return ranges, outliers


@dataclasses.dataclass(frozen=True)
class _Seen:
    """The observations of the calibration data.

    Attributes:
        extremes: The smallest and the largest value of each sample, of shape (tensors, samples, 2).
        sums: What the rule adds up over the batches, for each tensor.
        sizes: The largest magnitude of each sample in each input, by name.
        are_pixels: Whether all data of an input is uint8, by name.
    """

    extremes: np.ndarray
    sums: list[Any]
    sizes: dict[str, np.ndarray]
    are_pixels: dict[str, bool]


def _sums_of(rule: RangeRule, tensor: Any, index: int) -> Any:
    """Returns what a rule adds up for a tensor, or None if the rule needs only the extremes.

    The operations of the rule are in a layer with a name of its own: their names could be those of
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
    # A policy of half precision would round the extremes.
    extremes_of = [
        Extremes(dtype="float32", name=f"keras_qat_extremes_{i}")(tensor)
        for i, tensor in enumerate(tensors)
    ]
    sums_of = [_sums_of(rule, tensor, i) for i, tensor in enumerate(tensors)]
    outputs = [extremes_of, [tensor for tensor in sums_of if tensor is not None]]
    extremes: list[np.ndarray] = []
    sizes: list[np.ndarray] = []
    sums: list[Any] = [None] * len(tensors)
    pixels = [True] * len(model.inputs)
    with float_mode():
        compute = on_one_replica(keras.Model(model.inputs, outputs))
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
    """Returns samples that are far larger than all others in a tensor, but not set aside."""
    found = []
    for (name, observer), own in zip(observers, sizes.astype("float64"), strict=True):
        allowed = max(map(abs, observer.specification.usual_range or (0.0,)))
        found += find_outliers({name: own}, {name: allowed})[0]
    return [dataclasses.replace(each, is_kept=True) for each in found]


def _by_sample(extremes: np.ndarray, samples: int) -> np.ndarray:
    """Returns extremes by samples of the model. Tensors without that axis have one pair for all."""
    if len(extremes) == samples:
        return extremes
    whole = [extremes[:, 0].min(), extremes[:, 1].max()]
    return np.broadcast_to(np.array(whole, extremes.dtype), (samples, 2))


def _sizes(x: np.ndarray) -> np.ndarray:
    """The largest magnitude of each sample."""
    flat = x.reshape(len(x), -1)
    return np.maximum(np.abs(flat.min(axis=1), dtype="float64"), flat.max(axis=1))


def _allowed_sizes(model: QuantizedModel, are_pixels: dict[str, bool]) -> dict[str, float]:
    """Returns the largest allowed magnitude of each input: infinite for ids and pixels."""
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
