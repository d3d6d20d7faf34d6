"""Quantized layers, one file for each LiteRT operator family. Importing it registers them all."""

from keras_qat.layers.activations import QReLU, QSoftmax
from keras_qat.layers.base import QuantizedLayer, float_mode
from keras_qat.layers.batch_normalization import QBatchNormalization
from keras_qat.layers.concatenation import QConcatenate, QStack
from keras_qat.layers.convolution import QConv2D, QDepthwiseConv2D
from keras_qat.layers.dense import QDense
from keras_qat.layers.embedding import QEmbedding
from keras_qat.layers.gathering import QGather, QTile
from keras_qat.layers.input import QuantizeInput
from keras_qat.layers.lookup import QLookup
from keras_qat.layers.merge import QAdd
from keras_qat.layers.padding import QPad
from keras_qat.layers.pooling import (
    QAveragePooling2D,
    QGlobalAveragePooling2D,
    QGlobalMaxPooling2D,
    QMaxPooling2D,
)
from keras_qat.layers.quantized_model import QuantizedModel
from keras_qat.layers.registry import find_slice, register, registered_slices
from keras_qat.layers.regularization import (
    QActivityRegularization,
    QAlphaDropout,
    QDropout,
    QGaussianDropout,
    QGaussianNoise,
    QSpatialDropout1D,
    QSpatialDropout2D,
)
from keras_qat.layers.reshaping import QFlatten, QReshape
from keras_qat.layers.resizing import QResize
from keras_qat.layers.slicing import QCenterCrop, QStridedSlice
from keras_qat.layers.transposing import QTranspose

__all__ = [
    "QActivityRegularization",
    "QAdd",
    "QAlphaDropout",
    "QAveragePooling2D",
    "QBatchNormalization",
    "QCenterCrop",
    "QConcatenate",
    "QConv2D",
    "QDense",
    "QDepthwiseConv2D",
    "QDropout",
    "QEmbedding",
    "QFlatten",
    "QGather",
    "QGaussianDropout",
    "QGaussianNoise",
    "QGlobalAveragePooling2D",
    "QGlobalMaxPooling2D",
    "QLookup",
    "QMaxPooling2D",
    "QPad",
    "QReLU",
    "QReshape",
    "QResize",
    "QSoftmax",
    "QSpatialDropout1D",
    "QSpatialDropout2D",
    "QStack",
    "QStridedSlice",
    "QTile",
    "QTranspose",
    "QuantizeInput",
    "QuantizedLayer",
    "QuantizedModel",
    "find_slice",
    "float_mode",
    "register",
    "registered_slices",
]
