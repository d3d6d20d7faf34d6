"""From a quantized model to a LiteRT model."""

from keras_qat.lowering.builder import Builder
from keras_qat.lowering.detection import DetectionPostProcess
from keras_qat.lowering.exporting import (
    check_float_layers,
    export_litert,
    lower_graph,
    lower_model,
)
from keras_qat.lowering.file_tensors import FileTensors, file_tensors
from keras_qat.lowering.kernel_limits import check_kernel_limits

__all__ = [
    "Builder",
    "DetectionPostProcess",
    "FileTensors",
    "check_float_layers",
    "check_kernel_limits",
    "export_litert",
    "file_tensors",
    "lower_graph",
    "lower_model",
]
