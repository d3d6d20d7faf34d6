"""The only package that touches a Keras backend: compilation, replicas, modes and types.

Everything else in `keras_qat` is written with `keras.ops`. Backends are imported inside the
functions, so that importing this package costs nothing and pulls in none of them.
"""

from __future__ import annotations

from keras_qat.backend.batch_norm import fused_batch_norm
from keras_qat.backend.between_steps import follow_trainable, sync_variables
from keras_qat.backend.modules import is_training, start_in_inference
from keras_qat.backend.names import outermost_scope
from keras_qat.backend.replicas import (
    across_replicas,
    batch_moments,
    has_processes,
    on_one_replica,
)
from keras_qat.backend.tracing import compiled, part, traced_once
from keras_qat.backend.types import float64, full_precision, maximum, read, without_gradients

__all__ = [
    "across_replicas",
    "batch_moments",
    "compiled",
    "float64",
    "follow_trainable",
    "full_precision",
    "fused_batch_norm",
    "has_processes",
    "is_training",
    "maximum",
    "on_one_replica",
    "outermost_scope",
    "part",
    "read",
    "start_in_inference",
    "sync_variables",
    "traced_once",
    "without_gradients",
]
