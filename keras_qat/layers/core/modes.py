"""The mode in which quantized layers compute in float."""

from __future__ import annotations

import contextlib
import contextvars

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
