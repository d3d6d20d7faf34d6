"""Proves that Keras and the deployed kernels compute the same integers."""

from keras_qat.verification.report import LayerComparison, VerificationReport
from keras_qat.verification.verifying import verify

__all__ = ["LayerComparison", "VerificationReport", "verify"]
