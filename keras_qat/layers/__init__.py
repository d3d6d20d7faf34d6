"""Quantized layers, one file for each LiteRT operator family, all registered by the import."""

from keras_qat.layers import composed, preprocessing, refusals, repeating, statistics
from keras_qat.layers.activations import QReLU, QSoftmax
from keras_qat.layers.adaptive_pooling import QAdaptiveAveragePooling, QAdaptiveMaxPooling
from keras_qat.layers.augmentation import QAugmentation
from keras_qat.layers.base import QuantizedLayer, float_mode
from keras_qat.layers.batch_normalization import QBatchNormalization
from keras_qat.layers.concatenation import QConcatenate, QStack
from keras_qat.layers.convolution import QConv2D, QDepthwiseConv2D
from keras_qat.layers.convolution1d import QConv1D, QDepthwiseConv1D
from keras_qat.layers.dense import QDense
from keras_qat.layers.einsum_dense import QEinsumDense
from keras_qat.layers.elu import QElu
from keras_qat.layers.embedding import QEmbedding
from keras_qat.layers.extremes import QMaximum, QMinimum, QWhere
from keras_qat.layers.gathering import QGather, QTile
from keras_qat.layers.gelu import QGelu
from keras_qat.layers.global_pooling import (
    QGlobalAveragePooling1D,
    QGlobalAveragePooling2D,
    QGlobalMaxPooling1D,
    QGlobalMaxPooling2D,
)
from keras_qat.layers.hard_sigmoid import QHardSigmoid
from keras_qat.layers.hard_swish import QHardSwish
from keras_qat.layers.input import ObserveRange, Quantize, QuantizeInput
from keras_qat.layers.leaky_relu import QLeakyReLU
from keras_qat.layers.log_softmax import QLogSoftmax
from keras_qat.layers.logistic import QSigmoid
from keras_qat.layers.lookup import QLookup
from keras_qat.layers.matmul import QMatmul
from keras_qat.layers.merge import QAdd, QMultiply, QSubtract
from keras_qat.layers.normalizing import QNormalize
from keras_qat.layers.padding import QPad
from keras_qat.layers.pooling import (
    QAveragePooling1D,
    QAveragePooling2D,
    QMaxPooling1D,
    QMaxPooling2D,
)
from keras_qat.layers.prelu import QPReLU
from keras_qat.layers.quantized_model import QuantizedModel
from keras_qat.layers.reductions import QMean, QReduceMax, QReduceMin
from keras_qat.layers.registry import find_slice, refusal, refuse, register, registered_slices
from keras_qat.layers.regularization import (
    QActivityRegularization,
    QAlphaDropout,
    QDropout,
    QGaussianDropout,
    QGaussianNoise,
    QSpatialDropout1D,
    QSpatialDropout2D,
)
from keras_qat.layers.requantizing import Requantize
from keras_qat.layers.reshaping import QFlatten, QReshape
from keras_qat.layers.resizing import QResize
from keras_qat.layers.rewritten_model import RewrittenModel
from keras_qat.layers.separable import QSeparableConv1D, QSeparableConv2D
from keras_qat.layers.slicing import QCenterCrop, QStridedSlice
from keras_qat.layers.tanh import QTanh
from keras_qat.layers.transposed import QConv1DTranspose, QConv2DTranspose
from keras_qat.layers.transposing import QTranspose
from keras_qat.layers.unfused_batch_normalization import UnfusedBatchNormalization

__all__ = [
    "ObserveRange",
    "QActivityRegularization",
    "QAdaptiveAveragePooling",
    "QAdaptiveMaxPooling",
    "QAdd",
    "QAlphaDropout",
    "QAugmentation",
    "QAveragePooling1D",
    "QAveragePooling2D",
    "QBatchNormalization",
    "QCenterCrop",
    "QConcatenate",
    "QConv1D",
    "QConv1DTranspose",
    "QConv2D",
    "QConv2DTranspose",
    "QDense",
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
    "QLeakyReLU",
    "QLogSoftmax",
    "QLookup",
    "QMatmul",
    "QMaxPooling1D",
    "QMaxPooling2D",
    "QMaximum",
    "QMean",
    "QMinimum",
    "QMultiply",
    "QNormalize",
    "QPReLU",
    "QPad",
    "QReLU",
    "QReduceMax",
    "QReduceMin",
    "QReshape",
    "QResize",
    "QSeparableConv1D",
    "QSeparableConv2D",
    "QSigmoid",
    "QSoftmax",
    "QSpatialDropout1D",
    "QSpatialDropout2D",
    "QStack",
    "QStridedSlice",
    "QSubtract",
    "QTanh",
    "QTile",
    "QTranspose",
    "QWhere",
    "Quantize",
    "QuantizeInput",
    "QuantizedLayer",
    "QuantizedModel",
    "Requantize",
    "RewrittenModel",
    "UnfusedBatchNormalization",
    "find_slice",
    "float_mode",
    "composed",
    "preprocessing",
    "refusals",
    "repeating",
    "refusal",
    "refuse",
    "register",
    "registered_slices",
    "statistics",
]
