from collections.abc import Callable
from typing import Any, TypeVar

_Class = TypeVar("_Class")

def register_keras_serializable(
    package: str = "Custom", name: str | None = None
) -> Callable[[_Class], _Class]: ...
def __getattr__(name: str) -> Any: ...
