"""The range rules by their names."""

from __future__ import annotations

from keras_qat.errors import InvalidRangeRuleError
from keras_qat.quantizers.lsq import Lsq
from keras_qat.quantizers.min_max import MinMax
from keras_qat.quantizers.moving_average import MovingAverage
from keras_qat.quantizers.mse import Mse
from keras_qat.quantizers.percentile import Percentile
from keras_qat.quantizers.range_rule import RangeRule
from keras_qat.quantizers.robust import Robust
from keras_qat.scheme import Scheme

__all__ = [
    "RANGE_RULES",
    "Lsq",
    "MinMax",
    "MovingAverage",
    "Mse",
    "Percentile",
    "Robust",
    "get_range_rule",
    "weight_rule",
]

RANGE_RULES = {rule.name: rule for rule in (Robust, MinMax, MovingAverage, Percentile, Mse, Lsq)}


def get_range_rule(value: RangeRule | str) -> RangeRule:
    """Returns a range rule.

    Args:
        value: A `RangeRule`, or the name of one.

    Raises:
        InvalidRangeRuleError: If there is no such rule.

    Example:
    >>> get_range_rule("minmax").sets_outliers_aside
    False
    """
    if isinstance(value, RangeRule):
        return value
    if not isinstance(value, str) or value not in RANGE_RULES:
        raise InvalidRangeRuleError(
            "Unknown range rule.",
            received=f"range_rule={value!r}",
            expected=f"one of {list(RANGE_RULES)}, or a `keras_qat.quantizers.RangeRule`",
            fix='Leave it out, or pass range_rule="minmax".',
        )
    return RANGE_RULES[value]()


def weight_rule(value: RangeRule | str | None, scheme: Scheme) -> RangeRule:
    """Returns the range rule of the weights of a layer.

    Args:
        value: A `RangeRule`, the name of one, or None for the default rule of the scheme:
            `"minmax"` for weights of 8 bits, `"mse"` for fewer.
        scheme: The scheme of the layer.

    Raises:
        InvalidRangeRuleError: If there is no such rule.

    Example:
    >>> from keras_qat.scheme import get_scheme
    >>> weight_rule(None, get_scheme("int8"))
    MinMax()
    """
    if value is not None:
        return get_range_rule(value)
    return MinMax() if scheme.weight_bits >= 8 else Mse()
