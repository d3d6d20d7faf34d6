"""Weights for a rewritten model, whose layers keep the names of the original layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import keras

from keras_qat.layers import QuantizedLayer
from keras_qat.loading.files.hdf5 import SavedLayer
from keras_qat.loading.weights.matching import Pair, naming, owner

# Variables of quantizers, which files of float models do not have.
_OF_QUANTIZERS = ("maximum", "minimum", "updates", "seen", "held", "unfit")

Key = tuple[str, str]


def rewritten_targets(model: keras.Model) -> dict[Key, Any]:
    """Returns the variables that can take weights of the original model, by layer and own name.

    Factors and offsets that a rewrite may have merged with others are left out.

    Args:
        model: A model from `clone_model` or `quantize_model`.
    """
    kept = getattr(model, "kept_weights", None)
    found: dict[Key, Any] = {}
    for layer in model.layers:
        norm: Any = getattr(layer, "batch_normalization", None)
        of_norm = [] if norm is None else norm.weights
        own = [v for v in layer.weights if all(v is not other for other in of_norm)]
        if isinstance(layer, QuantizedLayer):
            own = [v for v in own if owner(v.path) == layer.name]
        if kept is None or layer.name in kept:
            found |= {(layer.name, _leaf(v.path)): v for v in own}
        # A `ChannelAffine` may be the product of several layers.
        is_own = type(norm) is keras.layers.BatchNormalization
        if norm is not None and is_own and (kept is None or norm.name in kept):
            found |= {(norm.name, _leaf(v.path)): v for v in of_norm}
    return {key: v for key, v in found.items() if key[1] not in _OF_QUANTIZERS}


def match_rewritten(targets: dict[Key, Any], saved: Sequence[SavedLayer]) -> list[Pair]:
    """Pairs variables of a rewritten model with the arrays that a file has of the original.

    If two nested models have layers of the same name, an array cannot be matched by name.

    Args:
        targets: See `rewritten_targets`.
        saved: The layers in the file.
    """
    pairs: list[Pair] = []
    alike = naming([name for name, _ in targets], [layer.name for layer in saved])
    targets = {(alike(name), own): variable for (name, own), variable in targets.items()}
    for layer in saved:
        name = alike(layer.name)
        is_separable = any(_leaf(path) == "pointwise_kernel" for path, _ in layer.weights)
        is_one = len({owner(path) for path, _ in layer.weights}) == 1
        for path, dataset in layer.weights:
            inner = alike(owner(path))
            for base in (name, inner) if is_one else (inner,):
                key = _key(base, _leaf(path), is_separable)
                if key in targets:
                    pairs.append((targets[key], (path, dataset)))
                    break
    takers = Counter(id(variable) for variable, _ in pairs)
    return [pair for pair in pairs if takers[id(pair[0])] == 1]


def _key(layer: str, name: str, is_separable: bool) -> Key:
    """Returns the key of a variable. Depthwise and pointwise kernels become separate layers."""
    if name == "depthwise_kernel":
        return (f"{layer}_depthwise" if is_separable else layer), "kernel"
    return layer, "kernel" if name == "pointwise_kernel" else name


def _leaf(path: str) -> str:
    return path.rpartition("/")[2].partition(":")[0]
