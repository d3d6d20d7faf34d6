"""Imports and runs functions of the user that return data."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from keras_qat_cli.errors import UsageError, said_by


def imported(name: str) -> Callable[[], Any]:
    """Imports a function of the user.

    Args:
        name: The function, as `module:function`.

    Returns:
        The function.

    Raises:
        UsageError: If it cannot be imported, or is not a function.

    Example:
    >>> imported("math:sqrt").__name__
    'sqrt'
    """
    module, _, attributes = name.partition(":")
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # `python -m` adds it, a console script does not
    try:
        found: Any = importlib.import_module(module)
        for attribute in attributes.split("."):
            found = getattr(found, attribute)
    except Exception as error:  # the module can raise any type
        raise UsageError(
            "The function for the data cannot be imported.",
            received=f"{name}: {type(error).__name__}: {error}",
            fix="Run the command where the module is, or install it."
            if isinstance(error, ModuleNotFoundError)
            else "--debug shows where.",
        ) from error
    if not callable(found):
        raise UsageError(
            "The source of the data is not a function.",
            received=f"{name}, a {type(found).__name__}",
        )
    return found


@contextlib.contextmanager
def blamed(name: str) -> Iterator[None]:
    """Raises a UsageError for each exception of a function of the user.

    Args:
        name: The function, as `module:function`.

    Raises:
        UsageError: If the code in the context raises an exception.
    """
    try:
        yield
    except Exception as error:
        raise UsageError(
            "The function for the data failed.",
            received=f"{name}: {type(error).__name__}: {said_by(error)}",
            fix="--debug shows where.",
        ) from error
