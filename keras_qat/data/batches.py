"""Yields checked batches of model inputs, with or without targets."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

from keras_qat.data.elements import (
    TakesInputs,
    elements_of,
    inputs_of,
    is_array,
    tuple_of_inputs,
    with_targets,
)
from keras_qat.errors import InvalidDataError

Batch = tuple[np.ndarray, ...]


def batches(
    data: Any, model: TakesInputs, *, steps: int | None = None, batch_size: int = 32
) -> Iterator[Batch]:
    """Yields checked batches of a model's inputs.

    Args:
        data: A numpy array (or a tuple of arrays, or a dict, for several inputs); or a
            `tf.data.Dataset`, `keras.utils.PyDataset`, `torch.utils.data.DataLoader`, generator,
            or list of batches or of single samples (for several inputs also a list of one array
            for each, as in Keras). Elements may be `(inputs, targets)` or
            `(inputs, targets, weights)`; only the inputs are used. A dict has the keys of the dict
            from which the model was made, or else the names of the model's inputs.
        model: The model.
        steps: The largest number of batches. None for all.
        batch_size: Size of a batch cut from arrays, unless the model has a fixed one.

    Yields:
        A tuple with one array for each input, in the model's order. Batches for a model with a
        fixed batch size are cut into pieces of that size. The last piece is filled up with copies
        of its last sample.

    Raises:
        InvalidDataError: If there is no batch, or one has a wrong shape or type, or values that
            are not finite.

    Example:
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> [batch[0].shape for batch in batches(np.zeros((40, 4)), model)]
    [(32, 4), (8, 4)]
    """
    for batch, _ in counted_batches(data, model, steps=steps, batch_size=batch_size):
        yield batch


def counted_batches(
    data: Any, model: TakesInputs, *, steps: int | None = None, batch_size: int = 32
) -> Iterator[tuple[Batch, int]]:
    """Yields batches as `batches` does, each with the number of samples that are not copies.

    Args:
        data: As for `batches`.
        model: The model.
        steps: The largest number of batches, before they are cut; None for all.
        batch_size: Size of a batch cut from arrays, unless the model has a fixed one.

    Yields:
        A tuple with one array for each input, and the number of samples.

    Raises:
        InvalidDataError: As `batches`.

    Example:
    >>> model = keras.Sequential([keras.Input((4,), batch_size=3), keras.layers.Dense(2)])
    >>> [(len(x), count) for (x,), count in counted_batches(np.zeros((5, 4)), model)]
    [(3, 3), (3, 2)]
    """
    _check_counts(steps, batch_size)
    produced = 0
    fixed = fixed_batch_size(model)
    elements = elements_of(data, model, fixed or batch_size)
    for element in itertools.islice(elements, steps):
        batch = tuple(
            _checked(array, tensor, produced, fixed)
            for array, tensor in zip(inputs_of(element, model), model.inputs, strict=True)
        )
        yield from _pieces(batch, fixed)
        produced += 1
    if not produced:
        raise InvalidDataError(
            "The data has no batches.",
            received=f"an empty {type(data).__name__}",
            fix="Pass at least one batch. A used-up generator must be created again.",
        )


def labelled_batches(
    data: Any,
    model: TakesInputs,
    targets: Any = None,
    weights: Any = None,
    *,
    steps: int | None = None,
    batch_size: int = 32,
) -> Iterator[tuple[Batch, Any, Any]]:
    """Yields checked batches of a model's inputs, with targets and sample weights.

    Args:
        data: As for `batches`. Without `targets` its elements are `(inputs, targets)` or
            `(inputs, targets, weights)`.
        model: The model.
        targets: An array, or a list or dict of arrays, if `data` consists of arrays.
        weights: Sample weights in the same form; only together with `targets`.
        steps: The largest number of batches. None for all.
        batch_size: Size of a batch cut from arrays.

    Yields:
        The inputs, as `batches` yields them; the targets, unchanged; the weights or None.

    Raises:
        InvalidDataError: As `batches`, and if targets are missing or are too many or too few.

    Example:
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> [len(y) for x, y, weights in labelled_batches(np.zeros((40, 4)), model, np.zeros(40))]
    [32, 8]
    """
    _check_counts(steps, batch_size)
    data = tuple_of_inputs(data, model)
    elements = elements_of(data, model, fixed_batch_size(model) or batch_size)
    if targets is not None:
        elements = with_targets(data, elements, targets, weights)
    elif weights is not None:
        raise InvalidDataError(
            "Sample weights need targets.",
            received="weights without targets",
            fix="Pass both as arrays, or data that yields (inputs, targets, weights).",
        )
    first, rest = itertools.tee(itertools.islice(elements, steps))
    for batch, element in zip(batches(first, model), rest, strict=True):
        if not isinstance(element, tuple) or not 2 <= len(element) <= 3:
            raise InvalidDataError(
                "The data has no targets.",
                received=f"elements of type {type(element).__name__}",
                expected="elements (inputs, targets) or (inputs, targets, weights)",
                fix="Pass the targets with arrays, or data that yields pairs.",
            )
        labels = (*element[1:], None)[:2]
        is_single = np.ndim(inputs_of(element, model)[0]) == len(model.inputs[0].shape) - 1
        if is_single:
            labels = keras.tree.map_structure(
                lambda part: None if part is None else np.asarray(part)[None], labels
            )
        yield batch, *labels


def count_batches(data: Any, model: TakesInputs, batch_size: int = 32) -> int | None:
    """Returns how many batches `batches` will yield, or None if the number is not known.

    Args:
        data: The data, as for `batches`.
        model: The model.
        batch_size: Size of a batch cut from arrays.

    Returns:
        The number of batches.

    Example:
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> count_batches(np.zeros((40, 4)), model)
    2
    """
    _check_counts(None, batch_size)
    data = tuple_of_inputs(data, model)
    arrays = list(data.values()) if isinstance(data, Mapping) else data
    first = arrays[0] if isinstance(arrays, tuple | list) and len(arrays) else arrays
    if is_array(first) and not isinstance(data, list):
        size = fixed_batch_size(model) or batch_size
        return -(-len(first) // size) if np.ndim(first) else None
    try:
        return None if fixed_batch_size(model) else len(data)
    except TypeError:  # a generator, or a dataset of unknown size
        return None


def fixed_batch_size(model: TakesInputs) -> int | None:
    """Returns the fixed batch size of all inputs of a model, or None if it is not fixed.

    Args:
        model: The model.

    Example:
    >>> fixed_batch_size(keras.Sequential([keras.Input((4,), batch_size=3), keras.layers.Dense(2)]))
    3
    """
    sizes = {tuple(tensor.shape[:1]) for tensor in model.inputs}
    return sizes.pop()[0] if len(sizes) == 1 and () not in sizes else None


def _pieces(batch: Batch, size: int | None) -> Iterator[tuple[Batch, int]]:
    """Cuts a batch into pieces, each with the number of samples that are not copies."""
    total = len(batch[0])
    if size is None:
        yield batch, total
        return
    for start in range(0, total, size):
        # The last sample is repeated after the end of the batch.
        rows = np.minimum(np.arange(start, start + size), total - 1)
        yield tuple(array[rows] for array in batch), min(size, total - start)


def _check_counts(steps: int | None, batch_size: int) -> None:
    if steps is not None and steps < 1:
        raise InvalidDataError(
            "The number of batches to use must be positive.", received=f"steps={steps}"
        )
    if not isinstance(batch_size, int | np.integer) or batch_size < 1:
        raise InvalidDataError(
            "The size of a batch must be a positive whole number.",
            received=f"batch_size={batch_size!r}",
        )


def _checked(value: Any, tensor: Any, position: int, fixed: int | None) -> np.ndarray:
    """Converts one input of a batch and checks type, shape and values."""
    wanted = tuple(tensor.shape) if fixed is None else (None, *tensor.shape[1:])
    array = np.asarray(value)
    if array.ndim == len(wanted) - 1:
        array = array[None]
    where = f"Batch {position} of the data for an input"
    if array.dtype.kind not in "biuf":
        raise InvalidDataError(
            f"{where} is not numeric.",
            layer=tensor.name,
            received=f"dtype {array.dtype}",
            expected="real numbers",
        )
    fits = (
        array.size
        and array.ndim == len(wanted)
        and all(want in (None, have) for want, have in zip(wanted, array.shape, strict=True))
    )
    if not fits:
        raise InvalidDataError(
            f"{where} has the wrong shape.",
            layer=tensor.name,
            received=f"shape {array.shape}",
            expected=f"shape {wanted}",
        )
    # Keras computes in float32, in which larger numbers become infinite.
    with np.errstate(over="ignore"):
        finite = np.isfinite(array.astype("float32"))
    if not finite.all():
        raise InvalidDataError(
            f"{where} has values that are not finite numbers.",
            layer=tensor.name,
            received=f"{int((~finite).sum())} NaN or infinite value(s)",
            fix="Remove or replace them: a range would be meaningless.",
        )
    return array
