"""`Lambda` layers: code in a file, which the caller's functions replace, or which is refused."""

from __future__ import annotations

import json
from typing import Any

from keras_qat.errors import InvalidFileError, UnsafeFileError
from keras_qat.loading.files.bytecode import is_of_this_python
from keras_qat.loading.files.source import Source

_DROPPED = ("module", "function_type", "output_shape_type", "output_shape_module", "mask")
# Arguments that can be functions.
_FUNCTIONS = ("function", "output_shape", "mask")
_ANONYMOUS = "<lambda>"


def replace_code(config: Any, source: Source) -> Any:
    """Returns a configuration in which the caller's functions replace code.

    The caller names the function of a `Lambda` layer in `custom_objects` after the layer. An
    anonymous function in another place, such as an activation, has the name `<lambda>`.

    Args:
        config: The configuration of a model of any version of Keras, as read from JSON.
        source: The file.

    Returns:
        The configuration itself if nothing is replaced, else a changed copy.

    Raises:
        InvalidFileError: If one function would replace several anonymous functions.
    """
    replaced, anonymous = [], set()

    def replace_lambda(part: dict[str, Any]) -> dict[str, Any]:
        """Replaces the code of a `Lambda` by a custom object with its name."""
        inner = part.get("config")
        if part.get("class_name") != "Lambda" or not isinstance(inner, dict):
            return part
        name, code = inner.get("name"), held_code(inner)
        found = source.custom(name)
        if not code or found is None or isinstance(found, type):
            return part
        replaced.append(name)
        kept = {key: value for key, value in inner.items() if key not in code}
        return {**part, "config": {**kept, "function": _named(name)}}

    def replace_anonymous(part: dict[str, Any]) -> dict[str, Any]:
        """Replaces an anonymous function by a placeholder."""
        # Keras 2 writes an activation without the outer one of the two dicts.
        is_bare = isinstance(part.get("value"), list) and is_of_this_python({"config": part})
        if part.get("class_name") != "__lambda__" and not (len(part) == 1 and is_bare):
            return part
        anonymous.add(repr(part))
        return _named(_ANONYMOUS)

    changed = json.loads(json.dumps(config), object_hook=replace_lambda)
    if source.custom(_ANONYMOUS) is not None:
        changed = json.loads(json.dumps(changed), object_hook=replace_anonymous)
    if len(anonymous) > 1:
        raise InvalidFileError(
            "The file holds several anonymous functions, which one function would replace.",
            received=f"{len(anonymous)} functions for `{_ANONYMOUS}` in `custom_objects`",
            fix="Pass the function of each `Lambda` layer under the layer's name instead.",
        )
    return changed if replaced or anonymous else config


def held_code(config: dict[str, Any]) -> dict[str, Any]:
    """Returns the arguments of a `Lambda` that are code in the file. A name is not code.

    Args:
        config: The arguments of the layer.
    """
    values = {key: config.get(key) for key in _FUNCTIONS}
    is_raw = config.get("output_shape_type") in (None, "raw")  # then a list is a shape
    lists = ("function",) if is_raw else ("function", "output_shape")
    return {
        key: value
        for key, value in values.items()
        if (isinstance(value, dict) and value.get("class_name") != "function")
        or (isinstance(value, list) and key in lists)
    }


def check_held_code(name: Any, code: dict[str, Any], source: Source) -> None:
    """Raises if code in a `Lambda` is not allowed to run, or cannot run.

    Args:
        name: Name of the layer.
        code: See `held_code`.
        source: The file.

    Raises:
        UnsafeFileError: If there is code, and `safe_mode` is on.
        InvalidFileError: If another version of Python wrote the code.
    """
    fix = f'Pass its function: `load_model(path, custom_objects={{"{name}": lambda x: ...}})`.'
    is_own = all(map(is_of_this_python, code.values()))
    if code and source.safe_mode:
        trusted = " If you trust the file, `safe_mode=False` runs its code." if is_own else ""
        raise UnsafeFileError(
            "A `Lambda` layer holds Python code, which loading would run.",
            layer=None if name is None else str(name),
            fix=fix + trusted,
        )
    if not is_own:
        raise InvalidFileError(
            "A `Lambda` layer holds bytecode of another version of Python.",
            layer=None if name is None else str(name),
            fix=fix,
        )


def lambda_config(config: dict[str, Any], source: Source) -> dict[str, Any]:
    """Returns the arguments of a `Lambda` of Keras 2 as Keras 3 reads them.

    If the file only names a function, the caller has to pass it. Otherwise the file holds its
    bytecode.

    Args:
        config: The arguments in the file.
        source: The file.

    Raises:
        UnsafeFileError: If the file holds bytecode, and `safe_mode` is on.
        InvalidFileError: If the caller passed no function of the name, or another version of Python
            wrote the bytecode.
    """
    check_held_code(config.get("name"), held_code(config), source)
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
        name = next((each for each in (function, config.get("name")) if source.custom(each)), None)
        if name is None:
            raise InvalidFileError(
                "A `Lambda` layer calls a function that is not in the file.",
                layer=str(config.get("name")),
                received=repr(function),
                fix=f'Pass it: `load_model(path, custom_objects={{"{function}": ...}})`.',
            )
        return _named(name)
    if isinstance(function, list) and len(function) == 3:
        parts = dict(zip(("code", "defaults", "closure"), function, strict=True))
        return {"class_name": "__lambda__", "config": parts}
    return function


def _named(name: Any) -> dict[str, Any]:
    """Returns the Keras 3 form of a function that is named in `custom_objects`."""
    return {
        "module": "builtins",
        "class_name": "function",
        "config": name,
        "registered_name": "function",
    }
