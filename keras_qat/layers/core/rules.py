"""The rules by which the kernels of a target compute operators, and the schemes they take."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache

from keras_qat.arithmetic.rules import RULES, Rule
from keras_qat.errors import UnsupportedLayerError
from keras_qat.litert.format.operators import declaration_of
from keras_qat.scheme import Scheme
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


def exact_scheme(
    kind: str, scheme: Scheme, widths: Sequence[int], operators: Collection[str], name: str
) -> Scheme:
    """Returns the scheme of a layer, if the layer has exact arithmetic for the activations of it.

    Args:
        kind: Name of the layer's class.
        scheme: The scheme that was asked for.
        widths: The widths of activations that the layer has exact arithmetic for, in bits.
        operators: Names of the layer's operators.
        name: Name of the layer.

    Raises:
        UnsupportedLayerError: If the activations of the scheme have another width.
    """
    if scheme.activation_bits in widths:
        return with_weights_of(scheme, operators)
    taken = f"activations of {' or '.join(map(str, widths))} bits"
    raise UnsupportedLayerError(
        f"This layer has no exact arithmetic for {scheme.activation_bits}-bit activations.",
        layer=name,
        received=f"a {kind} with scheme='{scheme.name}'",
        expected=taken if widths else "scheme=None",
        fix=f'Pass scheme="int8", or `overrides={{"{name}": "int8"}}` for the layer alone.'
        if widths
        else "Pass no scheme, and quantize the model.",
    )


def with_weights_of(scheme: Scheme, operators: Collection[str]) -> Scheme:
    """Returns a scheme with the width of weights that a layer has in the scheme.

    An operator without a packed form, such as TRANSPOSE_CONV, has narrow weights only in int8
    tensors.

    Args:
        scheme: The scheme.
        operators: Names of the layer's operators.

    Example:
    >>> from keras_qat.scheme import get_scheme
    >>> int2 = get_scheme("int2")
    >>> codes = "FULLY_CONNECTED", "CONV_2D", "MUL"
    >>> [with_weights_of(int2, [code]).weight_bits for code in codes]
    [2, 4, 8]
    """
    declared = [declaration_of(code) for code in operators]
    kept = (each for each in declared if each.packs_weights or scheme.storage == "int8")
    return scheme.with_weights([bits for each in kept for bits in each.narrow_weights])


@cache
def packs_weights(code: str, target: str, scheme: Scheme) -> bool:
    """Returns whether files for a target pack several weights of an operator in a byte.

    Args:
        code: Name of the operator.
        target: Name of the target.
        scheme: The scheme of the layer.

    Example:
    >>> from keras_qat.scheme import get_scheme
    >>> int4 = get_scheme("int4")
    >>> [packs_weights("CONV_2D", target, int4) for target in ("litert", "ethos-u")]
    [True, False]
    """
    if not scheme.has_narrow_weights or scheme.storage is not None:
        return scheme.has_narrow_weights and scheme.storage == "packed"
    quantities = {
        "type": scheme.dtype,
        "weight_type": scheme.weight_dtype,
        "per_channel": scheme.weight_per_channel,
        "version": declaration_of(code).version_of(scheme.weight_dtype),
    }
    profile = get_target(target)
    loads_all = profile.fallback_loads_all and profile.fallback is not None
    loaders = (profile, profile.fallback) if loads_all else (profile,)
    limits = [None if each is None else each.limits_of(code) for each in loaders]
    return all(own is not None and all(x.holds(quantities.get) for x in own) for own in limits)
