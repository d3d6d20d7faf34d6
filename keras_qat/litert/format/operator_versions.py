"""Versions of operators, and the first runtime release of each version.

operators.toml has the conditions and releases. The rules are those of `GetBuiltinOperatorVersion`
in LiteRT's `tflite/converter/tools/versioning/op_version.cc`, and the releases are those of
`runtime_version.cc` in the same folder, or those that were measured. Three operators need a higher
version, because the kernels of older releases do not run them: FULLY_CONNECTED with a scale for
each channel, int8 LEAKY_RELU, and QUANTIZE of integers. For uint8, files have the versions of int8.
"""

from collections.abc import Callable, Collection, Iterable, Mapping

import numpy as np

from keras_qat.litert.format.operators import declaration_of
from keras_qat.litert.format.types import Operator, Tensor


def operator_version(operator: Operator, without: Collection[str] = ()) -> int:
    """Returns the version that an operator needs for its operands and options.

    Args:
        operator: The operator. Its own `version` is ignored.
        without: Names of conditions that are taken not to hold.

    Returns:
        The highest version whose condition holds; 1 if no condition holds.

    Example:
        >>> from keras_qat.litert import Operator, Tensor
        >>> from keras_qat.litert.format.operator_versions import operator_version
        >>> x, y = (Tensor(name, (None, 2, 3, 4, 5), "int8") for name in "xy")
        >>> [operator_version(Operator(code, (x,), (y,))) for code in ("RELU", "TRANSPOSE")]
        [2, 4]
    """
    conditions = declaration_of(operator.code).versions
    return max(
        (n for n, name in conditions.items() if name not in without and _holds(name, operator)),
        default=1,
    )


def lowered_version(operator: Operator) -> int | None:
    """Returns the version of an operator after the change that its declaration knows, or None.

    Args:
        operator: The operator, with the version that it has in a file.
    """
    lower = declaration_of(operator.code).lower
    if lower is None or not _holds(lower.condition, operator):
        return None
    version = operator_version(operator, lower.without)
    return version if version < operator.version else None


def _holds(condition: str, operator: Operator) -> bool:
    """Returns whether a condition of operators.toml holds for an operator."""
    rule = CONDITIONS.get(condition)
    return bool(operator.options.get(condition)) if rule is None else rule(operator)


def _type_of(role: str, *types: str) -> Callable[[Operator], bool]:
    """Makes a condition on the type of an operand."""

    def holds(operator: Operator) -> bool:
        operand = operator.operand(role)
        return operand is not None and operand.dtype in types

    return holds


def _shapes(operator: Operator) -> list[tuple[int | None, ...]]:
    return [tuple(x.shape) for x in operator.inputs if x is not None]


def _rank(least: int) -> Callable[[Operator], bool]:
    """Makes a condition on the largest rank of the operands."""
    return lambda operator: max(map(len, _shapes(operator))) >= least


def _broadcasts_rank_5(operator: Operator) -> bool:
    """Returns whether operands are broadcast to five axes or more."""
    return _rank(5)(operator) and len(set(_shapes(operator))) > 1


def _is_grouped(operator: Operator) -> bool:
    channels = {shape[-1] for shape in _shapes(operator)[:2] if shape}
    return len(channels) > 1


def _is_dilated(operator: Operator) -> bool:
    return any(operator.options.get(f"dilation{axis}Factor", 1) != 1 for axis in "HW")


def _is_per_channel(operator: Operator) -> bool:
    return _scales(operator.operand("weights")).size > 1


def _is_rescaled_up(operator: Operator) -> bool:
    """Returns whether the product of the inputs' scales is at least the output's scale."""
    a, b, y = (_scales(x) for x in (*operator.inputs, *operator.outputs))
    return bool(a.size and b.size and y.size) and bool(a[0] * b[0] / y[0] >= 1)


def _scales(tensor: Tensor | None) -> np.ndarray:
    quantization = None if tensor is None else tensor.quantization
    return np.zeros(0, "float32") if quantization is None else quantization.scale


# A condition without an entry here is the name of an option that must be set.
CONDITIONS: Mapping[str, Callable[[Operator], bool]] = {
    "8_bits": _type_of("data", "int8", "uint8"),
    "8_bits_or_int16": _type_of("data", "int8", "uint8", "int16"),
    "8_bit_weights": _type_of("weights", "int8", "uint8"),
    "always": lambda operator: True,
    "bias": lambda operator: operator.operand("bias") is not None,
    "broadcasts_rank_5": _broadcasts_rank_5,
    "dilated": _is_dilated,
    "float": _type_of("data", "float32"),
    "fused": lambda operator: operator.options.get("fusedActivationFunction", "NONE") != "NONE",
    "grouped": _is_grouped,
    "half_pixels_or_corners": lambda operator: bool(
        operator.options.get("halfPixelCenters") or operator.options.get("alignCorners")
    ),
    "int16": _type_of("data", "int16"),
    "int2_weights": _type_of("weights", "int2"),
    "int4_weights": _type_of("weights", "int4"),
    "int8": _type_of("data", "int8"),
    "per_channel": _is_per_channel,
    "rank_5": _rank(5),
    "rank_6": _rank(6),
    "rank_7": _rank(7),
    "requantizes_or_int16": lambda operator: (
        operator.outputs[0].dtype == "int16"
        or _type_of("data", "int8", "uint8", "int16", "int32")(operator)
    ),
    "rescaled_up": _is_rescaled_up,
    "to_or_from_int8": lambda operator: (
        "int8" in (operator.outputs[0].dtype, *(x.dtype for x in operator.inputs if x is not None))
    ),
}


def minimum_runtime_version(operators: Iterable[tuple[str, int]]) -> str | None:
    """Returns the first runtime release that has every one of the operators.

    Args:
        operators: Pairs of operator code and version, such as `("CONV_2D", 3)`.

    Returns:
        The release, such as `"1.14.0"`. `None` if there are no operators, or if the release of one
        of them is not known.

    Example:
        >>> from keras_qat.litert.format.operator_versions import minimum_runtime_version
        >>> minimum_runtime_version([("CONV_2D", 3), ("LEAKY_RELU", 2), ("RESHAPE", 1)])
        '2.3.0'
        >>> minimum_runtime_version([("CONV_2D", 3), ("CONV_2D", 99)]) is None
        True
    """
    releases = {_release(*pair) for pair in operators}
    return (
        None if not releases or None in releases else max(filter(None, releases), key=_release_key)
    )


def _release(code: str, version: int) -> str | None:
    releases = declaration_of(code).releases
    return releases[version - 1] if 0 < version <= len(releases) else None


def _release_key(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in release.split("."))
