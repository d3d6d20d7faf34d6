"""Reports what a model will become and which problems there are, before any training."""

from keras_qat.checking.checking import check
from keras_qat.checking.findings import Finding
from keras_qat.checking.report import CheckedLayer, CheckReport, MadeLayer

__all__ = ["CheckReport", "CheckedLayer", "Finding", "MadeLayer", "check"]
