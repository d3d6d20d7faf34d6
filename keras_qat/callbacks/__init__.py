"""Keras callbacks for the training of quantized models."""

from keras_qat.callbacks.clustering import WeightClustering
from keras_qat.callbacks.freezing import FreezeBatchNorm, FreezeRanges
from keras_qat.callbacks.oscillations import DampenOscillations, FreezeOscillations
from keras_qat.callbacks.pruning import MagnitudePruning
from keras_qat.callbacks.range_logger import RangeLogger

__all__ = [
    "DampenOscillations",
    "FreezeBatchNorm",
    "FreezeOscillations",
    "FreezeRanges",
    "MagnitudePruning",
    "RangeLogger",
    "WeightClustering",
]
