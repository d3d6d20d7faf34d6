"""Values and models on the replicas of a `tf.distribute` strategy."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras


def across_replicas(x: Any) -> Any:
    """Stacks the values that a tensor has on the replicas of a `tf.distribute` strategy.

    Args:
        x: Tensor of the same shape on each replica.

    Returns:
        Tensor of shape (replicas, ...), the same on each replica. Outside a training step of a
        strategy, and on the other backends, whose tensors hold the whole batch, there is one
        replica.

    Example:
    >>> across_replicas(keras.ops.array([1, 2], "int32")).numpy()
    array([[1, 2]], dtype=int32)
    """
    x = keras.ops.expand_dims(x, 0)
    if keras.backend.backend() != "tensorflow":
        return x
    import tensorflow as tf

    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return x
    return replica.all_gather(x, axis=0)


def on_one_replica(
    model: keras.Model, *, trace_first: bool = True
) -> Callable[[Sequence[Any]], Any]:
    """Returns a function that computes a model's outputs for a batch, on one replica.

    `predict_on_batch` of a model under a `tf.distribute` strategy gives the whole batch to each
    replica, and concatenates what they return.

    Args:
        model: A built functional model.
        trace_first: Whether the first batch is computed by a compiled function too. On TensorFlow
            a trace takes longer than a batch does eagerly, and is of no use for a single one.

    Returns:
        A function from a list of inputs to the outputs as arrays, in the structure of the model's.

    Example:
    >>> x = keras.Input((2,))
    >>> model = keras.Model([x], keras.layers.ReLU()(x))
    >>> on_one_replica(model)([keras.ops.array([[-1.0, 2.0]])]).tolist()
    [[0.0, 2.0]]
    """
    is_tensorflow = keras.backend.backend() == "tensorflow"
    if not is_tensorflow or model.distribute_strategy.num_replicas_in_sync == 1:
        is_eager = is_tensorflow and not trace_first
        return _first_eager(model) if is_eager else model.predict_on_batch
    import tensorflow as tf

    predict = tf.function(model.predict_step, reduce_retracing=True)

    def predicted(batch: Sequence[Any]) -> Any:
        """Computes a batch of arrays. Returns arrays."""
        outputs = predict((list(map(tf.convert_to_tensor, batch)),))
        return keras.tree.map_structure(keras.ops.convert_to_numpy, outputs)

    return predicted


def _first_eager(model: keras.Model) -> Callable[[Sequence[Any]], Any]:
    """Returns a function of batches, the first of which is computed eagerly."""
    compute = iter([functools.partial(model, training=False)])

    def predicted(batch: Sequence[Any]) -> Any:
        outputs = next(compute, model.predict_on_batch)(batch)
        return keras.tree.map_structure(keras.ops.convert_to_numpy, outputs)

    return predicted
