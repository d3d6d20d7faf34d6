"""Quantized layers, one file for each LiteRT operator family, all registered by the import."""

from keras_qat.layers.boundary.quantize import ObserveRange, Quantize, QuantizeInput
from keras_qat.layers.boundary.requantize import Requantize
from keras_qat.layers.core.base import QuantizedLayer
from keras_qat.layers.decompositions import (  # noqa: F401, importing them registers them
    composed,
    normalizations,
    preprocessing,
    recurrent,
    repeating,
)
from keras_qat.layers.decompositions.log_softmax import QLogSoftmax
from keras_qat.layers.decompositions.masked_mean import QMaskedAverage
from keras_qat.layers.decompositions.normalize import QNormalize
from keras_qat.layers.decompositions.padding_mask import QPaddingMask
from keras_qat.layers.elementwise.activations import QReLU, QSoftmax
from keras_qat.layers.elementwise.arithmetic import QAdd, QMultiply, QSubtract
from keras_qat.layers.elementwise.comparisons import QCompare, QLogical, QLogicalNot, QNumber
from keras_qat.layers.elementwise.elu import QElu
from keras_qat.layers.elementwise.gelu import QGelu
from keras_qat.layers.elementwise.hard_sigmoid import QHardSigmoid
from keras_qat.layers.elementwise.hard_swish import QHardSwish
from keras_qat.layers.elementwise.integer_division import QIntegerDivision
from keras_qat.layers.elementwise.leaky_relu import QLeakyReLU
from keras_qat.layers.elementwise.logistic import QSigmoid
from keras_qat.layers.elementwise.lookup import QLookup
from keras_qat.layers.elementwise.maximum import QMaximum, QMinimum, QSelect, QWhere
from keras_qat.layers.elementwise.prelu import QPReLU
from keras_qat.layers.elementwise.tanh import QTanh
from keras_qat.layers.kernels.batch_normalization import QBatchNormalization
from keras_qat.layers.kernels.conv_transpose import QConv1DTranspose, QConv2DTranspose
from keras_qat.layers.kernels.convolution import QConv2D, QDepthwiseConv2D
from keras_qat.layers.kernels.convolution1d import QConv1D, QDepthwiseConv1D
from keras_qat.layers.kernels.dense import QDense
from keras_qat.layers.kernels.einsum_dense import QEinsumDense
from keras_qat.layers.kernels.embedding import QEmbedding
from keras_qat.layers.kernels.lstm import QLSTM
from keras_qat.layers.kernels.matmul import QMatmul
from keras_qat.layers.kernels.separable import QSeparableConv1D, QSeparableConv2D
from keras_qat.layers.kernels.unfused_batch_normalization import UnfusedBatchNormalization
from keras_qat.layers.models.quantized_model import QuantizedModel
from keras_qat.layers.models.rewritten_model import RewrittenModel
from keras_qat.layers.moving.blocks_of_pixels import QDepthToSpace, QSpaceToDepth
from keras_qat.layers.moving.concatenate import QConcatenate, QStack
from keras_qat.layers.moving.gather import QGather, QTile
from keras_qat.layers.moving.pad import QPad
from keras_qat.layers.moving.reshape import QFlatten, QReshape
from keras_qat.layers.moving.resize import QResize
from keras_qat.layers.moving.strided_slice import QCenterCrop, QStridedSlice
from keras_qat.layers.moving.top_values import QTopPositions, QTopValues
from keras_qat.layers.moving.transpose import QTranspose
from keras_qat.layers.pooling.adaptive import QAdaptiveAveragePooling, QAdaptiveMaxPooling
from keras_qat.layers.pooling.global_pooling import (
    QGlobalAveragePooling1D,
    QGlobalAveragePooling2D,
    QGlobalMaxPooling1D,
    QGlobalMaxPooling2D,
)
from keras_qat.layers.pooling.positions import QArgMax, QArgMin
from keras_qat.layers.pooling.reductions import (
    QMean,
    QReduceAll,
    QReduceAny,
    QReduceMax,
    QReduceMin,
)
from keras_qat.layers.pooling.windows import (
    QAveragePooling1D,
    QAveragePooling2D,
    QMaxPooling1D,
    QMaxPooling2D,
)
from keras_qat.layers.training_only.augmentation import QAugmentation
from keras_qat.layers.training_only.regularization import (
    QActivityRegularization,
    QAlphaDropout,
    QDropout,
    QGaussianDropout,
    QGaussianNoise,
    QSpatialDropout1D,
    QSpatialDropout2D,
    QSpatialDropout3D,
)

__all__ = [
    "ObserveRange",
    "QActivityRegularization",
    "QAdaptiveAveragePooling",
    "QAdaptiveMaxPooling",
    "QAdd",
    "QAlphaDropout",
    "QArgMax",
    "QArgMin",
    "QAugmentation",
    "QAveragePooling1D",
    "QAveragePooling2D",
    "QBatchNormalization",
    "QCenterCrop",
    "QCompare",
    "QConcatenate",
    "QConv1D",
    "QConv1DTranspose",
    "QConv2D",
    "QConv2DTranspose",
    "QDense",
    "QDepthToSpace",
    "QDepthwiseConv1D",
    "QDepthwiseConv2D",
    "QDropout",
    "QEinsumDense",
    "QElu",
    "QEmbedding",
    "QFlatten",
    "QGather",
    "QGaussianDropout",
    "QGaussianNoise",
    "QGelu",
    "QGlobalAveragePooling1D",
    "QGlobalAveragePooling2D",
    "QGlobalMaxPooling1D",
    "QGlobalMaxPooling2D",
    "QHardSigmoid",
    "QHardSwish",
    "QIntegerDivision",
    "QLeakyReLU",
    "QLSTM",
    "QLogSoftmax",
    "QLogical",
    "QLogicalNot",
    "QLookup",
    "QMaskedAverage",
    "QMatmul",
    "QMaxPooling1D",
    "QMaxPooling2D",
    "QMaximum",
    "QMean",
    "QMinimum",
    "QMultiply",
    "QNormalize",
    "QNumber",
    "QPReLU",
    "QPad",
    "QPaddingMask",
    "QReLU",
    "QReduceAll",
    "QReduceAny",
    "QReduceMax",
    "QReduceMin",
    "QReshape",
    "QResize",
    "QSelect",
    "QSeparableConv1D",
    "QSeparableConv2D",
    "QSigmoid",
    "QSoftmax",
    "QSpaceToDepth",
    "QSpatialDropout1D",
    "QSpatialDropout2D",
    "QSpatialDropout3D",
    "QStack",
    "QStridedSlice",
    "QSubtract",
    "QTanh",
    "QTile",
    "QTopPositions",
    "QTopValues",
    "QTranspose",
    "QWhere",
    "Quantize",
    "QuantizeInput",
    "QuantizedLayer",
    "QuantizedModel",
    "Requantize",
    "RewrittenModel",
    "UnfusedBatchNormalization",
]
