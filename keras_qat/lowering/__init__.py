"""From a quantized model to a LiteRT model."""

from keras_qat.lowering.builder import Builder
from keras_qat.lowering.end_types import INFERENCE_TYPES
from keras_qat.lowering.exporting import (
    check_float_layers,
    check_kernel_limits,
    export_litert,
    lower_graph,
    lower_model,
)

__all__ = [
    "INFERENCE_TYPES",
    "Builder",
    "check_float_layers",
    "check_kernel_limits",
    "export_litert",
    "lower_graph",
    "lower_model",
]
