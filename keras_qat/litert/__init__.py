"""LiteRT files: data types, operator declarations, writing, reading and running.

Imports neither Keras nor TensorFlow, and `ai_edge_litert` only when a file is written, read or run.
"""

from keras_qat.litert.format.flatbuffer import Record
from keras_qat.litert.format.oldest_runtime import OldestRuntime, oldest_runtime
from keras_qat.litert.format.types import Model, Operator, Quantization, Tensor
from keras_qat.litert.reading.reader import LiteRTFile, read
from keras_qat.litert.running.expose import expose_tensors
from keras_qat.litert.running.interpreter import Runner
from keras_qat.litert.running.tensor_details import TensorDetails
from keras_qat.litert.writing.writer import to_bytes, write

__all__ = [
    "LiteRTFile",
    "Model",
    "OldestRuntime",
    "Operator",
    "Quantization",
    "Record",
    "Runner",
    "Tensor",
    "TensorDetails",
    "expose_tensors",
    "oldest_runtime",
    "read",
    "to_bytes",
    "write",
]
