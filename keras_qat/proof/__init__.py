"""Checks that a rewritten model computes the same values as its source model."""

from keras_qat.proof.proving import check_ends, check_values
from keras_qat.proof.stepping import check_steps

__all__ = ["check_ends", "check_steps", "check_values"]
