"""Detects which version of Python wrote bytecode in a file, without unmarshalling it."""

from __future__ import annotations

import base64
import binascii
import dis
import marshal
from typing import Any

_OWN = (lambda: None).__code__
_HEAD = marshal.dumps(_OWN)
# Type, five numbers of four bytes, then the instructions: type, size, bytes.
_START = _HEAD.index(_OWN.co_code)
_MASK = 0x7F  # the highest bit of a type marks an object that is referred to later
_OPENERS = ("RESUME", "COPY_FREE_VARS", "MAKE_CELL")


def is_of_this_python(function: Any) -> bool:
    """Whether bytecode has the form that this version of Python writes.

    Each version of Python has its own instructions. Instructions of another version crash the
    process or cannot be read. `marshal.loads` is not safe on untrusted files, so this function
    reads only the layout of the code and its instructions.

    Args:
        function: A function in the form of Keras 2 or 3: `[code, defaults, closure]`, or a dict.

    Returns:
        False if another version of Python wrote the code, or if `function` is not code.

    Example:
    >>> code = base64.encodebytes(marshal.dumps((lambda x: x + 1).__code__)).decode()
    >>> is_of_this_python([code, None, None])
    True
    """
    content = _content(function)
    instructions = content[_START:]
    if len(instructions) < len(_OWN.co_code):
        return False
    size = int.from_bytes(content[_START - 4 : _START], "little")
    codes = set(instructions[: size - size % 2 : 2])
    known, calls = dis.opmap, {dis.opmap.get(name) for name in ("CALL", "PRECALL")} - {None}
    return (
        content[0] & _MASK == _HEAD[0] & _MASK
        and content[_START - 5] & _MASK == _HEAD[_START - 5] & _MASK
        and 0 < size <= len(instructions)
        and instructions[0] in {known[name] for name in _OPENERS}
        and codes <= set(known.values())
        and len(codes & calls) in (0, len(calls))
    )


def _content(function: Any) -> bytes:
    """Returns the bytes of serialized bytecode, in any of the forms that Keras writes."""
    if isinstance(function, dict):
        inner = function.get("config")
        inner = inner if isinstance(inner, dict) else {}
        function = inner.get("code", inner.get("value"))
    code = function[0] if isinstance(function, list) and function else function
    if not isinstance(code, str):
        return b""
    try:
        return base64.decodebytes(code.encode("ascii"))
    except (UnicodeEncodeError, binascii.Error):  # as Keras 1 wrote it
        return code.encode("raw_unicode_escape")
