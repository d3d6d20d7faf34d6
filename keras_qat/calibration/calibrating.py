"""Sets or suggests the ranges of activations from data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import keras

from keras_qat.calibration.equalizing import equalize
from keras_qat.calibration.methods import get_methods
from keras_qat.calibration.observing import Range, observe
from keras_qat.calibration.reconstructing import reconstruct
from keras_qat.data.batches import Batch, batches, count_batches
from keras_qat.errors import InvalidRangeRuleError, OutlierWarning, warn_user
from keras_qat.layers import QuantizedModel
from keras_qat.layers.kernels.weighted import WeightedLayer
from keras_qat.layers.models.finiteness import check_finite, layer_weight_errors
from keras_qat.layers.models.input_stats import check_input_stats
from keras_qat.layers.models.observed_ranges import named_observers
from keras_qat.layers.models.wrapped import quantized_model_in
from keras_qat.quantizers import MinMax, Outliers, RangeRule, get_range_rule


def calibrate(
    model: QuantizedModel,
    data: Any,
    steps: int | None = None,
    *,
    range_rule: str | RangeRule | None = None,
    method: str | Sequence[str] = (),
    verbose: int | str = "auto",
) -> None:
    """Sets the range of every activation to its range on data, computed in float.

    Samples with inputs far larger than those of all other samples are set aside, at most one in a
    hundred: one sample at 100 times its size would leave the others 3 of 255 steps. An
    `OutlierWarning` has the number of these samples, and `keras_qat.check` reports them. Training
    holds the ranges.

    The old ranges are discarded. An input with data of dtype uint8 gets the range 0 to 255, even
    if no value reaches the ends, so that a file with uint8 inputs takes pixels without conversion.
    An input that the model scales down like pixels, such as by a `Rescaling(1 / 255)`, gets the
    same range, for any data within 0 to 255 that takes more than a quarter of it. Resizing or
    augmentation may come before. If an input has `quantized_input_stats`, its range is only
    compared with the data. An `InputStatsWarning` reports a difference.

    Args:
        model: A model from `keras_qat.quantize_model`.
        data: A numpy array (a tuple, or a dict by input name, for several inputs); or a
            `tf.data.Dataset`, generator, or list of batches or samples. A few hundred samples
            like those of the deployment are enough.
        steps: The number of batches to use. None for all.
        range_rule: A name, or an object of `keras_qat.quantizers.range_rules`. `"robust"`: the
            smallest and the largest value of all samples that are not set aside. `"minmax"`: of all
            samples. `"moving_average"`: as `"robust"`, but training moves the ranges instead of
            holding them. `"percentile"`: without the rarest 0.01 % of all values at each end. Use
            `Percentile(99.9)` for another share. `"mse"`: the range with the least squared error.
            `"lsq"`: that range, which training learns, for a model that was made with
            `quantize_model(..., range_rule="lsq")`. None for the rule that the model has, which is
            `"robust"` unless it was made or calibrated with another one.
        method: Methods that change the weights, a name or a list of names, see
            `docs/post-training.md`. `"equalize"`: balances the channels between consecutive layers
            before the ranges are observed. In float the model computes the same. `"adaround"`:
            rounds each weight up or down such that the output of its layer changes least.
            `"bias_correction"`: removes the mean error of each channel. They are applied in this
            order. The data is kept in memory, and tensors between layers in temporary files.
        verbose: 0 for no progress bar, 1 or `"auto"` for a progress bar.

    Raises:
        NotQuantizedError: If the model was not made by `quantize_model`.
        InvalidRangeRuleError: If `range_rule` is unknown, or if either the rule or the model learns
            ranges, and the other does not.
        InvalidMethodError: If `method` has an unknown name.
        InvalidModelError: If a weight of the model is not finite.
        InvalidDataError: If the data is empty, does not fit the model, or is not finite. The
            model is then not changed.

    Example:
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> import keras_qat
    >>> import numpy as np
    >>> qat = keras_qat.quantize_model(model)
    >>> calibrate(qat, np.eye(4, dtype="float32"), verbose=0)
    """
    model = quantized_model_in(model, "calibrated")
    rule, methods = _rule(model, range_rule), get_methods(method)
    found, count = _batches(model, data, steps)
    if methods:
        found = list(found)
    if "equalize" in methods:
        equalize(model, found)
    ranges, outliers = _observed(model, found, count, verbose, rule)
    model.set_range_rule(rule)
    for observer, _, _ in ranges:
        observer.reset()
    for observer, minimum, maximum in ranges:
        keeps_calibration = observer.specification.keeps_calibration
        observer.widen(minimum, maximum, hold=keeps_calibration or rule.holds)
    for layer in model.layers:
        if isinstance(layer, WeightedLayer):
            layer.fit_weight_range()
    if {"adaround", "bias_correction"} & {*methods}:
        reconstruct(model, list(found), methods, verbose)
    model.calibration_outliers = [each.to_dict() for each in outliers]
    for each in outliers:
        if each.is_kept:
            continue
        warn_user(f"{each} {each.fix}", OutlierWarning)
    check_input_stats(model)


def _rule(model: QuantizedModel, value: str | RangeRule | None) -> RangeRule:
    """Returns the range rule of a calibration, after a check that the model's ranges allow it."""
    own = model.range_rule
    rule = own if value is None else get_range_rule(value)
    if rule.learns == own.learns:
        return rule
    raise InvalidRangeRuleError(
        "Learned ranges are variables of a model, so it has them from the start, or not at all.",
        received=f"range_rule={value!r}, for a model with {own}",
        expected="a rule that learns ranges" if own.learns else "a rule that does not learn ranges",
        fix=f"Make the model with `quantize_model(..., range_rule={rule.name!r})`.",
    )


