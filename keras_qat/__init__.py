"""Quantization-aware training for Keras 3, exact to LiteRT's integer kernels."""

from keras_qat import callbacks, errors, layers
from keras_qat.calibration.calibrating import calibrate, suggest_default_ranges
from keras_qat.checking import check
from keras_qat.cloning import clone_model, quantize_model
from keras_qat.distilling import Distiller
from keras_qat.freezing import freeze_batch_norm, unfreeze_batch_norm
from keras_qat.graph.symbols import trace_within
from keras_qat.inspection import inspect_litert
from keras_qat.layers.core.registry import register
from keras_qat.litert_model import LiteRTModel
from keras_qat.loading import load_model, load_weights
from keras_qat.loading.tensorflow.dispatching import tensorflow_functions
from keras_qat.lowering import DetectionPostProcess, export_litert
from keras_qat.mixed_precision.budget import Budget
from keras_qat.mixed_precision.sensitivity import sensitivity
from keras_qat.passes import DEFAULT_REWRITES
from keras_qat.reestimating import reestimate_batch_norm
from keras_qat.streaming import streaming
from keras_qat.stripping import strip_quantization
from keras_qat.verification import verify
from keras_qat.version import __version__
from keras_qat.weights import integer_weights

__all__ = [
    "Budget",
    "DEFAULT_REWRITES",
    "DetectionPostProcess",
    "Distiller",
    "LiteRTModel",
    "__version__",
    "calibrate",
    "callbacks",
    "check",
    "clone_model",
    "errors",
    "export_litert",
    "freeze_batch_norm",
    "inspect_litert",
    "integer_weights",
    "layers",
    "load_model",
    "load_weights",
    "quantize_model",
    "reestimate_batch_norm",
    "register",
    "sensitivity",
    "streaming",
    "strip_quantization",
    "suggest_default_ranges",
    "unfreeze_batch_norm",
    "verify",
]

trace_within(tensorflow_functions)
