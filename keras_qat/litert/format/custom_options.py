"""The options of custom operators: a map in the format FlexBuffers.

A custom operator has a name instead of a number in the schema. Its code is the name of the file's
operator in reports, such as `"CUSTOM(TFLite_Detection_PostProcess)"`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from keras_qat.litert.format.flatbuffer import Damage

CUSTOM = "CUSTOM"


def custom_code(name: str) -> str:
    """Returns the code of a custom operator.

    Example:
        >>> custom_code("Mine")
        'CUSTOM(Mine)'
    """
    return f"{CUSTOM}({name})"


def custom_name(code: str) -> str | None:
    """Returns the name of a custom operator, or None if a code is that of a built-in operator.

    Example:
        >>> custom_name("CUSTOM(Mine)"), custom_name("CONV_2D")
        ('Mine', None)
    """
    start = f"{CUSTOM}("
    return code[len(start) : -1] if code.startswith(start) and code.endswith(")") else None


def pack_map(options: Mapping[str, bool | int | float]) -> bytes:
    """Returns options as the bytes that a custom operator gets.

    Args:
        options: The options by name.

    Example:
        >>> unpack_map(pack_map({"size": 3, "scale": 0.5}), ("scale", "size", "more"))
        {'scale': 0.5, 'size': 3}
    """
    from flatbuffers import flexbuffers

    return bytes(flexbuffers.Dumps(dict(options)))


def unpack_map(content: bytes, names: Sequence[str]) -> dict[str, Any]:
    """Reads options of a custom operator.

    Args:
        content: The bytes of the operator in a file of any origin.
        names: Names of the options to read.

    Returns:
        The values of those that are there.

    Raises:
        Damage: If the bytes are not a map, or an option is not a number.
    """
    from flatbuffers import flexbuffers

    try:
        root = flexbuffers.GetRoot(bytearray(content)).AsMap
        return {name: number for name in names for number in _numbers(root, name)}
    except Exception as error:  # the library does not check offsets, and raises any error
        raise Damage("custom_options", f"no FlexBuffers map of numbers: {error}") from error


def _numbers(root: Any, name: str) -> Iterator[bool | int | float]:
    """Yields the number of a name, if the map has the name. Raises a TypeError for other values."""
    try:
        value = root[name]
    except KeyError:
        return
    if value.IsBool:
        yield value.AsBool
    elif value.IsInt:
        yield value.AsInt
    elif value.IsFloat:
        yield value.AsFloat
    else:
        raise TypeError(f"{name!r} is not a number")
