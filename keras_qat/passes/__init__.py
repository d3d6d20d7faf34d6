"""Graph rewrites, one a file, and the order they run in."""

from keras_qat.passes.pipeline import (
    DEFAULT_REWRITES,
    OPTIONAL,
    PIPELINE,
    Rewrite,
    run_pipeline,
    select_rewrites,
)

__all__ = [
    "DEFAULT_REWRITES",
    "OPTIONAL",
    "PIPELINE",
    "Rewrite",
    "run_pipeline",
    "select_rewrites",
]
