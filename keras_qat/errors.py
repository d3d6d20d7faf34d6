"""Typed errors: each says what happened, where, what was expected and how to fix it.

Everything that `keras_qat` raises on purpose derives from `KerasQatError`, so that one
`except` clause is enough for a caller who wants to report a failure and go on.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from typing import Any, Self

# Warnings are about what a user calls, not about what these packages call for it.
_NOT_USERS = ("keras_qat", "keras", "tensorflow")


class KerasQatError(Exception):
    """Base class of every error that `keras_qat` raises on purpose.

    Args:
        what: One sentence that says what happened.
        layer: Name of the layer (or operation, or tensor) it happened at.
        received: What was received, as text.
        expected: What would have been right.
        fix: One concrete thing to do about it.

    Attributes:
        what: As given; so are `layer`, `received`, `expected` and `fix`.

    Example:
    >>> print(KerasQatError("No weights.", layer="conv", fix="Call `model.build()`."))
    No weights. Layer: 'conv'. To fix it: Call `model.build()`.
    """

    def __init__(
        self,
        what: str,
        *,
        layer: str | None = None,
        received: object = None,
        expected: str | None = None,
        fix: str | None = None,
    ):
        self.what, self.layer, self.fix = what, layer, fix
        self.received, self.expected = received, expected
        parts = [what]
        if layer is not None:
            parts.append(f"Layer: '{layer}'.")
        if expected is not None:
            parts.append(f"Expected: {expected}.")
        if received is not None:
            parts.append(f"Received: {received}.")
        if fix is not None:
            parts.append(f"To fix it: {fix}")
        super().__init__(" ".join(parts))


def original_error(error: KerasQatError) -> KerasQatError:
    """Returns the error that a `call` raised, where Keras raised a copy of its text in its place.

    Keras adds the arguments of the call to the text, and leaves out `layer` and the other parts.

    Args:
        error: What came out of the `__call__` of a Keras layer.
    """
    inner = error.__context__
    while isinstance(inner, type(error)) and error.__cause__ is None and str(inner) in str(error):
        error, inner = inner, inner.__context__
    return error


class InvalidModelError(KerasQatError, ValueError):
    """The model cannot be read: not built, weights not finite, a dynamic spatial dimension."""


class UnsupportedLayerError(KerasQatError, ValueError):
    """A layer or operation has no integer form here."""


class InvalidRegistrationError(KerasQatError, ValueError):
    """A slice was registered for what is neither a layer class nor a matcher."""


class InvalidRewriteError(KerasQatError, ValueError):
    """A rewrite was asked for that there is not."""


class RewriteError(KerasQatError, ValueError):
    """A rewritten model does not compute what the source model computes: a defect here."""


class InvalidOverrideError(KerasQatError, ValueError):
    """A scheme was asked for layers that the model does not have, or by what is no key."""


class InvalidGraphError(KerasQatError, ValueError):
    """A rewrite left the graph inconsistent, or a graph cannot be linked."""


class InvalidSchemeError(KerasQatError, ValueError):
    """An unknown quantization scheme was asked for."""


class InvalidDelayError(KerasQatError, ValueError):
    """Quantization was to start after something that is no number of training steps."""


class InvalidDefaultRangeError(KerasQatError, ValueError):
    """`default_ranges_stats` is no range that tensors could have."""


class InvalidRangeRuleError(KerasQatError, ValueError):
    """A rule was asked for that no range follows."""


class InvalidInputStatsError(KerasQatError, ValueError):
    """`quantized_input_stats` does not say what the integers of an input mean."""


class InvalidDataError(KerasQatError, ValueError):
    """Data for calibration or verification has the wrong shape or type, is empty or not finite."""


class MissingRangeError(KerasQatError, ValueError):
    """A tensor lacks min/max data, so that it has no scale and zero point.

    Args:
        what: One sentence that says what happened.
        tensors: Names of all tensors that lack it.
        **parts: Arguments of `KerasQatError`.
    """

    def __init__(self, what: str, *, tensors: Sequence[str] = (), **parts):
        super().__init__(what, **parts)
        self.tensors = tuple(tensors)


class MissingPackageError(KerasQatError, ImportError):
    """An optional package is needed that is not installed."""


class NotQuantizedError(KerasQatError, ValueError):
    """A quantized model was expected, or a quantized layer was used outside one."""


class KernelLimitError(KerasQatError, ArithmeticError):
    """A LiteRT kernel would stop the process on these values."""


class ExportError(KerasQatError, OSError):
    """The `.tflite` file could not be written."""


class InvalidFileError(KerasQatError, ValueError):
    """A file of a model or of weights is damaged, does not fit, or holds what Keras 3 has not.

    Args:
        what: One sentence that says what happened.
        path: The file.
        **parts: Arguments of `KerasQatError`.
    """

    def __init__(self, what: str, *, path: object = None, **parts):
        super().__init__(what if path is None else f"{what} File: '{path}'.", **parts)
        self.what, self.path = what, path

    def at(self, path: object) -> Self:
        """Returns the error with the file that it is about."""
        parts = {name: getattr(self, name) for name in ("layer", "received", "expected", "fix")}
        return type(self)(self.what, path=path, **parts)


class UnsafeFileError(InvalidFileError):
    """Loading the file would run code that is in it, or read files that it names."""


class InvalidTargetError(KerasQatError, ValueError):
    """A target was asked for that there is no profile of."""


class TargetError(KerasQatError, ValueError):
    """The file would not run on the target that it is for.

    Args:
        what: One sentence that says what happened.
        violations: Each operator that does not run there, a `keras_qat.targets.Violation`.
        **parts: Arguments of `KerasQatError`.
    """

    def __init__(self, what: str, *, violations: Sequence[Any] = (), **parts):
        super().__init__(what, **parts)
        self.violations = tuple(violations)


class NewerVersionError(KerasQatError, ValueError):
    """A later version of the package saved the model in a way that this one does not know."""


class LiteRTFormatError(KerasQatError, ValueError):
    """A LiteRT model is malformed or asks for something that the format cannot express."""


class InputStatsWarning(UserWarning):
    """The data of an input is not what its `quantized_input_stats` are for."""


class NonFiniteWarning(UserWarning):
    """A quantized model computes NaN, because a weight or a range is not finite."""


class OutlierWarning(UserWarning):
    """Calibration set samples aside that are far larger than all others."""


class RangeDriftWarning(UserWarning):
    """Training sees other ranges than calibration did."""


class InvalidFileWarning(UserWarning):
    """A model was loaded, but is not compiled as it was when it was saved."""


class OwnTrainingWarning(UserWarning):
    """A model has a way of training of its own, which a model made of it does not have."""


class DefaultRangesWarning(UserWarning):
    """A file has tensors with a default range, because they lack min/max data."""


class TargetFallbackWarning(UserWarning):
    """The file runs on the target that it is for, but some of it on the CPU."""


def warn_user(text: str, category: type[Warning]) -> None:
    """Warns of something at the line of the user's code that it comes from.

    Args:
        text: What happened, and what to do about it.
        category: One of the warnings above.
    """
    frame, level = inspect.currentframe(), 1
    while frame and frame.f_globals.get("__name__", "").split(".")[0] in _NOT_USERS:
        frame, level = frame.f_back, level + 1
    warnings.warn(text, category, stacklevel=level)
