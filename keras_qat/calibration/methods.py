"""The names of the methods of calibration."""

from __future__ import annotations

from collections.abc import Sequence

from keras_qat.errors import InvalidMethodError

METHODS = ("equalize", "adaround", "bias_correction")


def get_methods(method: str | Sequence[str]) -> tuple[str, ...]:
    """Returns the checked names of methods, in the order in which they are applied.

    Args:
        method: A name, or several.

    Raises:
        InvalidMethodError: If a name is unknown.

    Example:
    >>> get_methods(["bias_correction", "equalize"])
    ('equalize', 'bias_correction')
    """
    names = [method] if isinstance(method, str) else method
    is_list = isinstance(names, list | tuple | set | frozenset)
    if not is_list or any(name not in METHODS for name in names):
        raise InvalidMethodError(
            "Unknown method of calibration.",
            received=f"method={method!r}",
            expected=f"names out of {list(METHODS)}",
            fix=f"Pass a list of names, such as method=[{METHODS[0]!r}].",
        )
    return tuple(name for name in METHODS if name in names)
