"""The inputs and outputs of a file: their names, and their conversion to and from real values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_qat.errors import InvalidDataError
from keras_qat.litert import TensorDetails
from keras_qat.verification.conversion import quantized


@dataclasses.dataclass(frozen=True)
class FileInput:
    """An input of a file, described for data with a batch of any size.

    Attributes:
        name: The tensor's name in the file.
        shape: The shape of the data; the batch is None.
        tensor: The tensor, as the interpreter describes it.
    """

    name: str
    shape: tuple[int | None, ...]
    tensor: TensorDetails


@dataclasses.dataclass(frozen=True)
class FileInputs:
    """All inputs of a file, where `keras_qat.data` expects a model's.

    Attributes:
        inputs: The inputs in the file's order.
        input: The same, by the names of the signature.
    """

    inputs: tuple[FileInput, ...]
    input: dict[str, FileInput]


def file_inputs(tensors: Sequence[TensorDetails], names: Sequence[str]) -> FileInputs:
    """Describes the inputs of a file.

    Args:
        tensors: The inputs.
        names: The names of the inputs.

    Returns:
        The inputs, in order and by name.
    """
    inputs = tuple(FileInput(t.name, (None, *t.shape[1:]) if t.shape else (), t) for t in tensors)
    return FileInputs(inputs, dict(zip(names, inputs, strict=True)))


def names_of(tensors: Sequence[TensorDetails], signature: Mapping[str, int], end: str) -> list[str]:
    """Names inputs or outputs by the signature, else by their tensors, else by number.

    Args:
        tensors: The inputs or outputs, in the file's order. One tensor may be there twice.
        signature: Name to number of the tensor; empty if the file has none.
        end: `"input"` or `"output"`.

    Returns:
        A unique name for each.
    """
    left, names = dict(signature), []
    for position, tensor in enumerate(tensors):
        found = next((name for name, index in left.items() if index == tensor.index), None)
        if found is not None:
            del left[found]
        name = found if found is not None else tensor.name
        names.append(name if name and name not in names else f"{end}_{position}")
    return names


def to_file_input(values: np.ndarray, tensor: TensorDetails, target: str) -> np.ndarray:
    """Converts real values to the dtype and scale of an input.

    Args:
        values: Real values, of any numeric dtype.
        tensor: The input.
        target: The target whose QUANTIZE decides how values are rounded.

    Returns:
        An array of the input's dtype.

    Raises:
        InvalidDataError: If the input takes whole numbers without a scale, and the values are not
            whole numbers or are too large.
    """
    if tensor.scale.size:
        return quantized(values, tensor, target)
    with np.errstate(invalid="ignore", over="ignore"):
        converted = values.astype(tensor.dtype)
    if tensor.dtype.kind != "f" and not np.array_equal(converted, values):
        raise InvalidDataError(
            f"The input {tensor.name!r} takes whole numbers.",
            received=f"dtype {values.dtype}, from {values.min():g} to {values.max():g}",
            expected=f"values that {tensor.dtype} has",
        )
    return converted


def raw_input(values: np.ndarray, tensor: TensorDetails) -> np.ndarray:
    """Returns integers of an input's own type as they are.

    Args:
        values: The integers.
        tensor: The input.

    Raises:
        InvalidDataError: If the integers have another dtype than the input.
    """
    if values.dtype != tensor.dtype:
        raise InvalidDataError(
            f"The input {tensor.name!r} does not take these integers as they are.",
            received=f"dtype {values.dtype}",
            expected=f"dtype {tensor.dtype}, as `raw_inputs=True` says",
            fix="Convert the array, or give real values to `LiteRTModel(path)`.",
        )
    return values


def to_real(values: np.ndarray, tensor: TensorDetails) -> np.ndarray:
    """Converts the values of an output to real values: `scale * (integer - zero_point)`.

    Args:
        values: The values of the output.
        tensor: The output, as the interpreter describes it.

    Returns:
        float32 where the output has a scale, else the values as they are.
    """
    if not tensor.scale.size:
        return values
    return (values.astype("float32") - np.float32(tensor.zero_point[0])) * tensor.scale[0]


def as_data(values: list[np.ndarray], names: Sequence[str]) -> Any:
    """Returns a single array as it is, and several arrays as a dict by name."""
    return values[0] if len(values) == 1 else dict(zip(names, values, strict=True))
