"""Values and models on the replicas of a `tf.distribute` strategy or of PyTorch's processes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras


def across_replicas(x: Any) -> Any:
    """Concatenates the values that a tensor has on the replicas of a model.

    Args:
        x: Tensor of shape (1, ...), the same shape on each replica.

    Returns:
        Tensor of shape (replicas, ...), the same on each replica. The replicas are those of a
        `tf.distribute` strategy, inside a training step, or the processes of
        `torch.distributed`. JAX has one replica, because its tensors hold the whole batch.

    Example:
    >>> across_replicas(keras.ops.array([[1, 2]], "int32")).numpy()
    array([[1, 2]], dtype=int32)
    """
    if has_processes():
        import torch  # pyright: ignore[reportMissingImports] (an optional backend)

        parts = [torch.empty_like(x) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(parts, x.contiguous())
        return torch.cat(parts)
    if keras.backend.backend() != "tensorflow":
        return x
    import tensorflow as tf

    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return x
    return replica.all_gather(x, axis=0)


def has_processes() -> bool:
    """Returns whether a model trains in several processes of `torch.distributed`.

    Example:
    >>> has_processes()
    False
    """
    if keras.backend.backend() != "torch":
        return False
    from torch import distributed  # pyright: ignore[reportMissingImports]

    is_ready = distributed.is_available() and distributed.is_initialized()
    return is_ready and distributed.get_world_size() > 1


def batch_moments(x: Any, axes: Sequence[int], synchronized: bool) -> tuple[Any, Any]:
    """Returns the mean and the variance of a batch.

    Args:
        x: float32 tensor.
        axes: The axes to reduce, the batch included.
        synchronized: Whether the samples of all replicas of a `tf.distribute` strategy are one
            batch. Those of the processes of `torch.distributed` always are, for which Keras has no
            such option: all processes get the same moving statistics, and write the same file.

    Returns:
        Tensors without these axes, with gradients.

    Example:
    >>> mean, variance = batch_moments(keras.ops.array([[1.0], [3.0]]), [0], False)
    >>> mean.numpy().tolist(), variance.numpy().tolist()
    ([2.0], [1.0])
    """
    if not has_processes():
        return keras.ops.moments(x, axes=axes, synchronized=synchronized)
    import torch  # pyright: ignore[reportMissingImports] (an optional backend)

    summed = _sum_of_processes()
    sums = torch.sum(x, dim=tuple(axes), keepdim=True)
    own_count = sums.new_tensor([x.numel() / sums.numel()])
    both = summed(torch.cat([sums.reshape(-1), own_count]))
    count = both[-1]
    mean = (both[:-1] / count).reshape(sums.shape)
    # The mean of squares minus the square of the mean would lose digits if the mean is large.
    variance = summed(torch.sum((x - mean) ** 2, dim=tuple(axes), keepdim=True)) / count
    return tuple(torch.squeeze(each, dim=tuple(axes)) for each in (mean, variance))


@functools.cache
def _sum_of_processes() -> Callable[[Any], Any]:
    """Returns a function that adds the values of a tensor in all processes of PyTorch.

    The gradient is the sum of the gradients in all processes. `torch.distributed` moved such a
    function between its private modules.
    """
    import torch  # pyright: ignore[reportMissingImports] (an optional backend)

    def total(x: Any) -> Any:
        x = x.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(x)
        return x

    class Sum(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            del ctx
            return total(x)

        @staticmethod
        def backward(ctx: Any, gradient: Any) -> Any:
            del ctx
            return total(gradient)

    return Sum.apply


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
