"""Inspection of `.tflite` files of any tool."""

from keras_qat.inspection.inspecting import inspect_litert
from keras_qat.inspection.report import (
    FileReport,
    MetadataReport,
    OperatorReport,
    QuantizationReport,
    SignatureReport,
    TensorReport,
)

__all__ = [
    "FileReport",
    "MetadataReport",
    "OperatorReport",
    "QuantizationReport",
    "SignatureReport",
    "TensorReport",
    "inspect_litert",
]
