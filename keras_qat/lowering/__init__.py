"""From a quantized model to a LiteRT model."""

from keras_qat.lowering.builder import Builder
from keras_qat.lowering.exporting import (
    INFERENCE_TYPES,
    check_float_layers,
    export_litert,
    lower_model,
)

__all__ = ["INFERENCE_TYPES", "Builder", "check_float_layers", "export_litert", "lower_model"]