def suggest_default_ranges(
    model: QuantizedModel, data: Any, steps: int | None = None, *, verbose: int | str = "auto"
) -> tuple[float, float] | None:
    """Finds a range that covers all values of all tensors that lack min/max data.

    Tensors with a default range lack min/max data too. The model is not changed.

    Args:
        model: A model from `keras_qat.quantize_model`.
        data: Data of the types that `calibrate` takes.
        steps: The number of batches to use; None for all.
        verbose: 0 for no progress bar, 1 or `"auto"` for a progress bar.

    Returns:
        The smallest and the largest value, for `default_ranges_stats` of `export_litert`. None if
        no tensor lacks min/max data.

    Raises:
        NotQuantizedError: If the model was not made by `quantize_model`.
        InvalidDataError: If the data is empty, does not fit the model, or is not finite.

    Example:
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, "relu", name="sum",
    ...                                                                 kernel_initializer="ones")])
    >>> import keras_qat
    >>> import numpy as np
    >>> qat = keras_qat.quantize_model(model)
    >>> suggest_default_ranges(qat, np.array([[-1.0, 2.0], [4.0, 3.0]], "float32"), verbose=0)
    (-1.0, 7.0)
    """
    model = quantized_model_in(model, "calibrated")
    observed, _ = _observed(model, *_batches(model, data, steps), verbose, MinMax())
    lacking = {id(own) for _, own in named_observers(model) if not own.is_observed}
    ranges = [(low, high) for observer, low, high in observed if id(observer) in lacking]
    if not ranges:
        return None
    lows, highs = zip(*ranges, strict=True)
    return min(lows), max(highs)


def _batches(
    model: QuantizedModel, data: Any, steps: int | None
) -> tuple[Iterable[Batch], int | None]:
    """Returns the batches of data, and their number if it is known."""
    check_finite(model, layer_weight_errors)
    count = count_batches(data, model)
    return batches(data, model, steps=steps), steps if count is None else min(count, steps or count)


def _observed(
    model: QuantizedModel,
    data: Iterable[Batch],
    count: int | None,
    verbose: int | str,
    rule: RangeRule,
) -> tuple[list[Range], list[Outliers]]:
    """Returns the range of each observer's tensor on data, and the outliers."""
    bar = keras.utils.Progbar(count, verbose=0 if verbose == 0 else 1, unit_name="batch")
    return observe(model, data, bar, rule)
