"""Modes in which quantized layers compute in float, or what a function computes for them."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

_FORWARD: contextvars.ContextVar[Callable[[Any, Any], Any] | None] = contextvars.ContextVar(
    "keras_qat_forward", default=None
)
_FLOAT_MODE = contextvars.ContextVar("keras_qat_float_mode", default=False)


@contextlib.contextmanager
def float_mode():
    """Makes quantized layers compute in float, for calibration and comparison.

    The layers look at it when they are called or traced, so a compiled function keeps the mode
    it was traced in.
    """
    token = _FLOAT_MODE.set(True)
    try:
        yield
    finally:
        _FLOAT_MODE.reset(token)


def in_float_mode() -> bool:
    """Whether quantized layers compute in float now."""
    return _FLOAT_MODE.get()


@contextlib.contextmanager
def forward_by(function: Callable[[Any, Any], Any] | None) -> Iterator[None]:
    """Makes quantized layers return the result of a function instead of their own.

    Args:
        function: A function of a layer and its inputs. None for the layers' own results, as
            without this mode.

    Returns:
        A context manager.
    """
    token = _FORWARD.set(function)
    try:
        yield
    finally:
        _FORWARD.reset(token)


def replaced_forward() -> Callable[[Any, Any], Any] | None:
    """Returns the function that computes the results of quantized layers now, or None."""
    return _FORWARD.get()
