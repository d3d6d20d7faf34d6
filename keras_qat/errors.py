"""Typed errors: each states the problem, the place, the expected value and a fix.

All errors that `keras_qat` raises on purpose derive from `KerasQatError`, so a caller that
wants to report a failure and continue needs one `except` clause.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from typing import Any, Self

# Frames of these packages are skipped: warnings show the line of the user's call.
_NOT_USERS = ("keras_qat", "keras", "tensorflow")


class KerasQatError(Exception):
    """Base class of every error that `keras_qat` raises on purpose.

    Args:
        what: One sentence about the problem.
        layer: Name of the layer (or operation, or tensor) with the problem.
        received: The received value, as text.
        expected: A description of valid values.
        fix: One concrete way to fix the problem.

    Attributes:
        what: As given; also `layer`, `received`, `expected` and `fix`.

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

    def of_layer(self, layer: str) -> Self:
        """Returns the same error about another layer, of which the present one is a part.

        Args:
            layer: Name of the other layer.

        Example:
        >>> print(KerasQatError("No integers.", layer="block_sort").of_layer("block"))
        No integers. Layer: 'block'. Received: its operation 'block_sort'.
        """
        part = f"its operation '{self.layer}'"
        received = part if self.received is None else f"{part}, {self.received}"
        found = type(self).__new__(type(self))
        vars(found).update(vars(self))
        parts = {"expected": self.expected, "fix": self.fix}
        KerasQatError.__init__(found, self.what, layer=layer, received=received, **parts)
        return found


def original_error(error: KerasQatError) -> KerasQatError:
    """Returns the error that a `call` raised, if Keras raised a copy of its text instead.

    Keras adds the arguments of the call to the text, and drops `layer` and the other parts.

    Args:
        error: The error that the `__call__` of a Keras layer raised.
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
    """A rule was registered for something other than a layer class or a matcher."""


class InvalidRewriteError(KerasQatError, ValueError):
    """`rewrites` or `activations` has an unknown name."""


class RewriteError(KerasQatError, ValueError):
    """A rewritten model computes other values than the source model. This is a defect here."""


class InvalidOverrideError(KerasQatError, ValueError):
    """A key of `overrides` is not valid or matches no layer, or its scheme is not valid."""


class InvalidGraphError(KerasQatError, ValueError):
    """A rewrite left the graph inconsistent, or a graph cannot be linked."""


class InvalidSchemeError(KerasQatError, ValueError):
    """The quantization scheme is unknown."""


class InvalidDelayError(KerasQatError, ValueError):
    """`quant_delay` is not a non-negative integer."""


class InvalidDefaultRangeError(KerasQatError, ValueError):
    """`default_ranges_stats` is not a valid range for tensors."""


class InvalidRangeRuleError(KerasQatError, ValueError):
    """The range rule is unknown."""


class InvalidMethodError(KerasQatError, ValueError):
    """A method of calibration is unknown."""


class InvalidPruningError(KerasQatError, ValueError):
    """An argument of `keras_qat.callbacks.MagnitudePruning` is not valid."""


class InvalidTrainingError(KerasQatError, ValueError):
    """An argument of a callback or of a `Distiller` is not valid, or does not fit the model."""


class InvalidInputStatsError(KerasQatError, ValueError):
    """`quantized_input_stats` does not define the meaning of an input's integers."""


class InvalidDataError(KerasQatError, ValueError):
    """Data for calibration or verification has the wrong shape or type, is empty or not finite."""


class InvalidBudgetError(KerasQatError, ValueError):
    """A `Budget` is not valid, or no choice of schemes is within it."""


class InvalidMetricError(KerasQatError, ValueError):
    """The metric of `sensitivity` cannot be computed, or its mode is unknown."""


class MissingRangeError(KerasQatError, ValueError):
    """A tensor lacks min/max data, so it has no scale and zero point.

    Args:
        what: One sentence about the problem.
        tensors: Names of all tensors that lack min/max data.
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
    """A LiteRT kernel would stop the process on these values, or compute wrong ones."""


class ExportError(KerasQatError, OSError):
    """The `.tflite` file could not be written."""


class InvalidFileError(KerasQatError, ValueError):
    """A file of a model or of weights is damaged, does not fit, or has features Keras 3 lacks.

    Args:
        what: One sentence about the problem.
        path: The file.
        **parts: Arguments of `KerasQatError`.
    """

    def __init__(self, what: str, *, path: object = None, **parts):
        super().__init__(what if path is None else f"{what} File: '{path}'.", **parts)
        self.what, self.path = what, path

    def at(self, path: object) -> Self:
        """Returns the error with the path of the file in its text."""
        parts = {name: getattr(self, name) for name in ("layer", "received", "expected", "fix")}
        return type(self)(self.what, path=path, **parts)


class UnsafeFileError(InvalidFileError):
    """Loading the file would run code from the file, or read other files that it names."""


class InvalidTargetError(KerasQatError, ValueError):
    """The target has no profile."""


class TargetError(KerasQatError, ValueError):
    """The file would not run on its target.

    Args:
        what: One sentence about the problem.
        violations: Each operator that does not run there, a `keras_qat.targets.Violation`.
        **parts: Arguments of `KerasQatError`.
    """

    def __init__(self, what: str, *, violations: Sequence[Any] = (), **parts):
        super().__init__(what, **parts)
        self.violations = tuple(violations)


class NewerVersionError(KerasQatError, ValueError):
    """A later version of the package saved the model in a form that this version cannot read."""


class LiteRTFormatError(KerasQatError, ValueError):
    """A LiteRT model is malformed or needs something that the format cannot express."""


class InputStatsWarning(UserWarning):
    """The data of an input does not match its `quantized_input_stats`."""


class NonFiniteWarning(UserWarning):
    """A quantized model computes NaN, because a weight or a range is not finite."""


class OutlierWarning(UserWarning):
    """Calibration set samples aside that are far larger than all others."""


class RangeDriftWarning(UserWarning):
    """The ranges at training differ from the calibrated ranges."""


class InvalidFileWarning(UserWarning):
    """A model was loaded, but is not compiled as it was when it was saved."""


class OwnTrainingWarning(UserWarning):
    """A model has its own way of training, which a model made from it does not have."""


class DefaultRangesWarning(UserWarning):
    """Tensors have a default range, because they lack min/max data."""


class TargetFallbackWarning(UserWarning):
    """The file runs on its target, but some operators run on the CPU."""


def warn_user(text: str, category: type[Warning]) -> None:
    """Shows a warning at the line of the user's code that caused it.

    Args:
        text: What happened, and how to react.
        category: One of the warnings above.
    """
    frame, level = inspect.currentframe(), 1
    while frame and frame.f_globals.get("__name__", "").split(".")[0] in _NOT_USERS:
        frame, level = frame.f_back, level + 1
    warnings.warn(text, category, stacklevel=level)
