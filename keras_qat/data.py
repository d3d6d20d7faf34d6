"""Reads batches of model inputs from arrays, datasets, generators and lists."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import keras
import numpy as np

from keras_qat.errors import InvalidDataError

Batch = tuple[np.ndarray, ...]


class TakesInputs(Protocol):
    """An object with inputs that have names and shapes: a `keras.Model`, or a file.

    Attributes:
        inputs: The inputs in order, each with a `name` and a `shape`, the batch included.
        input: The inputs in their original structure. Data uses the keys of a dict.
    """

    @property
    def inputs(self) -> Sequence[Any]:
        """The inputs in order."""
        ...

    @property
    def input(self) -> Any:
        """The structure of the inputs."""
        ...


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
        steps: The largest number of batches; None for all.
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
    elements = _elements(data, model, fixed or batch_size)
    for element in itertools.islice(elements, steps):
        batch = tuple(
            _checked(array, tensor, produced, fixed)
            for array, tensor in zip(_inputs(element, model), model.inputs, strict=True)
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
        steps: The largest number of batches; None for all.
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
    data = _as_keras_has_it(data, model)
    elements = _elements(data, model, fixed_batch_size(model) or batch_size)
    if targets is not None:
        elements = _with_targets(data, elements, model, targets, weights)
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
        rest_of_it = (*element[1:], None)[:2]
        is_single = np.ndim(_inputs(element, model)[0]) == len(model.inputs[0].shape) - 1
        if is_single:
            rest_of_it = keras.tree.map_structure(
                lambda part: None if part is None else np.asarray(part)[None], rest_of_it
            )
        yield batch, *rest_of_it


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
    data = _as_keras_has_it(data, model)
    arrays = list(data.values()) if isinstance(data, Mapping) else data
    first = arrays[0] if isinstance(arrays, tuple | list) and len(arrays) else arrays
    if _is_array(first) and not isinstance(data, list):
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


def _elements(data: Any, model: TakesInputs, batch_size: int) -> Iterator[Any]:
    """Cuts arrays into batches; iterates over everything else."""
    if _is_array(data):
        data = (data,)
    data = _as_keras_has_it(data, model)
    if isinstance(data, Mapping):
        data = tuple(_by_name(data, model))
    if isinstance(data, tuple) and data and all(_is_array(array) for array in data):
        arrays = [np.asarray(array) for array in data]
        if len({array.shape[:1] for array in arrays}) > 1 or arrays[0].ndim == 0:
            raise InvalidDataError(
                "The arrays for the inputs have different numbers of samples, or none.",
                received=f"shapes {[array.shape for array in arrays]}",
            )
        for start in range(0, len(arrays[0]), batch_size):
            yield tuple(array[start : start + batch_size] for array in arrays)
    elif isinstance(data, keras.utils.PyDataset):
        yield from (data[i] for i in range(len(data)))
    elif _is_data_loader(data):  # lists of a data loader are like tuples of other data
        yield from (tuple(each) if isinstance(each, list) else each for each in data)
    elif hasattr(data, "__iter__"):
        yield from data
    else:
        raise InvalidDataError(
            "Data of this type cannot be read.",
            received=type(data).__name__,
            expected="an array, a tf.data.Dataset, a generator, or a list of arrays",
        )


def _with_targets(
    data: Any, elements: Iterator[Any], model: TakesInputs, targets: Any, weights: Any
) -> Iterator[tuple[Any, Any, Any]]:
    """Pairs batches cut from arrays with their targets, and weights or None."""
    is_cut = isinstance(data, Mapping | tuple) or _is_array(data)
    targets = keras.tree.map_structure(np.asarray, targets)
    weights = None if weights is None else keras.tree.map_structure(np.asarray, weights)
    sizes = {
        array.shape[:1] for array in keras.tree.flatten((targets, weights)) if array is not None
    }
    samples = len(keras.tree.flatten(data)[0]) if is_cut else None
    if sizes != {(samples,)}:
        raise InvalidDataError(
            "The targets do not match the data.",
            received=f"data of type {type(data).__name__} with "
            f"{'unknown' if samples is None else samples} samples, targets or weights for "
            f"{sorted(size[0] if size else 0 for size in sizes)}",
            expected="arrays, with one target (and one weight, if any) for each sample",
        )
    start = 0
    for element in elements:
        inputs = element if isinstance(element, tuple) else (element,)
        part = slice(start, start := start + len(inputs[0]))
        yield (
            inputs,
            *keras.tree.map_structure(
                lambda array, part=part: None if array is None else array[part], (targets, weights)
            ),
        )


def _inputs(element: Any, model: TakesInputs) -> list[Any]:
    """Returns the inputs of an element: `inputs`, `(inputs, targets)` or one with weights."""
    count = len(model.inputs)
    if isinstance(element, tuple) and element:
        nested = isinstance(element[0], tuple | list | Mapping)
        if nested or count == 1 or len(element) != count:
            element = element[0]
    if isinstance(element, Mapping):
        element = _by_name(element, model)
    if _is_array(element):
        element = [element]
    if not isinstance(element, tuple | list) or len(element) != count:
        raise InvalidDataError(
            "A batch has the wrong number of inputs.",
            received=f"{len(element) if hasattr(element, '__len__') else type(element).__name__}",
            expected=f"{count}: {[tensor.name for tensor in model.inputs]}",
        )
    return list(element)


def _by_name(arrays: Mapping[str, Any], model: TakesInputs) -> list[Any]:
    names = [tensor.name for tensor in model.inputs]
    keys = _keys(model) or names
    for known in (keys, names):
        if all(name in arrays for name in known):
            return [arrays[name] for name in known]
    raise InvalidDataError(
        "The data lacks inputs of the model.",
        received=f"a dict with {sorted(arrays)}",
        expected=f"a dict with {keys}",
    )


def _keys(model: TakesInputs) -> list[str]:
    """Returns the keys of the dict of inputs of a model, in order. `fit` takes the same keys."""
    made_of = getattr(model, "input", None)  # a loaded Sequential has no `input`
    if not isinstance(made_of, Mapping):
        return []
    positions = [id(tensor) for tensor in model.inputs]
    return sorted(made_of, key=lambda key: positions.index(id(made_of[key])))


def _as_keras_has_it(data: Any, model: TakesInputs) -> Any:
    """Returns a list of arrays for several inputs as a tuple, which cannot be a list of batches."""
    is_of_inputs = isinstance(data, list) and len(data) == len(model.inputs) > 1
    return tuple(data) if is_of_inputs and all(map(_is_array, data)) else data


def _is_array(value: Any) -> bool:
    return (
        hasattr(value, "shape") and hasattr(value, "dtype") and not hasattr(value, "element_spec")
    )


def _is_data_loader(data: Any) -> bool:
    """Returns whether data is a `torch.utils.data.DataLoader`. PyTorch need not be installed."""
    return any(
        each.__name__ == "DataLoader" and each.__module__.startswith("torch.utils.data")
        for each in type(data).__mro__
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
