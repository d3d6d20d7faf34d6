"""A file of measurements that an interrupted search continues from."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from keras_qat.errors import InvalidFileError


class Journal:
    """The measurements of one search, in memory and in a file of one JSON value a line.

    Each measurement is written when it is made. A last line that is not complete is dropped: the
    process was stopped while it wrote.

    Args:
        path: The file; None to keep the measurements in memory only.
        header: The facts that the measurements depend on, by name, as JSON values.

    Raises:
        InvalidFileError: If the file has measurements of another header, has no measurements, or
            cannot be written.

    Example:
    >>> journal = Journal(None, {"model": "1f"})
    >>> journal.put("conv", 31.5)
    >>> journal.get("conv"), journal.get("head")
    (31.5, None)
    """

    def __init__(self, path: str | os.PathLike[str] | None, header: Mapping[str, Any]):
        self._path = None if path is None else pathlib.Path(path)
        self._known: dict[str, Any] = {}
        if self._path is None:
            return
        try:
            content = self._path.read_bytes() if self._path.exists() else b""
            kept = self._checked(content, header)
            if kept != content:
                self._path.write_bytes(kept)
        except OSError as error:
            raise InvalidFileError(
                f"The file of measurements cannot be read or written: {error.strerror}.",
                path=self._path,
                fix="Name a file in a folder that exists.",
            ) from error

    def get(self, key: str) -> Any:
        """Returns a measurement, or None if it was not made."""
        return self._known.get(key)

    def put(self, key: str, value: Any) -> None:
        """Adds a measurement, a JSON value."""
        self._known[key] = value
        if self._path is not None:
            with self._path.open("ab") as file:
                file.write(json.dumps([key, value]).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())

    def _checked(self, content: bytes, header: Mapping[str, Any]) -> bytes:
        """Reads the complete lines. Returns the content to keep."""
        first = json.dumps(header).encode() + b"\n"
        if first.startswith(content):  # no file, or one that was just begun
            return first
        *lines, _ = content.split(b"\n")
        try:
            found = json.loads(lines[0])
            changed = [name for name in header if found.get(name) != header[name]]
            self._known = dict(json.loads(line) for line in lines[1:])
        except (ValueError, TypeError, AttributeError, IndexError) as error:
            raise InvalidFileError(
                "The file does not hold measurements.",
                path=self._path,
                received=f"a file that begins with {content[:40]!r}",
                fix="Name a file that does not exist yet.",
            ) from error
        if changed:
            raise InvalidFileError(
                "The file has measurements of another search.",
                path=self._path,
                received=f"measurements with another {' and another '.join(changed)}",
                fix="Name another file, or delete this one.",
            )
        return b"".join(line + b"\n" for line in lines)


def digest(arrays: Iterable[Any]) -> str:
    """Returns a hash of arrays, with their shapes and types.

    Args:
        arrays: Arrays, or values that numpy makes arrays of.

    Example:
    >>> digest([np.zeros(2)]) == digest([np.zeros(2)]), digest([np.zeros(2)]) == digest([[0, 1]])
    (True, False)
    """
    found = hashlib.sha256()
    for each in arrays:
        array = np.ascontiguousarray(each)
        found.update(f"{array.dtype.str}{array.shape}".encode())
        found.update(array.tobytes())
    return found.hexdigest()
