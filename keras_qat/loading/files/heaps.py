"""Checks that stop the HDF5 library from reading a damaged text in a file for ever."""

from __future__ import annotations

import struct
from typing import Any

from keras_qat.errors import InvalidFileError

# "GCOL", version 1, three zeros, the size of all: HDF5 File Format Specification 3.0, III.E.
_HEAD = struct.Struct("<4sB3xQ")
_SIGNATURE = b"GCOL\x01\x00\x00\x00"
# Number, references, four unused bytes, size.
_OBJECT = struct.Struct("<HHIQ")
_SMALLEST = 4096


def check_heaps(content: Any) -> None:
    """Raises if a global heap has an object without an end, which the library reads for ever.

    Args:
        content: The bytes of a file, such as an `mmap`.

    Raises:
        InvalidFileError: If a heap has an object without an end.
    """
    start = content.find(_SIGNATURE)
    while start != -1:
        if start + _HEAD.size <= len(content):
            _, _, size = _HEAD.unpack_from(content, start)
            if _SMALLEST <= size <= len(content) - start:  # the library rejects other sizes
                _check_objects(content, start + _HEAD.size, start + size)
        start = content.find(_SIGNATURE, start + 1)


def _check_objects(content: Any, place: int, end: int) -> None:
    """Checks that the texts of a heap end inside the heap."""
    while place + _OBJECT.size <= end:
        number, _, _, size = _OBJECT.unpack_from(content, place)
        # Number 0 is the free space. Its size includes these 16 bytes.
        step = size if number == 0 else _OBJECT.size + (size + 7) // 8 * 8
        if step < _OBJECT.size or place + step > end:
            raise InvalidFileError(
                "A text in the file does not end where it should: the file is damaged.",
                received=f"{size:,} bytes at byte {place:,}",
            )
        place += step
