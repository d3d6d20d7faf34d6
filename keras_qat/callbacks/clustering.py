"""Weight clustering: kernels of few different integers, which training keeps."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.backend import follow_trainable, sync_variables
from keras_qat.callbacks.configured import ConfiguredCallback
from keras_qat.errors import InvalidTrainingError
from keras_qat.layers.kernels.weighted import WeightedLayer

_ROUNDS = 30
# The largest distance of a centroid from an integer: float errors of a kernel do not change its
# rounding.
_MOST_ROUNDED = 0.49


@keras.saving.register_keras_serializable("keras_qat")
class WeightClustering(ConfiguredCallback):
    """Gives each kernel few different integers, and keeps that while it trains.

    The integers of a kernel are not spread evenly, as those of a narrow scheme are: they are the
    centroids of its weights in steps, by k-means. Files compress better, and stay files of 8 bits.
    At the begin of `fit`, each weight is assigned to a centroid. After each training step, a
    centroid is the mean of its weights, so that it learns by the mean of their gradients, as in
    cluster-preserving training of TensorFlow's Model Optimization Toolkit. Zero and the largest
    integers are centroids that do not move, so pruned weights stay zero.
    Sources: Han et al., "Deep Compression", https://arxiv.org/abs/1510.00149; for training,
    https://www.tensorflow.org/model_optimization/guide/combine/pcqat_example.

    Steps of weights that a range rule sets are held. The callback is for schemes whose weights have
    a zero point of 0. Another `fit` needs the callback too, and keeps the assignment.

    Args:
        clusters: The most different integers of a kernel, at least 4.
        exclude: Names of layers whose kernels are left as they are.

    Raises:
        InvalidTrainingError: If an argument is something else, `exclude` has a name that is not the
            name of a layer with a kernel, or weights have a zero point.

    Example:
    >>> import keras_qat
    >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(8, name="head")])
    >>> x = np.random.default_rng(0).random((32, 64), "float32")
    >>> qat = keras_qat.quantize_model(model)
    >>> qat.compile("adam", "mse")
    >>> history = qat.fit(x, x[:, :8], callbacks=[WeightClustering(16)], verbose=0)
    >>> len(np.unique(keras_qat.integer_weights(qat)["head/kernel"].values)) <= 16
    True
    """

    def __init__(self, clusters: int = 16, *, exclude: Sequence[str] = ()):
        super().__init__(clusters=clusters, exclude=list(exclude))
        if not isinstance(clusters, int) or isinstance(clusters, bool) or clusters < 4:
            raise InvalidTrainingError(
                "The number of clusters is not a whole number of 4 or more.",
                received=f"clusters={clusters!r}",
                expected="a whole number of at least 4",
                fix="Pass clusters=16.",
            )
        self.clusters, self.exclude = clusters, tuple(exclude)
        self._found: list[tuple[WeightedLayer, _Clusters]] = []

    def on_train_begin(self, logs=None):
        """Assigns each weight to a centroid."""
        del logs
        kernels = {layer.name: layer for layer in self._kernels()}
        unknown = sorted(set(self.exclude) - set(kernels))
        if unknown or not kernels:
            raise InvalidTrainingError(
                "`exclude` names a layer without a trained kernel, or the model has none.",
                received=f"exclude={list(self.exclude)}",
                expected=f"names out of {sorted(kernels)}",
                fix="Leave the name out, and pass a model from `quantize_model`.",
            )
        chosen = [layer for name, layer in kernels.items() if name not in self.exclude]
        for layer in chosen:
            if layer.weight_range is not None:
                layer.weight_range.trainable = False
        follow_trainable(self.model)
        self._found = [(layer, _clusters_of(layer, self.clusters)) for layer in chosen]
        self._gather()

    def on_train_batch_end(self, batch, logs=None):
        """Moves the centroids to the means of their weights, and the weights to the centroids."""
        del batch, logs
        sync_variables(self.model)
        self._gather()

    def on_train_end(self, logs=None):
        """Moves the weights to the centroids: optimizers may have averaged the weights."""
        del logs
        self._gather()

    def _kernels(self) -> Iterator[WeightedLayer]:
        """Yields a layer for each trained kernel."""
        seen = set()
        for layer in self.trained_kernels():
            if id(layer.kernel) not in seen:
                seen.add(id(layer.kernel))
                yield layer

    def _gather(self) -> None:
        for layer, clusters in self._found:
            weights, _, step = _kernel_state(layer)
            size = _step_of_centroids(layer, weights, clusters.values() * step, step)
            clusters.move(weights / size)
            layer.kernel.assign((clusters.values() * size).astype("float32"))


@dataclasses.dataclass
class _Clusters:
    """The centroids of a kernel.

    Attributes:
        centroids: The centroids, in steps of the kernel.
        places: The centroid of each weight, in the shape of the kernel.
        largest: The largest integer of a weight.
    """

    centroids: np.ndarray
    places: np.ndarray
    largest: int

    def values(self) -> np.ndarray:
        """Returns the centroid of each weight."""
        return self.centroids[self.places]

    def move(self, weights: np.ndarray) -> None:
        """Moves the centroids to the means of weights in steps."""
        fixed = (self.centroids == 0) | (np.abs(self.centroids) == self.largest)
        count = np.bincount(self.places.reshape(-1), minlength=len(self.centroids))
        total = np.bincount(self.places.reshape(-1), weights.reshape(-1), len(self.centroids))
        means = np.where(count > 0, total / np.maximum(count, 1), self.centroids)
        nearest = np.clip(np.round(means), 1 - self.largest, self.largest - 1)
        means = nearest + np.clip(means - nearest, -_MOST_ROUNDED, _MOST_ROUNDED)
        self.centroids = np.where(fixed, self.centroids, means)


def _clusters_of(layer: WeightedLayer, most: int) -> _Clusters:
    """Returns the clusters of a kernel: the integers that it has if these are few, else k-means."""
    scheme: Any = layer.scheme
    if not scheme.weight_symmetric:
        raise InvalidTrainingError(
            "Weights of this scheme have a zero point, and cannot be clustered.",
            layer=layer.name,
            received=f"scheme={scheme.name!r}",
            expected="a scheme with symmetric weights",
            fix=f'Pass `exclude=["{layer.name}"]`, or use scheme="int8".',
        )
    weights, integers, step = _kernel_state(layer)
    few, places = np.unique(integers, return_inverse=True)
    largest = scheme.largest_weight
    if len(few) > most:
        few = _k_means(np.clip(weights / step, -largest, largest), most, largest)
        places = _nearest(few, weights / step)
    return _Clusters(few.astype("float64"), places.reshape(weights.shape), largest)


def _k_means(values: np.ndarray, count: int, largest: int) -> np.ndarray:
    """Returns centroids in ascending order, with 0 and the largest integers.

    Example:
    >>> _k_means(np.array([-7, -7, 2.9, 3.1, 5.0]), 5, 7).round(2).tolist()
    [-7.0, -3.51, 0.0, 3.67, 7.0]
    """
    centroids = np.linspace(-largest, largest, count)
    centroids[np.argmin(np.abs(centroids))] = 0
    found = _Clusters(centroids, np.zeros(values.shape, int), largest)
    for _ in range(_ROUNDS):
        found.places = _nearest(found.centroids, values)
        before = found.centroids
        found.move(values)
        if np.array_equal(before, found.centroids):
            break
    return found.centroids


def _nearest(centroids: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Returns the place of the nearest of ascending centroids."""
    return np.searchsorted((centroids[1:] + centroids[:-1]) / 2, values)


