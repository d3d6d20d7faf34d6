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
    The callback keeps weights for training. In each step the kernel has the nearest centroids, and
    the weights move as the optimizer moves the kernel: the gradient passes straight through, as
    through a rounding. Each centroid then becomes the mean of its weights. Zero and the largest
    integers are centroids that do not move, and a weight that is zero stays zero.
    Source of the clusters: Han et al., "Deep Compression", https://arxiv.org/abs/1510.00149.

    Steps of weights that a range rule sets are held. The callback is for schemes whose weights have
    a zero point of 0. Another `fit` needs the callback too, and starts from the clusters.

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
        """Finds the centroids of each kernel."""
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
        """Moves the weights, their centroids, and the kernels to the centroids."""
        del batch, logs
        sync_variables(self.model)
        self._gather()

    def on_train_end(self, logs=None):
        """Moves the kernels to the centroids: optimizers may have averaged them."""
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
            clusters.add_step(_array(layer.kernel))
            layer.kernel.assign(clusters.weights.astype("float32"))
            step = _array(layer.kernel_integers()[1])
            clusters.follow(clusters.weights / step)
            layer.kernel.assign((clusters.values() * step).astype("float32"))
            clusters.made = _array(layer.kernel)


@dataclasses.dataclass
class _Clusters:
    """The centroids of a kernel, and the weights that training moves.

    Attributes:
        centroids: The centroids in ascending order, in steps of the kernel.
        largest: The largest integer of a weight.
        weights: The weights in float64. The kernel has those of the centroids.
        made: The kernel before a training step.
        places: The centroid of each weight.
    """

    centroids: np.ndarray
    largest: int
    weights: np.ndarray
    made: np.ndarray
    places: np.ndarray

    @classmethod
    def of(cls, weights: np.ndarray, centroids: np.ndarray, largest: int) -> _Clusters:
        """Returns the clusters of a kernel with these weights."""
        places = np.zeros(weights.shape, int)
        return cls(centroids, largest, weights, weights, places)

    def add_step(self, kernel: np.ndarray) -> None:
        """Moves the weights as a training step has moved the kernel. Zeros stay."""
        self.weights = np.where(self.weights == 0, 0, self.weights + kernel - self.made)

    def values(self) -> np.ndarray:
        """Returns the centroid of each weight."""
        return self.centroids[self.places]

    def follow(self, sizes: np.ndarray) -> None:
        """Assigns weights in steps to centroids, and moves the centroids to their means."""
        self.places = np.searchsorted((self.centroids[1:] + self.centroids[:-1]) / 2, sizes)
        sizes = np.clip(sizes, -self.largest, self.largest)
        fixed = (self.centroids == 0) | (np.abs(self.centroids) == self.largest)
        count = np.bincount(self.places.reshape(-1), minlength=len(self.centroids))
        total = np.bincount(self.places.reshape(-1), sizes.reshape(-1), len(self.centroids))
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
    weights, (integers, step) = _array(layer.kernel), map(_array, layer.kernel_integers())
    few, largest = np.unique(integers), scheme.largest_weight
    if len(few) > most:
        few = _k_means(weights / step, most, largest)
    return _Clusters.of(weights, few, largest)


def _k_means(sizes: np.ndarray, count: int, largest: int) -> np.ndarray:
    """Returns centroids in ascending order, with 0 and the largest integers.

    Example:
    >>> _k_means(np.array([-7, -7, 2.9, 3.1, 5.0]), 5, 7).round(2).tolist()
    [-7.0, -3.51, 0.0, 3.67, 7.0]
    """
    centroids = np.linspace(-largest, largest, count)
    centroids[np.argmin(np.abs(centroids))] = 0
    found = _Clusters.of(sizes, centroids, largest)
    for _ in range(_ROUNDS):
        before = found.centroids
        found.follow(sizes)
        if np.array_equal(before, found.centroids):
            break
    return found.centroids


def _array(tensor: Any) -> np.ndarray:
    """Returns the values of a tensor or variable in float64."""
    return ops.convert_to_numpy(tensor).astype("float64")
