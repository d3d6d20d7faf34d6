"""The formats that `QuantizedModel.export` writes, by Keras's names for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras_qat.errors import ExportError

_WRITERS: dict[str, Callable[..., None]] = {}


def writes(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers a function that writes a quantized model.

    Args:
        name: Keras's name for the format, such as `"litert"`.

    Returns:
        A decorator for functions of a model, a path, and keyword arguments.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        _WRITERS[name] = function
        return function

    return register


def writer_of(name: Any, input_signature: Any) -> Callable[..., Any]:
    """Returns the function that writes a format.

    Args:
        name: Keras's name for the format.
        input_signature: The argument of `keras.Model.export`, which no format takes.

    Raises:
        ExportError: If there is no such format, or a signature is given.
    """
    if name not in _WRITERS or input_signature is not None:
        raise ExportError(
            "`export` does not support this format or signature.",
            received=f"format={name!r}, input_signature={input_signature!r}",
            expected='"litert" or "tf_saved_model", the first without a signature',
            fix='`model.export(path, format="litert")`, or `keras_qat.export_litert(model, path)`',
        )
    return _WRITERS[name]
