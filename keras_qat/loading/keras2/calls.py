"""Calls of layers in the form of Keras 2: each layer and the outputs that it is called with."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from keras_qat.errors import InvalidFileError

# Keras 2 writes this instead of a layer's name if an input is a constant.
_CONSTANT = "_CONSTANT_VALUE"


class Output(NamedTuple):
    """One output of one call of a layer: a tensor.

    Attributes:
        layer: Name of the layer in the file.
        call: Number of the call in the file.
        index: Number of the output.
    """

    layer: str
    call: int
    index: int


class Call(NamedTuple):
    """One call of a layer.

    Attributes:
        inputs: The first argument: an `Output`, a constant, or a list or dict of these.
        kwargs: The other arguments, with an `Output` in the place of each tensor.
    """

    inputs: Any
    kwargs: dict[str, Any]

    def outputs(self) -> list[Output]:
        """All tensors that the call takes."""
        found: list[Output] = []
        map_outputs((self.inputs, self.kwargs), found.append)
        return found


def read_call(data: Any, layers: Collection[str], owner: str) -> Call:
    """Reads one element of `inbound_nodes`.

    Args:
        data: The element.
        layers: Names of the layers of the model.
        owner: Name of the layer that is called.

    Raises:
        InvalidFileError: If `data` is not a call.
    """
    kwargs: dict[str, Any] = {}

    def read(part: Any) -> Any:
        """Reads nested arguments, and collects the keyword arguments that stand beside a tensor."""
        if isinstance(part, dict):
            return {key: read(value) for key, value in part.items()}
        if not isinstance(part, list) or not part:
            raise _malformed(owner, part)
        if not isinstance(part[0], str):
            return [read(each) for each in part]
        if len(part) == 4 and isinstance(part[3], dict):
            kwargs.update(part[3])
        if part[0] == _CONSTANT and len(part) in (3, 4):
            return part[2]
        return read_output(part[:3], owner)

    inputs = read(data)
    return Call(inputs, {key: _argument(value, layers) for key, value in kwargs.items()})


def read_output(part: Any, owner: str) -> Output:
    """Reads `[name of a layer, call, output]`.

    Raises:
        InvalidFileError: If `part` has another form.
    """
    is_one = isinstance(part, list) and len(part) >= 3 and isinstance(part[0], str)
    if not is_one or not all(type(number) is int and number >= 0 for number in part[1:3]):
        raise _malformed(owner, part)
    return Output(*part[:3])


def map_outputs(structure: Any, function: Callable[[Output], Any]) -> Any:
    """Applies a function to each `Output` in nested lists, tuples and dicts."""
    if isinstance(structure, Output):
        return function(structure)
    if isinstance(structure, dict):
        return {key: map_outputs(value, function) for key, value in structure.items()}
    if isinstance(structure, list | tuple):
        return type(structure)([map_outputs(value, function) for value in structure])
    return structure


def _argument(value: Any, layers: Collection[str]) -> Any:
    """Reads a keyword argument. Tensors are lists in the file, as are plain lists."""
    if isinstance(value, dict):
        return {key: _argument(part, layers) for key, part in value.items()}
    if not isinstance(value, list):
        return value
    is_output = len(value) == 3 and isinstance(value[0], str) and value[0] in layers
    if is_output and all(type(number) is int for number in value[1:]):
        return Output(*value)
    return [_argument(part, layers) for part in value]


def _malformed(owner: str, part: Any) -> InvalidFileError:
    return InvalidFileError(
        "The call of this layer is malformed: the file is damaged.",
        layer=owner,
        received=repr(part)[:120],
        expected="[layer, call, output, arguments]",
    )
