"""LiteRT files: their vocabulary, writing them, and running them.

Imports neither Keras nor TensorFlow, and `ai_edge_litert` only when something is written or run.
"""

from keras_qat.litert.expose import expose_tensors
from keras_qat.litert.interpreter import Runner, TensorDetails
from keras_qat.litert.types import Model, Operator, Quantization, Tensor
from keras_qat.litert.writer import to_bytes, write

__all__ = [
    "Model",
    "Operator",
    "Quantization",
    "Runner",
    "Tensor",
    "TensorDetails",
    "expose_tensors",
    "to_bytes",
    "write",
]
