"""From a quantized model to a LiteRT model."""

from keras_qat.lowering.builder import Builder
from keras_qat.lowering.exporting import (
    check_float_layers,
    check_kernel_limits,
    export_litert,
    lower_graph,
    lower_model,
)
from keras_qat.lowering.file_tensors import FileTensors, file_tensors

__all__ = [
    "Builder",
    "FileTensors",
    "check_float_layers",
    "check_kernel_limits",
    "export_litert",
    "file_tensors",
    "lower_graph",
    "lower_model",
]
