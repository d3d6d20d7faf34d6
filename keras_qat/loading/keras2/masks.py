"""Masks of padded sequences, which Keras 2 and Keras 3 pass on by different rules."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras
from keras import ops, tree

from keras_qat.errors import InvalidFileWarning, warn_user
from keras_qat.graph.keras_internals import layers_of, mask_of, set_mask

_MERGES = (
    keras.layers.Add,
    keras.layers.Average,
    keras.layers.Concatenate,
    keras.layers.Maximum,
    keras.layers.Minimum,
    keras.layers.Multiply,
    keras.layers.Subtract,
)
# Layers that pass a mask on in Keras 3, but not in Keras 2.
_ENDS = (keras.layers.Identity, keras.layers.Normalization, keras.layers.Rescaling)


_ATTENTIONS = (keras.layers.GroupQueryAttention, keras.layers.MultiHeadAttention)


class Masks:
    """Calls layers so that each gets the mask that Keras 2 gives it.

    - Keras 2 passes the mask of the inputs whenever a layer has the argument `mask`. Keras 3 does
      so only where the inputs are the only tensors: a recurrent layer with `initial_state` loses
      its mask.
    - A merging layer combines the masks of its inputs with AND, and ignores inputs without a mask.
      Keras 3 has no mask if one input has no mask, and combines the others with OR. It multiplies
      without masked values.
    - `MultiHeadAttention` of Keras 3 removes the masks from its inputs, for all other layers.
    - `Identity`, `Rescaling`, `Normalization` and functions do not pass a mask on.

    Keras stores a mask as an attribute of a tensor, at each run of the model. If Keras 3 would use
    another mask than Keras 2, the mask is passed as an argument of the call.
    """

    def __init__(self):
        # Tensors that lose the attribute when the model runs, by their ids.
        self._hidden: dict[int, Any] = {}
        self._unknown: dict[int, Any] = {}

    def call(self, step: Callable[..., Any], inputs: Any, kwargs: dict[str, Any]) -> Any:
        """Calls a layer or a function.

        Args:
            step: The layer, or a function of `keras.ops`.
            inputs: Its first argument.
            kwargs: Its other arguments.

        Returns:
            The outputs of the step.
        """
        tensors = [each for each in tree.flatten(inputs) if _is_tensor(each)]
        masks = [mask_of(tensor) for tensor in tensors]
        if isinstance(step, _ATTENTIONS):
            return self._attend(step, inputs, kwargs)
        is_masked = any(mask is not None for mask in masks) or self._any(tensors, self._unknown)
        if not is_masked and not _makes_masks(step):
            return step(inputs, **kwargs)
        if not isinstance(step, keras.layers.Layer) or isinstance(step, _ENDS):
            return tree.map_structure(_without_mask, step(inputs, **kwargs))
        if isinstance(step, _MERGES):
            result = step([_without_mask(tensor) for tensor in tensors], **kwargs)
            self._hide(result, _merged(step, tensors, masks))
            return result
        result = step(inputs, **kwargs, **self._mask_argument(step, inputs, kwargs))
        for marked in (self._hidden, self._unknown):
            if self._any(tensors, marked) or (
                marked is self._unknown and isinstance(step, keras.Model)
            ):
                marked.update((id(each), each) for each in tree.flatten(result))
        return result

    def keep(self, result: Any, mask: Any) -> None:
        """Attaches a mask to the result of a function. Keras 3 does not do that."""
        self._hide(result, mask)

    def _attend(self, layer: Any, query: Any, kwargs: dict[str, Any]) -> Any:
        """Calls an attention layer, which in Keras 3 removes the masks from its inputs."""
        mask, own = mask_of(query), kwargs.get("attention_mask")
        named = {key: kwargs[key] for key in ("value", "key") if key in kwargs}
        given = {f"{key}_mask": mask_of(tensor) for key, tensor in named.items()}
        if mask is not None:  # Keras 3 ignores its own argument `query_mask`
            rows = ops.expand_dims(mask, -1)
            given["attention_mask"] = rows if own is None else ops.logical_and(own, rows)
        given = {key: each for key, each in given.items() if each is not None}
        copies = {key: _without_mask(tensor) for key, tensor in named.items()}
        result = layer(_without_mask(query), **{**kwargs, **given, **copies})
        self._hide(tree.flatten(result)[0], mask)
        return result

    def _hide(self, result: Any, mask: Any) -> None:
        """Attaches a mask to a result. The tensor loses the mask when the model runs."""
        if mask is not None:
            set_mask(result, mask)
            self._hidden[id(result)] = result

    def _any(self, tensors: list[Any], marked: dict[int, Any]) -> bool:
        return any(id(tensor) in marked for tensor in tensors)

    def _mask_argument(self, layer: Any, inputs: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Returns the argument `mask` of a call, if Keras 3 does not find the mask."""
        tensors = tree.flatten(inputs)
        is_needed = self._any(tensors, self._hidden) or any(map(_is_tensor, tree.flatten(kwargs)))
        takes_mask = "mask" in inspect.signature(layer.call).parameters
        if not is_needed or not takes_mask or kwargs.get("mask") is not None:
            return {}
        masks = tree.map_structure(mask_of, inputs)
        if self._any(tensors, self._unknown) and all(each is None for each in tree.flatten(masks)):
            warn_of_lost_mask(layer.name)
        return {"mask": masks}


def warn_of_lost_mask(name: str) -> None:
    """Warns that a layer may get no mask at the boundary of a nested model.

    Args:
        name: Name of the layer, or of the model that it is in.
    """
    warn_user(
        f"'{name}' may compute padded inputs without their mask: Keras 3 does not pass it between "
        "nested models and layers with `initial_state`. Compare its outputs on padded inputs.",
        InvalidFileWarning,
    )


def _is_tensor(value: Any) -> bool:
    return isinstance(value, keras.KerasTensor)


def _without_mask(tensor: Any) -> Any:
    """Returns a new tensor with the same values, by an operation that quantization removes."""
    if not _is_tensor(tensor) or mask_of(tensor) is None:
        return tensor
    return ops.concatenate([tensor], axis=-1)


def _merged(layer: Any, tensors: list[Any], masks: list[Any]) -> Any:
    """Returns the mask of merged tensors by the rules of Keras 2."""
    if all(mask is None for mask in masks):
        return None
    if not isinstance(layer, keras.layers.Concatenate):
        first, *others = [mask for mask in masks if mask is not None]
        for mask in others:
            first = ops.logical_and(first, mask)
        return first
    parts = [
        ops.ones_like(tensor, dtype="bool")
        if mask is None
        else ops.logical_and(ops.ones_like(tensor, dtype="bool"), ops.expand_dims(mask, -1))
        for tensor, mask in zip(tensors, masks, strict=True)
    ]
    return ops.all(ops.concatenate(parts, axis=layer.axis), axis=-1)


def _makes_masks(layer: Any) -> bool:
    """Whether a layer is a model that makes masks inside."""
    return isinstance(layer, keras.Model) and any(
        isinstance(each, keras.layers.Masking) or getattr(each, "mask_zero", False)
        for each in layers_of(layer, include_self=False)
    )