def _step_of_centroids(layer: Any, weights: Any, made: Any, step: Any) -> Any:
    """Returns the kernel of the integer 1: held steps, or those that fit the weights best.

    The range of the extremes follows from the kernel. A largest weight is at the largest centroid,
    so that the kernel's step is the result.

    Args:
        layer: The layer.
        weights: Its kernel.
        made: The centroids of the weights times `step`.
        step: The kernel of the integer 1 by the range rule now.
    """
    if layer.weight_range is not None:
        return step
    channels = {axis % made.ndim for axis in layer.channel_axes}
    is_apart = layer.scheme.weight_per_channel
    axes = tuple(axis for axis in range(made.ndim) if not is_apart or axis not in channels)
    energy = np.sum(made * made, axis=axes, keepdims=True)
    fitted = np.sum(made * weights, axis=axes, keepdims=True) / np.where(energy > 0, energy, 1)
    return step * np.where(fitted > 0, fitted, 1)


def _kernel_state(layer: WeightedLayer) -> tuple[Any, Any, Any]:
    """Returns the kernel, its integers, and the kernel of the integer 1, in float64."""
    integers, step = layer.kernel_integers()
    found = (ops.convert_to_numpy(each) for each in (layer.kernel, integers, step))
    weights, whole, size = (each.astype("float64") for each in found)
    return weights, whole, size
