"""The types of a file's inputs and outputs, from the arguments of an export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from keras_qat.errors import ExportError

INFERENCE_TYPES = ("int8", "uint8", "float32")
_ALL_TYPES = (*INFERENCE_TYPES, "int16")  # the last one for activations of 16 bits

# One type for all, a dict by name, or a list in order.
IoTypes = str | Mapping[str, str] | Sequence[str]


def io_types(
    wanted: IoTypes | None,
    names: Sequence[str],
    argument: str,
    plain: Mapping[str, str] = MappingProxyType({}),
    *,
    own: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, str]:
    """Returns the type of each input, or of each output.

    Args:
        wanted: One type for all, by its name or as `tf.uint8` or `np.uint8`; or a dict from names
            to types; or a sequence with one type for each name. None for the default.
        names: The names, in order.
        argument: The name of the argument, for messages.
        plain: The types of tensors of ids, plain integers and booleans. A single type does not
            change them.
        own: The types of names that are left out: those of their tensors, by default int8.

    Returns:
        The type of each name.

    Raises:
        ExportError: If a name or a type is unknown, or there are too few or too many.

    Example:
    >>> io_types({"image": "uint8"}, ("image", "mask"), "inference_input_type")
    {'image': 'uint8', 'mask': 'int8'}
    """
    wanted = {} if wanted is None else _with_names(wanted)
    if isinstance(wanted, str):
        _check_type(wanted, _ALL_TYPES)
        own = dict.fromkeys(names, wanted)
    types = {name: plain.get(name, own.get(name, "int8")) for name in names}
    for name, dtype in _named(wanted, names, argument).items():
        _check_type(dtype, (plain[name],) if name in plain else _ALL_TYPES, name)
        types[name] = dtype
    return types


def _with_names(wanted: Any) -> Any:
    """Replaces types such as `tf.uint8` or `np.uint8` by their names."""
    if isinstance(wanted, Mapping):
        return {name: _name_of(dtype) for name, dtype in wanted.items()}
    if isinstance(wanted, (list, tuple)):
        return [_name_of(dtype) for dtype in wanted]
    return _name_of(wanted)


def _name_of(dtype: Any) -> Any:
    """Returns the name of a dtype of NumPy or TensorFlow."""
    dtype = getattr(dtype, "as_numpy_dtype", dtype)  # TensorFlow's types have this attribute
    is_type = isinstance(dtype, np.dtype) or (
        isinstance(dtype, type) and issubclass(dtype, np.generic)
    )
    return np.dtype(dtype).name if is_type else dtype


def _named(wanted: Any, names: Sequence[str], argument: str) -> Mapping[str, str]:
    """Returns the types that `wanted` gives to single names."""
    if isinstance(wanted, str):
        return {}
    if isinstance(wanted, Mapping):
        unknown = [name for name in wanted if name not in names]
        if unknown:
            raise ExportError(
                f"`{argument}` has a name that the file does not have.",
                received=repr(unknown[0]),
                expected=f"names among {list(names)}",
                fix="Use these names; those that are left out have the type of the scheme.",
            )
        return wanted
    if not isinstance(wanted, Sequence) or len(wanted) != len(names):
        raise ExportError(
            f"`{argument}` must have one type for each name.",
            received=repr(wanted),
            expected=f"one type, a dict by name, or a list of {len(names)} for {list(names)}",
            fix="Give a single type for all of them, or name those that are to have another.",
        )
    return dict(zip(names, wanted, strict=True))


def _check_type(dtype: Any, known: Sequence[str], name: str | None = None) -> None:
    if not isinstance(dtype, str) or dtype not in known:
        raise ExportError(
            "Unknown type of an input or output.",
            layer=name,
            received=repr(dtype),
            expected=f"one of {known}" if len(known) > 1 else f"{known[0]!r}, that of ids",
            fix="Use one of these, or leave the argument out for the type of the scheme.",
        )
