"""Weights and ranges that are not finite: NaN outputs at inference, and errors by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.errors import InvalidModelError, NonFiniteWarning, warn_user
from keras_qat.layers.core.base import QuantizedLayer
from keras_qat.layers.kernels.weighted import WeightedLayer

# Times the largest float32 and 2^60 values, it is less than the largest float32.
_TINY = 2.0**-64


def all_finite(model: keras.Model) -> Any:
    """Returns whether all weights and ranges of a model are finite, as a tensor.

    Each call of a model computes it. Small variables are checked together: a network has hundreds
    of them, and an operation takes longer to trace and to start than to run.

    Args:
        model: A built model.

    Returns:
        bool scalar tensor.

    Example:
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> bool(all_finite(model))
    True
    """
    unused = {id(observer.seen) for layer in _quantized(model) for observer in _observers(layer)}
    values = [variable.value for variable in _floats(model) if id(variable) not in unused]
    if not values:
        return ops.convert_to_tensor(True)
    scalars = [value for value in values if len(value.shape) == 0]
    vectors = [value for value in values if len(value.shape) == 1]
    joined = [ops.stack(scalars)] if scalars else []
    joined += [ops.concatenate(vectors)] if vectors else []
    joined += [value for value in values if len(value.shape) > 1]
    # A sum is finite only if all terms are. Terms that are so small never add up to infinity.
    sums = [ops.sum(ops.multiply(value, _TINY)) for value in joined]
    return ops.isfinite(ops.sum(ops.stack(sums)))


def nan_unless_finite(outputs: Any, inputs: Any, is_finite: Any) -> Any:
    """Returns outputs that are NaN where a float model would compute NaN.

    Integers have no NaN: a cast makes it a number that looks like a result. XLA may also lose NaN
    in training, where values are clipped to a range. Infinite inputs are only clipped.

    Args:
        outputs: Tensors. The first axis is that of the samples.
        inputs: The tensors from which they were computed. A sample with a NaN has NaN outputs.
        is_finite: bool scalar tensor, whether the weights and ranges are finite.

    Returns:
        The outputs. Integer outputs stay unchanged. NaN propagates to gradients.

    Example:
    >>> x, y = ops.array([[0.5], [np.nan]]), ops.array([[1.0, 2.0], [3.0, 4.0]])
    >>> nan_unless_finite(y, x, ops.array(True)).numpy().tolist()
    [[1.0, 2.0], [nan, nan]]
    """
    is_number = ops.reshape(is_finite, (1,))
    for x in keras.tree.flatten(inputs):
        if _is_float(x):
            axes = tuple(range(1, len(x.shape)))
            has_nan = ops.any(ops.isnan(x), axis=axes) if axes else ops.isnan(x)
            is_number = ops.logical_and(is_number, ops.logical_not(has_nan))

    # Adding -0.0 changes no number, not even the sign of 0.
    added = ops.where(is_number, np.float32(-0.0), np.float32(np.nan))

    def marked(y):
        if not _is_float(y):
            return y
        return y + ops.reshape(added, (-1,) + (1,) * (len(y.shape) - 1))

    return keras.tree.map_structure(marked, outputs)


def finiteness_errors(layer: QuantizedLayer) -> Iterator[InvalidModelError]:
    """Yields an error for each weight and each range of a layer that is not finite.

    Args:
        layer: A built layer of a quantized model.
    """
    yield from layer_weight_errors(layer)
    for variable in _range_variables(layer):
        value = variable.numpy()
        if not np.isfinite(value):
            yield InvalidModelError(
                "A range is not finite.",
                layer=layer.name,
                received=f"{variable.path}: {value}",
                fix="Calibrate again: `keras_qat.calibrate(model, data)`.",
            )


def layer_weight_errors(layer: QuantizedLayer) -> Iterator[InvalidModelError]:
    """Yields an error for each weight or folded weight of a layer that is not finite.

    Args:
        layer: A built layer of a quantized model.
    """
    ranges = {id(variable) for variable in _range_variables(layer)}
    are_finite = True
    for variable in _floats(layer):
        count = 0 if id(variable) in ranges else _not_finite(variable)
        if count:
            are_finite = False
            yield InvalidModelError(
                "A weight has values that are not finite numbers.",
                layer=layer.name,
                received=f"{variable.path}: {count} NaN or infinite value(s)",
                fix="Train the model again from a checkpoint before it diverged.",
            )
    if are_finite and isinstance(layer, WeightedLayer) and layer.adds_bias:
        yield from _folding_errors(layer)


def check_finite(model: keras.Model, find: Any = finiteness_errors) -> None:
    """Raises if a weight or a range of a quantized model is not finite.

    Args:
        model: A model of quantized layers.
        find: A function that yields the errors of a layer: `layer_weight_errors` for weights only.

    Raises:
        InvalidModelError: If a weight or a range is not finite. Names the layer and the variable.
    """
    for layer in _quantized(model):
        for error in find(layer):
            raise error


def warn_of_nan(model: keras.Model) -> None:
    """Warns if outputs of a model are NaN because a weight or a range is not finite.

    Args:
        model: A model of quantized layers.
    """
    try:
        check_finite(model)
    except InvalidModelError as error:
        text = f"The outputs of '{model.name}' are NaN. {error}"
        warn_user(text, NonFiniteWarning)


def _folding_errors(layer: WeightedLayer) -> Iterator[InvalidModelError]:
    """Yields errors of folded weights: a root of a negative variance, or an overflow."""
    folded = layer.folded_weights()
    for name, values in (("kernel", folded.kernel), ("bias", folded.offset + folded.shifted)):
        count = _not_finite(values)
        if count:
            yield InvalidModelError(
                "Folded weights have values that are not finite numbers.",
                layer=layer.name,
                received=f"{layer.name}/{name}: {count} NaN or infinite value(s)",
                expected="moving_variance + epsilon > 0, and gamma / sqrt(moving_variance + "
                "epsilon) times the kernel within float32",
                fix="Train the model again from a checkpoint before it diverged.",
            )


def _range_variables(layer: QuantizedLayer) -> Iterator[Any]:
    for observer in _observers(layer):
        yield from (observer.minimum, observer.maximum)


def _quantized(model: keras.Model) -> Iterator[QuantizedLayer]:
    return (layer for layer in model.layers if isinstance(layer, QuantizedLayer))


def _observers(layer: QuantizedLayer) -> Iterable[Any]:
    return layer.observers().values()


def _not_finite(values: Any) -> int:
    """Returns the number of values that are NaN or infinite."""
    return int(ops.sum(ops.cast(ops.logical_not(ops.isfinite(values)), "int32")))


def _floats(layer: Any) -> list[Any]:
    return [v for v in layer.weights if keras.backend.is_float_dtype(v.dtype)]


def _is_float(x: Any) -> bool:
    return keras.backend.is_float_dtype(keras.backend.standardize_dtype(x.dtype))
