"""Graph rewrites, one a file, and the order they run in."""

from keras_qat.passes.pipeline import (
    DEFAULT_REWRITES,
    OPTIONAL,
    PIPELINE,
    STAGES,
    select_rewrites,
)
from keras_qat.passes.provenance import Rewrite
from keras_qat.passes.running import run_pipeline

__all__ = [
    "DEFAULT_REWRITES",
    "OPTIONAL",
    "PIPELINE",
    "STAGES",
    "Rewrite",
    "run_pipeline",
    "select_rewrites",
]
