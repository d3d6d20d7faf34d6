"""What is known of a file while a model is made of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras


@dataclasses.dataclass(frozen=True)
class Source:
    """A file, and what its reader allows.

    Attributes:
        path: The file.
        custom_objects: Classes and functions by the names that they have in the file.
        safe_mode: Whether code in the file is refused.
        keras_version: Version of the Keras that wrote the file, such as "2.4.0"; "" if unknown.
    """

    path: str
    custom_objects: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    safe_mode: bool = True
    keras_version: str = ""

    def custom(self, name: Any) -> Any:
        """Returns the class or function of the caller that a name in the file means, or None."""
        if not isinstance(name, str):
            return None
        return keras.saving.get_registered_object(name, custom_objects=dict(self.custom_objects))
