"""Finds the statement in the user's code that an error came from."""

from __future__ import annotations

import linecache
import os
import re
import sys
import textwrap
import traceback

# Libraries whose frames are skipped: the user's statement above them caused the error.
_LIBRARIES = {"keras", "keras_qat", "tensorflow", "jax", "jaxlib", "torch", "numpy", "optree"}

# Keras prints the message of a nested layer in bold, below a separate headline.
_NESTED_MESSAGE = re.compile("\x1b\\[1m(.*?)\x1b\\[0m", re.DOTALL)


def failing_statement(error: BaseException) -> str | None:
    """Returns the statement of the user's code that an error came from.

    Args:
        error: An error that was caught.

    Returns:
        File, line number and source line of the innermost frame outside of libraries, or None if
        no frame below the `except` clause is outside of libraries.

    Example:
    >>> failing_statement(ValueError("Never raised.")) is None
    True
    """
    own = [
        (frame.f_code.co_filename, line, frame.f_globals)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if not _is_library(frame.f_globals.get("__name__", ""))
    ]
    if not own:
        return None
    path, line, names = own[-1]
    source = linecache.getline(path, line, names).strip()
    return f"{os.path.basename(path)}, line {line}" + (f": `{source}`" if source else "")


def _is_library(module: str) -> bool:
    """Returns whether a module belongs to a library, and not to the user."""
    package = module.partition(".")[0]
    is_standard = package in sys.stdlib_module_names and module != "__main__"
    return package in _LIBRARIES or is_standard or package.startswith("__autograph")


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, without the headline that Keras may add.

    A line of more than 200 characters is cut after the last sentence or word that fits.
    """
    text = str(error)
    nested = _NESTED_MESSAGE.search(text)
    line = (nested.group(1) if nested else text).strip().partition("\n")[0]
    if len(line) <= 200:
        return line
    sentences = line[:200].rpartition(". ")[0]
    return sentences or textwrap.shorten(line, 200, placeholder=" ...")
