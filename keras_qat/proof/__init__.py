"""The proof of a rewrite: the rewritten model computes what the source model computes."""

from keras_qat.proof.proving import check_ends, check_values

__all__ = ["check_ends", "check_values"]
