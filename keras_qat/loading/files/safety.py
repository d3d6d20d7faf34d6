"""Checks that a file needs only objects of Keras, or objects that the caller passed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from keras_qat.errors import InvalidFileError, UnsafeFileError
from keras_qat.loading.files.bytecode import is_of_this_python
from keras_qat.loading.files.lambdas import check_held_code, held_code
from keras_qat.loading.files.source import Source

# Layers that load code or files that their arguments name.
_RUN_CODE = ("FlaxLayer", "JaxLayer", "TFSMLayer", "TorchModuleWrapper")
_LOOKUPS = ("IntegerLookup", "StringLookup", "TextVectorization")
# The modules of Keras that models use, by their names after `keras.` or `keras.src.`.
_MODULES = ("activations", "constraints", "dtype_policies", "initializers", "layers", "losses")
_MODULES += ("metrics", "models", "ops", "optimizers", "quantizers", "random", "regularizers")
_MODULES += ("backend",)  # the module of `Variable` and of tensors
_FUNCTION_MODULES = ("activations", "losses", "metrics", "ops")
_CODE = ("__lambda__", "__typespec__")


def check_config(config: Any, source: Source) -> None:
    """Raises if a Keras 3 configuration needs objects that are not Keras's or the caller's.

    Args:
        config: The configuration, as read from JSON.
        source: The file.

    Raises:
        UnsafeFileError: If the configuration would run code of the file, or read other files.
        InvalidFileError: If a class or function is neither Keras's nor the caller's.
    """
    for value in _objects(config):
        _check_object(value, source)


def check_code(config: Any, source: Source) -> None:
    """Raises if a configuration of Keras 1 or 2 would run code of the file.

    Args:
        config: The configuration, as read from JSON.
        source: The file.

    Raises:
        UnsafeFileError: If the configuration would run code.
    """
    for value in _objects(config):
        inner = value.get("config")
        check_class(str(value["class_name"]), inner if isinstance(inner, dict) else {}, source)


def _objects(config: Any) -> Iterator[dict[str, Any]]:
    """Yields each dict that names a class, at any depth."""
    waiting = [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if "class_name" in value:
                yield value
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def check_class(class_name: str, config: Any, source: Source) -> None:
    """Raises if a layer would run code of the file, or read files that its arguments name.

    Args:
        class_name: Class of the layer.
        config: Arguments of the layer.
        source: The file.

    Raises:
        UnsafeFileError: If the layer would do so.
    """
    name = config.get("name") if isinstance(config, dict) else None
    if class_name == "Lambda" and isinstance(config, dict):
        check_held_code(name, held_code(config), source)
    is_code = class_name in _CODE
    runs = not is_code or is_of_this_python({"config": config})
    reads = class_name in _LOOKUPS and isinstance(config.get("vocabulary"), str)
    if source.safe_mode and (class_name in (*_RUN_CODE, *_CODE) or reads):
        raise UnsafeFileError(
            "Loading this would run code that is in the file, or read other files.",
            layer=None if name is None else str(name),
            received=f"a {class_name}",
            fix="If you trust the file: `load_model(path, safe_mode=False)`."
            if runs
            else "Save the model with a function that has a name: another Python wrote this one.",
        )


def _check_object(value: dict[str, Any], source: Source) -> None:
    class_name, inner = value["class_name"], value.get("config")
    if not isinstance(class_name, str):
        raise InvalidFileError(
            "The name of a class is not text: the file is damaged.", received=repr(class_name)[:80]
        )
    check_class(class_name, inner if isinstance(inner, dict) else {}, source)
    module, registered = value.get("module"), value.get("registered_name")
    name = inner if class_name == "function" else registered or class_name
    if source.custom(name) is not None or module in (None, "builtins"):
        return
    parts = [part for part in str(module).split(".") if part != "src"]
    known = _FUNCTION_MODULES if class_name == "function" else _MODULES
    if parts[0] == "keras" and (len(parts) == 1 or parts[1] in known):
        return
    if source.safe_mode or parts[0] != "keras":
        raise InvalidFileError(
            "The file has a class or function that is not Keras's.",
            received=f"{module}.{name if isinstance(name, str) else class_name}",
            fix="Pass it in `custom_objects`, or import the package that registers it.",
        )
