"""`Lambda` layers of Keras 2: code in a file, which is not run unless the caller says so."""

from __future__ import annotations

from typing import Any

from keras_qat.errors import InvalidFileError, UnsafeFileError
from keras_qat.legacy.source import Source

_DROPPED = ("module", "function_type", "output_shape_type", "output_shape_module", "mask")


def lambda_config(config: dict[str, Any], source: Source) -> dict[str, Any]:
    """Returns the arguments of a `Lambda` as Keras 3 reads them.

    A function that the file only names is the caller's; one that it holds is bytecode.

    Args:
        config: The arguments in the file.
        source: The file.

    Raises:
        UnsafeFileError: If it is bytecode, and `safe_mode` is on.
        InvalidFileError: If the caller has no function of the name.
    """
    written = {key: value for key, value in config.items() if key not in _DROPPED}
    written["function"] = _function(config.get("function"), config, source)
    shape = config.get("output_shape")
    if shape is None or config.get("output_shape_type") in (None, "raw"):
        return written
    return {**written, "output_shape": _function(shape, config, source)}


def _function(function: Any, config: dict[str, Any], source: Source) -> Any:
    if isinstance(function, dict):
        inner = function.get("config")
        function = inner if function.get("class_name") == "function" else function
    if isinstance(function, str):
        found = source.custom(function)
        if found is None:
            raise InvalidFileError(
                "A `Lambda` layer calls a function that is not in the file.",
                layer=str(config.get("name")),
                received=repr(function),
                fix=f'Pass it: `load_model(path, custom_objects={{"{function}": ...}})`.',
            )
        return {"module": "builtins", "class_name": "function", "config": function}
    if source.safe_mode:
        raise UnsafeFileError(
            "A `Lambda` layer holds Python code, which loading would run.",
            layer=str(config.get("name")),
            fix="If you trust the file: `load_model(path, safe_mode=False)`.",
        )
    if isinstance(function, list) and len(function) == 3:
        parts = dict(zip(("code", "defaults", "closure"), function, strict=True))
        return {"class_name": "__lambda__", "config": parts}
    return function
