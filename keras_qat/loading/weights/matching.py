"""Matching of saved arrays to variables, by name if both have names, else by order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import h5py
import keras

from keras_qat.errors import InvalidFileError
from keras_qat.loading.files.hdf5 import SavedLayer

# Variables that were renamed in Keras 3, or in some version of Keras 3.
_RENAMED = {"depthwise_kernel": "kernel", "sn_u": "vector_u"}
_LEAVES = ("alpha", "beta", "bias", "embeddings", "gamma", "kernel", "mean")
_LEAVES += ("moving_mean", "moving_variance", "pointwise_kernel", "recurrent_kernel", "variance")

Pair = tuple[Any, tuple[str, h5py.Dataset]]


def old_order(layer: keras.layers.Layer) -> list[Any]:
    """Returns the variables of a layer or model in the order in which Keras 2 saved them."""
    return [*layer.trainable_weights, *layer.non_trainable_weights]


def match_layer(layer: keras.layers.Layer, saved: SavedLayer) -> list[Pair]:
    """Pairs the variables of a layer, or of a nested model, with the arrays saved for it.

    Args:
        layer: The layer.
        saved: The saved weights of the layer.

    Returns:
        Each variable with the name and dataset of its values. Shapes may differ.

    Raises:
        InvalidFileError: If the numbers of variables and arrays differ, or names do not match.
    """
    targets, weights = old_order(layer), list(saved.weights)
    if len(targets) != len(weights):
        raise InvalidFileError(
            "The file has another number of weights for this layer.",
            layer=saved.name,
            received=f"{[name for name, _ in weights]}",
            expected=f"{[variable.path for variable in targets]}",
        )
    for key in (_path, _owner_and_leaf):
        by_key = {key(name): (name, dataset) for name, dataset in weights}
        keys = [key(variable.path) for variable in targets]
        if len(by_key) == len(weights) and set(keys) == set(by_key):
            return [(v, by_key[k]) for v, k in zip(targets, keys, strict=True)]
    if any(leaf(name) in _LEAVES for name, _ in weights):
        return _match_leaves(targets, weights, saved.name)
    return list(zip(targets, weights, strict=True))  # Keras 1 names weights W and b


def _match_leaves(targets: Sequence[Any], weights: Sequence[Any], layer: str) -> list[Pair]:
    """Pairs the first kernel with the first kernel, because saved layer names are unreliable."""

    def numbered(names: list[str]) -> list[tuple[str, int]]:
        """Pairs each name with the number of equal names before it."""
        return [(name, names[:i].count(name)) for i, name in enumerate(names)]

    saved = numbered([leaf(name) for name, _ in weights])
    wanted = numbered([leaf(variable.path) for variable in targets])
    if Counter(saved) != Counter(wanted):
        raise InvalidFileError(
            "The file has other weights for this layer.",
            layer=layer,
            received=f"{[name for name, _ in weights]}",
            expected=f"{[variable.path for variable in targets]}",
        )
    by_key = dict(zip(saved, weights, strict=True))
    return [(variable, by_key[key]) for variable, key in zip(targets, wanted, strict=True)]


def leaf(path: str) -> str:
    """Returns the variable's own name in `layer/cell/kernel:0`."""
    name = path.rpartition("/")[2].partition(":")[0]
    return _RENAMED.get(name, name)


def owner(path: str) -> str:
    """Returns the name of the innermost layer in `model/layer/kernel:0`."""
    return path.rpartition("/")[0].rpartition("/")[2]


def naming(own: Sequence[str], theirs: Sequence[str]) -> Callable[[str], str]:
    """Returns the function that normalizes layer names, some of which Keras 3 renamed.

    Args:
        own: Names of layers of the model.
        theirs: Names of layers in the file.

    Returns:
        A function that makes equivalent names equal. It removes slashes. It also turns
        `Conv/BatchNorm` into `conv_bn`, if all names stay different.

    Example:
    >>> naming(["conv", "conv_bn"], ["Conv", "Conv/BatchNorm"])("Conv/BatchNorm")
    'conv_bn'
    """
    tells_apart = all(
        len({_modern(n) for n in names}) == len(set(names)) for names in (own, theirs)
    )
    return _modern if tells_apart else _without_slashes


def _without_slashes(name: str) -> str:
    return name.replace("/", "_")


def _modern(name: str) -> str:
    """Returns a name in a form that old and new names share."""
    return _without_slashes(name).lower().replace("batchnorm", "bn")


def _path(path: str) -> str:
    head, _, name = path.partition(":")[0].rpartition("/")
    return f"{head}/{_RENAMED.get(name, name)}"


def _owner_and_leaf(path: str) -> tuple[str, str]:
    return owner(path), leaf(path)
