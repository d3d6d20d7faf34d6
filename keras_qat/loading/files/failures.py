"""Turns exceptions of libraries into one typed error that names the file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from keras_qat.errors import InvalidFileError, InvalidFileWarning, KerasQatError


@contextlib.contextmanager
def about_file(path: Any, what: str = "The file cannot be loaded.") -> Iterator[None]:
    """Turns every error in its block into an `InvalidFileError` with the name of the file.

    Args:
        path: The file.
        what: The message for an exception of a library.
    """
    try:
        yield
    except InvalidFileError as error:
        if error.path is not None:
            raise
        raise error.at(path) from error.__cause__
    except InvalidFileWarning:  # an error if the caller turns warnings into errors
        raise
    except Exception as error:  # h5py, zipfile, json and Keras raise various types on damaged files
        raise InvalidFileError(what, path=path, received=described(error)) from error


@contextlib.contextmanager
def about_layer(name: Any, what: str, fix: str | None = None) -> Iterator[None]:
    """Turns every error in its block into an `InvalidFileError` with the name of the layer.

    Args:
        name: Name of the layer in the file.
        what: The message for an exception of a library.
        fix: The suggested remedy.
    """
    try:
        yield
    except InvalidFileError:
        raise
    except Exception as error:  # as in `about_file`
        raise InvalidFileError(what, layer=str(name), received=described(error), fix=fix) from error


def check_is_file(path: str) -> None:
    """Raises if there is no file at this path.

    Raises:
        InvalidFileError: If there is no file.
    """
    if os.path.isdir(path):
        raise InvalidFileError(
            "This is a folder, not a file.",
            fix="Save the model as `.keras` or `.h5`: Keras 3 does not read SavedModels.",
        )
    if not os.path.isfile(path):
        raise InvalidFileError("There is no such file.")


def described(error: Exception) -> str:
    """Returns the type of an exception and the first line of its message."""
    if isinstance(error, KerasQatError):
        return str(error)
    text = str(error).rpartition("Exception encountered: ")[2]  # Keras repeats the whole config
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    text = lines[0] if lines else "no message"
    return f"{type(error).__name__}: {text[:300]}"
