"""The elements of data, and the inputs in an element."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import keras
import numpy as np

from keras_qat.errors import InvalidDataError


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


def elements_of(data: Any, model: TakesInputs, batch_size: int) -> Iterator[Any]:
    """Yields the elements of data. Arrays are cut into batches.

    Args:
        data: Data of the types that `keras_qat.data.batches.batches` takes.
        model: The model.
        batch_size: Size of a batch cut from arrays.

    Yields:
        Elements that `inputs_of` takes.

    Raises:
        InvalidDataError: If arrays have different numbers of samples, or data of this type cannot
            be read.

    Example:
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> [len(inputs) for inputs, in elements_of(np.zeros((40, 4)), model, 32)]
    [32, 8]
    """
    if is_array(data):
        data = (data,)
    data = tuple_of_inputs(data, model)
    if isinstance(data, Mapping):
        data = tuple(_by_name(data, model))
    if isinstance(data, tuple) and data and all(is_array(array) for array in data):
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


def with_targets(
    data: Any, elements: Iterator[Any], targets: Any, weights: Any
) -> Iterator[tuple[Any, Any, Any]]:
    """Pairs batches cut from arrays with their targets, and with weights or None.

    Args:
        data: The data.
        elements: The elements of the data.
        targets: An array, or a list or dict of arrays.
        weights: Sample weights in the same form, or None.

    Yields:
        The inputs, targets and weights of each batch.

    Raises:
        InvalidDataError: If the data does not consist of arrays, or their numbers of samples differ
            from those of targets and weights.

    Example:
    >>> x = np.zeros((3, 4))
    >>> [len(y) for _, y, _ in with_targets((x,), iter([(x[:2],), (x[2:],)]), np.zeros(3), None)]
    [2, 1]
    """
    is_cut = isinstance(data, Mapping | tuple) or is_array(data)
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


def inputs_of(element: Any, model: TakesInputs) -> list[Any]:
    """Returns the inputs of an element, in the model's order.

    Args:
        element: The inputs, `(inputs, targets)` or `(inputs, targets, weights)`.
        model: The model.

    Raises:
        InvalidDataError: If inputs are missing, or there are too many or too few.

    Example:
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> [array.shape for array in inputs_of((np.zeros((8, 4)), np.zeros(8)), model)]
    [(8, 4)]
    """
    count = len(model.inputs)
    if isinstance(element, tuple) and element:
        nested = isinstance(element[0], tuple | list | Mapping)
        if nested or count == 1 or len(element) != count:
            element = element[0]
    if isinstance(element, Mapping):
        element = _by_name(element, model)
    if is_array(element):
        element = [element]
    if not isinstance(element, tuple | list) or len(element) != count:
        raise InvalidDataError(
            "A batch has the wrong number of inputs.",
            received=f"{len(element) if hasattr(element, '__len__') else type(element).__name__}",
            expected=f"{count}: {[tensor.name for tensor in model.inputs]}",
        )
    return list(element)


def tuple_of_inputs(data: Any, model: TakesInputs) -> Any:
    """Returns data as a tuple if it is a list of one array for each of several inputs.

    A list could also be a list of batches. Data of other types is returned unchanged.

    Args:
        data: The data.
        model: The model.

    Example:
    >>> model = keras.Model([a := keras.Input((4,)), b := keras.Input((4,))], [a, b])
    >>> len(tuple_of_inputs([np.zeros((40, 4)), np.zeros((40, 4))], model))
    2
    """
    is_of_inputs = isinstance(data, list) and len(data) == len(model.inputs) > 1
    return tuple(data) if is_of_inputs and all(map(is_array, data)) else data


def is_array(value: Any) -> bool:
    """Returns whether a value is an array or a tensor of any library.

    Args:
        value: Any object.

    Example:
    >>> is_array(np.zeros(3)), is_array([0, 0, 0])
    (True, False)
    """
    return (
        hasattr(value, "shape") and hasattr(value, "dtype") and not hasattr(value, "element_spec")
    )


def _by_name(arrays: Mapping[str, Any], model: TakesInputs) -> list[Any]:
    """Returns the arrays of a dict in the order of the model's inputs."""
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


def _is_data_loader(data: Any) -> bool:
    """Returns whether data is a `torch.utils.data.DataLoader`. PyTorch need not be installed."""
    return any(
        each.__name__ == "DataLoader" and each.__module__.startswith("torch.utils.data")
        for each in type(data).__mro__
    )
