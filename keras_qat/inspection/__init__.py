"""What is in a `.tflite` file, whoever made it."""

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
