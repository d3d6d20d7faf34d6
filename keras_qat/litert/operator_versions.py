"""Versions of operators, and the first runtime release that has each.

The rules are those of `GetBuiltinOperatorVersion` in TensorFlow's
`compiler/mlir/lite/tools/versioning/op_version.cc`, and the releases those of `runtime_version.cc`
beside it (commit 03f49db5), for the operators that `keras_qat` writes. Where uint8 is concerned,
files have the versions of int8.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keras_qat.litert.types import Tensor


@dataclass(frozen=True)
class _Call:
    """An operator whose version is asked for."""

    inputs: Sequence[Tensor | None]
    options: Mapping[str, Any]

    @property
    def types(self) -> list[str]:
        """Types of the operands that are there."""
        return [x.dtype for x in self.inputs if x is not None]

    @property
    def shapes(self) -> list[tuple[int | None, ...]]:
        """Shapes of the operands that are there."""
        return [tuple(x.shape) for x in self.inputs if x is not None]


_Condition = Callable[[_Call], bool]


def _has_8_bits(call: _Call) -> bool:
    return call.types[0] in ("int8", "uint8")


def _is_int8(call: _Call) -> bool:
    return call.types[0] == "int8"


def _is_requantization(call: _Call) -> bool:
    return call.types[0] != "float32"


def _rank_above(limit: int) -> _Condition:
    return lambda call: max(map(len, call.shapes)) > limit


def _broadcasts_rank_5(call: _Call) -> bool:
    return max(map(len, call.shapes)) > 4 and len(set(call.shapes)) > 1


def _option(name: str) -> _Condition:
    return lambda call: bool(call.options.get(name))


def _is_dilated(call: _Call) -> bool:
    return any(call.options.get(f"dilation{axis}Factor", 1) != 1 for axis in "HW")


def _is_grouped(call: _Call) -> bool:
    data, weights = call.shapes[:2]
    return not _has_8_bits(call) and data[-1] != weights[-1]


def _has_bias(call: _Call) -> bool:
    return len(call.types) > 3


def _is_fused(call: _Call) -> bool:
    return call.options.get("fusedActivationFunction", "NONE") != "NONE"


def _has_8_bit_weights(call: _Call) -> bool:
    return call.types[1] in ("int8", "uint8")


def _is_per_channel(call: _Call) -> bool:
    weights = call.inputs[1]
    return (
        weights is not None
        and weights.quantization is not None
        and weights.quantization.scale.size > 1
    )


_SECOND: Mapping[int, _Condition] = {2: _has_8_bits}
_RESIZES = {2: _has_8_bits, 3: _option("halfPixelCenters")}
_PADS = {2: _has_8_bits, 4: _rank_above(4)}

# The conditions under which an operator needs a version; the highest that holds counts, else 1.
_CONDITIONS: Mapping[str, Mapping[int, _Condition]] = {
    **dict.fromkeys(
        """
        ADD AVERAGE_POOL_2D BATCH_MATMUL CONCATENATION GATHER GELU LEAKY_RELU LOGISTIC MAX_POOL_2D
        MEAN MIRROR_PAD MUL PACK REDUCE_MAX REDUCE_MIN RELU RELU6 SOFTMAX SUM TANH
        """.split(),
        _SECOND,
    ),
    "CONV_2D": {3: _has_8_bits, 6: _is_grouped},
    "DEPTHWISE_CONV_2D": {2: _is_dilated, 3: _has_8_bits},
    "DEQUANTIZE": {2: _is_int8},
    "DIV": {2: _broadcasts_rank_5},
    "FULLY_CONNECTED": {4: _is_int8, 5: _option("keepNumDims"), 12: _is_per_channel},
    "MAXIMUM": {2: _has_8_bits, 3: _broadcasts_rank_5},
    "MINIMUM": {2: _has_8_bits, 3: _broadcasts_rank_5},
    "PAD": _PADS,
    "PADV2": _PADS,
    "QUANTIZE": {2: _is_requantization},
    "RESIZE_BILINEAR": _RESIZES,
    "RESIZE_NEAREST_NEIGHBOR": _RESIZES,
    "STRIDED_SLICE": _PADS,
    "SUB": {2: _has_8_bits, 3: _broadcasts_rank_5},
    "TRANSPOSE": {2: _has_8_bits, 4: _rank_above(4), 6: _rank_above(5), 8: _rank_above(6)},
    "TRANSPOSE_CONV": {2: _has_8_bit_weights, 3: _has_bias, 4: _is_fused},
}


def operator_version(
    code: str, inputs: Sequence[Tensor | None], options: Mapping[str, Any] | None = None
) -> int:
    """Returns the version that an operator needs for its operands and options.

    Args:
        code: Name of the operator.
        inputs: Its operands; `None` for an optional one that is absent.
        options: Its options.

    Returns:
        The version, from 1.

    Example:
        >>> from keras_qat.litert import Tensor
        >>> from keras_qat.litert.operator_versions import operator_version
        >>> x = Tensor("x", (None, 2, 3, 4, 5), "int8")
        >>> operator_version("RELU", [x]), operator_version("TRANSPOSE", [x])
        (2, 4)
    """
    call = _Call(inputs, options or {})
    return max((n for n, holds in _CONDITIONS.get(code, {}).items() if holds(call)), default=1)


# Releases of versions 1, 2, 3, ... of an operator, in that order.
_RELEASES: dict[str, str] = {
    "ABS": "1.13.0 2.4.0 2.5.0 2.6.0 2.12.0",
    "ADD": "1.5.0 1.14.0 2.4.0 2.6.0 2.13.0 2.23.0",
    "ARG_MAX": "1.9.0 1.14.0 2.9.0",
    "ARG_MIN": "1.9.0 1.14.0 2.9.0",
    "AVERAGE_POOL_2D": "1.5.0 1.14.0 2.3.0",
    "BATCH_MATMUL": "2.3.0 2.3.0 2.4.0 2.5.0",
    "BATCH_TO_SPACE_ND": "1.6.0 1.14.0 2.3.0 2.12.0",
    "CAST": "1.5.0 2.7.0 2.8.0 2.9.0 2.12.0 2.15.0 2.17.0 2.21.0",
    "CONCATENATION": "1.5.0 1.14.0 2.3.0 2.14.0 2.21.0",
    "CONV_2D": "1.5.0 1.14.0 1.14.0 2.3.0 2.4.0 2.9.0 2.11.0 2.15.0",
    "DEPTHWISE_CONV_2D": "1.5.0 1.12.0 1.14.0 2.2.0 2.3.0 2.3.0 2.11.0",
    "DEPTH_TO_SPACE": "2.1.0 2.5.0",
    "DEQUANTIZE": "1.13.1 1.14.0 1.15.0 2.2.0 2.7.0 2.18.0 2.21.0 2.22.0",
    "DIV": "1.6.0 2.3.0",
    "ELU": "1.14.0",
    "EXP": "1.7.0 2.12.0",
    "EXPAND_DIMS": "1.10.0",
    "FULLY_CONNECTED": (
        "1.5.0 1.10.0 1.14.0 1.14.0 2.0.0 2.1.0 2.3.0 2.3.0 2.3.0 2.11.0 2.15.0 2.17.0 2.18.0 "
        "2.21.0"
    ),
    "GATHER": "1.6.0 1.14.0 1.15.0 2.4.0 2.5.0 2.13.0 2.15.0",
    "GELU": "2.9.0 2.9.0",
    "HARD_SWISH": "1.15.0",
    "L2_NORMALIZATION": "1.5.0 1.14.0",
    "LEAKY_RELU": "1.13.1 2.3.0",
    "LOGISTIC": "1.14.0 1.14.0 2.3.0",
    "LOG_SOFTMAX": "1.14.0 1.14.0",
    "MAXIMUM": "1.14.0 1.14.0 2.3.0 2.3.0",
    "MAX_POOL_2D": "1.5.0 1.14.0 2.3.0",
    "MEAN": "1.6.0 1.14.0 2.4.0",
    "MINIMUM": "1.14.0 1.14.0 2.3.0 2.3.0",
    "MIRROR_PAD": "1.13.1 2.3.0 2.12.0",
    "MUL": "1.5.0 1.14.0 1.15.0 2.3.0 2.6.0 2.11.0 2.13.0 2.23.0",
    "NEG": "1.9.0",
    "PACK": "1.11.0 1.14.0 2.3.0 2.13.0",
    "PAD": "1.5.0 1.14.0 2.4.0 2.6.0 2.20.0",
    "PADV2": "1.9.0 1.14.0 2.4.0 2.6.0 2.20.0",
    "PRELU": "1.8.0",
    "QUANTIZE": "1.14.0 1.15.0 2.7.0 2.21.0 2.21.0 2.21.0",
    "REDUCE_MAX": "1.11.0 1.14.0 2.5.0",
    "REDUCE_MIN": "1.11.0 1.14.0 2.5.0",
    "RELU": "1.5.0 2.1.0 2.5.0",
    "RELU6": "1.5.0 1.14.0 2.5.0",
    "RELU_0_TO_1": "2.10.0",
    "RELU_N1_TO_1": "1.5.0",
    "RESHAPE": "1.5.0",
    "RESIZE_BILINEAR": "1.7.0 1.14.0 2.2.0 2.5.0",
    "RESIZE_NEAREST_NEIGHBOR": "1.13.1 1.14.0 2.3.0 2.4.0",
    "RSQRT": "1.10.0 2.5.0 2.15.0",
    "SHAPE": "1.10.0",
    "SLICE": "1.14.0 1.14.0 1.14.0 2.4.0 2.5.0 2.14.0 2.21.0",
    "SOFTMAX": "1.5.0 1.14.0 2.3.0",
    "SPACE_TO_BATCH_ND": "1.6.0 1.14.0 2.3.0 2.12.0",
    "SPACE_TO_DEPTH": "1.5.0 1.14.0",
    "SPLIT": "1.5.0 1.14.0 1.14.0 2.3.0",
    "SPLIT_V": "1.13.1 2.3.0",
    "SQUARED_DIFFERENCE": "1.13.1 2.5.0",
    "SQUEEZE": "1.6.0 2.5.0",
    "STRIDED_SLICE": "1.6.0 1.14.0 2.1.0 2.2.0 2.5.0 2.6.0 2.14.0 2.14.0",
    "SUB": "1.6.0 1.14.0 2.3.0 2.4.0 2.4.0",
    "SUM": "1.10.0 1.15.0",
    "TANH": "1.14.0 1.14.0 2.3.0",
    "TILE": "1.10.1 2.2.0 2.8.0",
    "TRANSPOSE": "1.6.0 1.14.0 1.15.0 2.3.0 2.4.0 2.12.0 2.14.4 2.22.0",
    "TRANSPOSE_CONV": "1.9.0 2.2.0 2.3.0 2.13.0 2.15.0",
    "UNPACK": "1.11.0 1.14.0 2.2.0 2.3.0 2.22.0",
}

RUNTIME_VERSIONS: dict[tuple[str, int], str] = {
    (code, version): release
    for code, releases in _RELEASES.items()
    for version, release in enumerate(releases.split(), start=1)
}


def minimum_runtime_version(operators: Iterable[tuple[str, int]]) -> str | None:
    """Returns the first runtime release that has every one of the operators.

    Args:
        operators: Pairs of operator code and version, such as `("CONV_2D", 3)`.

    Returns:
        The release, such as `"1.14.0"`; `None` if there are no operators or the release of one of
        them is not known, for then no release can be promised.

    Example:
        >>> from keras_qat.litert.operator_versions import minimum_runtime_version
        >>> minimum_runtime_version([("CONV_2D", 3), ("LEAKY_RELU", 2), ("RESHAPE", 1)])
        '2.3.0'
        >>> minimum_runtime_version([("CONV_2D", 3), ("CONV_2D", 99)]) is None
        True
    """
    pairs = set(operators)
    if not pairs or not pairs <= RUNTIME_VERSIONS.keys():
        return None
    return max((RUNTIME_VERSIONS[pair] for pair in pairs), key=_release_key)


def _release_key(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in release.split("."))
