"""Graph rewrites, one a file, and the order they run in."""

from keras_qat.passes.pipeline import PIPELINE, Rewrite, run_pipeline, select_rewrites

__all__ = ["PIPELINE", "Rewrite", "run_pipeline", "select_rewrites"]
