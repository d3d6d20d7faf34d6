"""The real values of the integers of a model input, as the user states them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_qat.errors import InvalidInputStatsError
from keras_qat.quantizers.specification import Fixed, Free

# The smallest integer of each type.
_LOWEST = {"uint8": 0, "int8": -128}
# Data that takes a smaller part of the range wastes two bits or more.
_LEAST_PART = 0.25
# The smallest and the largest std at which float32 holds the scale and the whole range.
_STDS = 1e-36, 1e36


@dataclasses.dataclass(frozen=True)
class InputStats:
    """The meaning of an input's integers: the integer `q` stands for `(q - mean) / std`.

    Source: `quantized_input_stats` of TensorFlow 1's `TFLiteConverter`.

    Attributes:
        mean: The integer that stands for 0.0. If it is not whole, the nearest whole number does.
        std: The number of integers for a difference of 1.0.
        dtype: The type of `q`, `"uint8"` or `"int8"`.
        has_type: Whether the user gave the type.

    Example:
    >>> stats = InputStats.of((0, 255), "image")
    >>> stats.dtype, stats.range
    ('uint8', (0.0, 1.0))
    """

    mean: float
    std: float
    dtype: str = "uint8"
    has_type: bool = False

    @classmethod
    def of(cls, value: Any, name: str) -> InputStats:
        """Checks the statistics that the user gave.

        Args:
            value: `(mean, std)` or `(mean, std, dtype)`. Without a type the integers are uint8, as
                those of pixels are, or int8 if the mean is negative.
            name: Name of the input, for messages.

        Raises:
            InvalidInputStatsError: If the value has another form, or no integer stands for 0.0.
        """
        parts = value if isinstance(value, Sequence) and not isinstance(value, (str, bytes)) else ()
        numbers = [x for x in parts[:2] if _is_finite(x)]
        dtype = parts[2] if len(parts) == 3 else None
        is_pair = len(parts) in (2, 3) and len(numbers) == 2 and _STDS[0] <= numbers[1] <= _STDS[1]
        if not is_pair or (len(parts) == 3 and dtype not in _LOWEST):
            raise InvalidInputStatsError(
                "Statistics of an input are not understood.",
                layer=name,
                received=repr(value),
                expected="(mean, std) or (mean, std, type): finite numbers, std > 0 (1e-36 to "
                "1e36), type 'uint8' or 'int8'",
                fix="Give what makes `real = (integer - mean) / std`: (0, 255) for pixels that "
                "stand for 0 to 1.",
            )
        mean, std = float(numbers[0]), float(numbers[1])
        stats = cls(mean, std, dtype or ("int8" if mean < 0 else "uint8"), dtype is not None)
        low = _LOWEST[stats.dtype]
        if not low <= mean <= low + 255:
            raise InvalidInputStatsError(
                "No integer of the input would stand for 0.",
                layer=name,
                received=f"a mean of {mean:g} for {stats.dtype}",
                expected=f"{low} <= mean <= {low + 255}",
                fix="Pass (mean, std, 'int8') for int8 integers, or shift the data in the model.",
            )
        return stats

    @property
    def zero(self) -> int:
        """The integer of `dtype` that stands for 0.0: the mean, a half rounded up."""
        return math.floor(self.mean + 0.5)

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and the largest real value that an integer stands for."""
        low = _LOWEST[self.dtype] - self.zero
        return low / self.std, (low + 255) / self.std

    def specification(self, observed: Free) -> Fixed:
        """Returns the specification of the input, which is also observed."""
        zero_point = self.zero - _LOWEST[self.dtype] + _LOWEST["int8"]
        return Fixed(float(np.float32(1.0 / self.std)), zero_point, observed)

    def fits(self, minimum: float, maximum: float) -> bool:
        """Returns whether the integers suit data of a range.

        Args:
            minimum: Smallest real value of the data.
            maximum: Largest one.
        """
        low, high = self.range
        # Audio from -1 to 1 fits int8, whose integers end one step before 1.
        slack = (1 + 1e-6) / self.std
        is_inside = low - slack <= minimum and maximum <= high + slack
        return is_inside and max(maximum, 0) - min(minimum, 0) >= _LEAST_PART * (high - low)

    def settled(self, minimum: float, maximum: float) -> InputStats:
        """Returns the statistics that fit the data.

        Args:
            minimum: Smallest real value of the data.
            maximum: Largest one.

        Returns:
            These statistics, or those of int8 if the user gave no type and only int8 fits.

        Example:
        >>> InputStats.of((0, 128), "audio").settled(-1.0, 1.0).dtype
        'int8'
        """
        about_int8 = dataclasses.replace(self, dtype="int8")
        if self.has_type or self.mean > 127 or self.fits(minimum, maximum):
            return self
        return about_int8 if about_int8.fits(minimum, maximum) else self


def _is_finite(value: Any) -> bool:
    """Whether a value is a number that float32 can hold, of Python or numpy."""
    is_real = isinstance(value, (int, float, np.integer, np.floating))
    return is_real and bool(abs(value) <= float(np.finfo("float32").max))
