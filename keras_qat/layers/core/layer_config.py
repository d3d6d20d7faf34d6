"""The arguments that all layers of this package have in common, as their configuration."""

from __future__ import annotations

from typing import Any

import keras

from keras_qat.layers.core.held_ranges import holds_ranges
from keras_qat.layers.core.tensor_observers import observed_specifications
from keras_qat.quantizers import RangeRule, Robust


def rule_of_config(value: RangeRule | dict[str, Any] | None) -> RangeRule | None:
    """Returns the range rule of an argument of a layer: a rule, its configuration, or None."""
    return keras.saving.deserialize_keras_object(value) if isinstance(value, dict) else value


def own_config(layer: Any) -> dict[str, Any]:
    """Returns the arguments of a layer that its Keras layer does not have.

    Those that have their default are left out, except for the scheme.

    Args:
        layer: A `QuantizedLayer`.
    """
    scheme, rule = layer.scheme, layer.range_rule
    has_rule = rule not in (None, Robust()) and observed_specifications(layer)
    given = {
        "keras_layer": layer.keras_layer,
        "output_name": layer.output_name,
        "storage": None if scheme is None else scheme.storage,
        "quant_delay": layer.delay_steps or None,
        "range_rule": keras.saving.serialize_keras_object(rule) if has_rule else None,
        "target": None if layer.target == "reference" else layer.target,
        "holds_ranges": holds_ranges(layer) or None,
    }
    known = {name: value for name, value in given.items() if value is not None}
    return {**known, "scheme": None if scheme is None else scheme.name}
