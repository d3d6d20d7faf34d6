"""The integer rules by which the kernels of a target compute operators."""

from __future__ import annotations

from functools import cache

from keras_qat.arithmetic.rules import RULES, Rule
from keras_qat.litert.format.operators import declaration_of
from keras_qat.targets import fast_kernels, get_target


@cache
def integer_rule(code: str, target: str, dtype: str, *, takes_delegate: bool = True) -> Rule:
    """Returns the rule by which a target computes an operator of 8-bit integers.

    Args:
        code: Name of the operator.
        target: Name of the target.
        dtype: Type of the data.
        takes_delegate: Whether shapes and operands are such that the target's fast kernels take
            the operator, if they have it.

    Returns:
        A function of `keras_qat.arithmetic`.

    Example:
    >>> integer_rule("FULLY_CONNECTED", "reference", "int8").__name__
    'requantize_float64'
    """
    return RULES[declaration_of(code).rule(kernels_of(code, target, takes_delegate), dtype)]


def rounding_rule(target: str) -> Rule:
    """Returns the rule by which a target quantizes real values.

    Args:
        target: Name of the target.

    Example:
    >>> rounding_rule("reference").__name__
    'quantize'
    """
    return integer_rule("QUANTIZE", target, "float32")


def kernels_of(code: str, target: str, takes_delegate: bool = True) -> str:
    """Returns the name of the kernels that run an operator on a target.

    Args:
        code: Name of the operator.
        target: Name of the target.
        takes_delegate: As in `integer_rule`.

    Example:
    >>> kernels_of("ADD", "litert"), kernels_of("SOFTMAX", "litert")
    ('xnnpack', 'optimized')
    """
    profile = get_target(target)
    fast = fast_kernels(profile)
    is_taken = takes_delegate and fast is not None and code in fast.operators
    return fast.kernels if fast is not None and is_taken else profile.kernels
