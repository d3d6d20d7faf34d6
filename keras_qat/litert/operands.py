"""The operands that LiteRT's kernels rely on having."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

# Options, least and most inputs, least and most outputs, operators. `-` is "no options", `*` "any
# number". From the kernels' `Prepare`
# (https://github.com/tensorflow/tensorflow/tree/master/tensorflow/lite/kernels), which check this
# themselves as a rule, but not before XNNPACK looks at the operators.
OPERANDS = """
AddOptions 2 2 1 1 ADD
ArgMaxOptions 2 2 1 1 ARG_MAX
ArgMinOptions 2 2 1 1 ARG_MIN
BatchMatMulOptions 2 2 1 1 BATCH_MATMUL
BatchToSpaceNDOptions 3 3 1 1 BATCH_TO_SPACE_ND
BroadcastToOptions 2 2 1 1 BROADCAST_TO
CastOptions 1 1 1 1 CAST
ConcatenationOptions 1 * 1 1 CONCATENATION
Conv2DOptions 2 3 1 1 CONV_2D
CumsumOptions 2 2 1 1 CUMSUM
DensifyOptions 1 1 1 1 DENSIFY
DepthToSpaceOptions 1 1 1 1 DEPTH_TO_SPACE
DepthwiseConv2DOptions 3 3 1 1 DEPTHWISE_CONV_2D
DequantizeOptions 1 1 1 1 DEQUANTIZE
DivOptions 2 2 1 1 DIV
DynamicUpdateSliceOptions 3 3 1 1 DYNAMIC_UPDATE_SLICE
EqualOptions 2 2 1 1 EQUAL
ExpOptions 1 1 1 1 EXP
ExpandDimsOptions 2 2 1 1 EXPAND_DIMS
FillOptions 2 2 1 1 FILL
FloorDivOptions 2 2 1 1 FLOOR_DIV
FloorModOptions 2 2 1 1 FLOOR_MOD
FullyConnectedOptions 2 * 1 2 FULLY_CONNECTED
GatherNdOptions 2 2 1 1 GATHER_ND
GatherOptions 2 2 1 1 GATHER
GeluOptions 1 1 1 1 GELU
GreaterEqualOptions 2 2 1 1 GREATER_EQUAL
GreaterOptions 2 2 1 1 GREATER
HardSwishOptions 1 1 1 1 HARD_SWISH
LeakyReluOptions 1 1 1 1 LEAKY_RELU
LessEqualOptions 2 2 1 1 LESS_EQUAL
LessOptions 2 2 1 1 LESS
LogSoftmaxOptions 1 1 1 1 LOG_SOFTMAX
LogicalAndOptions 2 2 1 1 LOGICAL_AND
LogicalNotOptions 1 1 1 1 LOGICAL_NOT
LogicalOrOptions 2 2 1 1 LOGICAL_OR
MaximumMinimumOptions 2 2 1 1 MAXIMUM MINIMUM
MirrorPadOptions 2 2 1 1 MIRROR_PAD
MulOptions 2 2 1 1 MUL
NegOptions 1 1 1 1 NEG
NotEqualOptions 2 2 1 1 NOT_EQUAL
PackOptions 1 * 1 1 PACK
PadOptions 2 2 1 1 PAD
PadV2Options 3 3 1 1 PADV2
Pool2DOptions 1 1 1 1 AVERAGE_POOL_2D L2_POOL_2D MAX_POOL_2D
PowOptions 2 2 1 1 POW
QuantizeOptions 1 1 1 1 QUANTIZE
RangeOptions 3 3 1 1 RANGE
ReducerOptions 2 2 1 1 MEAN REDUCE_ALL REDUCE_ANY REDUCE_MAX REDUCE_MIN REDUCE_PROD SUM
ReshapeOptions 1 2 1 1 RESHAPE
ResizeBilinearOptions 2 2 1 1 RESIZE_BILINEAR
ResizeNearestNeighborOptions 2 2 1 1 RESIZE_NEAREST_NEIGHBOR
ReverseV2Options 2 2 1 1 REVERSE_V2
SelectOptions 3 3 1 1 SELECT
SelectV2Options 3 3 1 1 SELECT_V2
ShapeOptions 1 1 1 1 SHAPE
SliceOptions 3 3 1 1 SLICE
SoftmaxOptions 1 1 1 1 SOFTMAX
SpaceToBatchNDOptions 3 3 1 1 SPACE_TO_BATCH_ND
SpaceToDepthOptions 1 1 1 1 SPACE_TO_DEPTH
SplitOptions 2 2 1 * SPLIT
SplitVOptions 3 3 1 * SPLIT_V
SquareOptions 1 1 1 1 SQUARE
SquaredDifferenceOptions 2 2 1 1 SQUARED_DIFFERENCE
SqueezeOptions 1 1 1 1 SQUEEZE
StridedSliceOptions 4 4 1 1 STRIDED_SLICE
SubOptions 2 2 1 1 SUB
TileOptions 2 2 1 1 TILE
TopKV2Options 2 2 2 2 TOPK_V2
TransposeConvOptions 3 4 1 1 TRANSPOSE_CONV
TransposeOptions 2 2 1 1 TRANSPOSE
UnpackOptions 1 1 1 * UNPACK
- 2 2 1 1 PRELU
- 1 1 1 1 CEIL ELU FLOOR LOG LOGISTIC RELU RELU6 RELU_0_TO_1 RELU_N1_TO_1 ROUND RSQRT SIN SQRT TANH
AbsOptions 1 1 1 1 ABS
CosOptions 1 1 1 1 COS
"""
ANY = 2**31


@dataclass(frozen=True)
class Operands:
    """What a kernel relies on.

    Attributes:
        options: Name of the table of its options, or `None`.
        inputs: Least and most inputs; those up to the least must not be absent.
        outputs: Least and most outputs.
    """

    options: str | None
    inputs: tuple[int, int]
    outputs: tuple[int, int]


@cache
def operands() -> dict[str, Operands]:
    """Returns what is known, by name of the operator.

    Example:
        >>> from keras_qat.litert.operands import operands
        >>> operands()["CONV_2D"]
        Operands(options='Conv2DOptions', inputs=(2, 3), outputs=(1, 1))
    """
    result = {}
    for line in OPERANDS.strip().splitlines():
        options, *numbers, names = line.split(" ", 5)
        counts = [ANY if number == "*" else int(number) for number in numbers]
        entry = Operands(
            None if options == "-" else options, (counts[0], counts[1]), (counts[2], counts[3])
        )
        result.update(dict.fromkeys(names.split(), entry))
    return result
