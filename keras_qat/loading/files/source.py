"""The file that is being loaded, with the options of the caller."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras


@dataclasses.dataclass(frozen=True)
class Source:
    """A file, and the options that the caller passed.

    Attributes:
        path: The file.
        custom_objects: Classes and functions by their names in the file.
        safe_mode: Whether code in the file is refused.
        keras_version: Version of the Keras that wrote the file, such as "2.4.0"; "" if unknown.
    """

    path: str
    custom_objects: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    safe_mode: bool = True
    keras_version: str = ""

    def custom(self, name: Any) -> Any:
        """Returns the caller's class or function of a name in the file, or None."""
        if not isinstance(name, str):
            return None
        return keras.saving.get_registered_object(name, custom_objects=dict(self.custom_objects))

    def made(self, value: Any) -> Any:
        """Returns the caller's function or object that a value of a configuration names, or None.

        Args:
            value: A name, or a dict with a class or function and its arguments. A class is
                instantiated with these.
        """
        name, arguments = value, {}
        if isinstance(value, dict):
            arguments = value.get("config")
            name = value.get("registered_name") or value.get("class_name")
            if isinstance(arguments, str):  # a function
                name, arguments = arguments, {}
        if not isinstance(name, str):
            return None
        found = self.custom(name)
        if found is None:
            found = self.custom(name.rpartition(">")[2])
        if not isinstance(found, type):
            return found
        arguments = arguments if isinstance(arguments, dict) else {}
        from_config = getattr(found, "from_config", None)
        return found(**arguments) if from_config is None else from_config(arguments)
