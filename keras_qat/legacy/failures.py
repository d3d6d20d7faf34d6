"""Whatever a library raises on a file, as one typed error that names the file."""

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
        what: What the error says of an exception that was not raised here.
    """
    try:
        yield
    except InvalidFileError as error:
        if error.path is not None:
            raise
        raise error.at(path) from error.__cause__
    except InvalidFileWarning:  # an error where the caller wants warnings to be errors
        raise
    except Exception as error:  # h5py, zipfile, json and Keras raise what they like on damage
        raise InvalidFileError(what, path=path, received=described(error)) from error


@contextlib.contextmanager
def about_layer(name: Any, what: str, fix: str | None = None) -> Iterator[None]:
    """Turns every error in its block into an `InvalidFileError` with the name of the layer.

    Args:
        name: Name of the layer in the file.
        what: What the error says of an exception that was not raised here.
        fix: What to do about it.
    """
    try:
        yield
    except InvalidFileError:
        raise
    except Exception as error:  # as above
        raise InvalidFileError(what, layer=str(name), received=described(error), fix=fix) from error


def check_is_file(path: str) -> None:
    """Raises if there is no file of this name.

    Raises:
        InvalidFileError: If there is none.
    """
    if os.path.isdir(path):
        raise InvalidFileError(
            "This is a folder, not a file.",
            fix="Save the model as `.keras` or `.h5`: Keras 3 does not read SavedModels.",
        )
    if not os.path.isfile(path):
        raise InvalidFileError("There is no such file.")


def described(error: Exception) -> str:
    """The kind of an exception and the first line of what it says."""
    if isinstance(error, KerasQatError):
        return str(error)
    text = str(error).rpartition("Exception encountered: ")[2]  # Keras repeats the whole config
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    text = lines[0] if lines else "no message"
    return f"{type(error).__name__}: {text[:300]}"
