"""Where in a user's own code an error came from."""

from __future__ import annotations

import linecache
import os
import re
import sys
import textwrap
import traceback

# Keras and what it calls: an error that surfaces there was caused by the statement above.
_LIBRARIES = {"keras", "keras_qat", "tensorflow", "jax", "jaxlib", "torch", "numpy", "optree"}

# Keras puts what a nested layer raised in bold, below a headline of its own.
_NESTED_MESSAGE = re.compile("\x1b\\[1m(.*?)\x1b\\[0m", re.DOTALL)


def failing_statement(error: BaseException) -> str | None:
    """Says which statement of the user's code an error came from.

    Args:
        error: An error that was caught.

    Returns:
        File, line number and source line of the innermost frame that is not a library's; None if
        there is none below the place where the error was caught.

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
    package = module.partition(".")[0]
    is_standard = package in sys.stdlib_module_names and module != "__main__"
    return package in _LIBRARIES or is_standard or package.startswith("__autograph")


def first_line(error: BaseException) -> str:
    """Returns the first line of what an error says, of what Keras made it of if it did.

    Of a line of more than 200 characters it is the sentences, or else the words, that fit.
    """
    text = str(error)
    nested = _NESTED_MESSAGE.search(text)
    line = (nested.group(1) if nested else text).strip().partition("\n")[0]
    if len(line) <= 200:
        return line
    sentences = line[:200].rpartition(". ")[0]
    return sentences or textwrap.shorten(line, 200, placeholder=" ...")
