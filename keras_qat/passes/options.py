"""The options of a conversion, and the settings that stages take their arguments from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from keras_qat.errors import InvalidRewriteError
from keras_qat.graph import Graph
from keras_qat.passes.overrides import Overrides
from keras_qat.passes.split_activations import SplitLayers
from keras_qat.scheme import Scheme

POLICIES = ("exact", "lookup", "substitute", "error")


@dataclasses.dataclass(frozen=True)
class Options:
    """The options of `quantize_model`, `clone_model` and `check` that affect the graph.

    Attributes:
        scheme: The scheme; None for `clone_model`, whose layers compute in float.
        rewrites: Names of the rewrites to apply; None for all.
        skip_layers: Names of layers to remove.
        activations: The policy for activations.
        overrides: Layers that get another scheme.
        quantized_input_stats: The meaning of the integers of inputs.

    Raises:
        InvalidRewriteError: If `activations` is not the name of a policy.
    """

    scheme: Scheme | None = None
    rewrites: Sequence[str] | None = None
    skip_layers: Sequence[str] = ()
    activations: str = "exact"
    overrides: Overrides = dataclasses.field(default_factory=lambda: Overrides({}))
    quantized_input_stats: Mapping[str, Sequence[Any]] | None = None

    def __post_init__(self):
        if self.activations not in POLICIES:
            raise InvalidRewriteError(
                "Unknown policy for activations.",
                received=f"activations={self.activations!r}",
                expected=f"one of {POLICIES}",
            )


@dataclasses.dataclass(frozen=True)
class Setting:
    """The options and what they mean for one model. Steps take their arguments from here.

    Attributes:
        options: The options.
        chosen: Names of the rewrites to apply.
        schemes: Scheme (None for float) of each operation with an override, by its `id`.
        named: The origins that a key of `overrides` matches.
        left_out: The rewrites that `rewrites` leaves out, in order.
        split: The layers that `split_activations` has split.
        rewritten: The graph after the last rewrite; None before.
    """

    options: Options
    chosen: frozenset[str]
    schemes: Mapping[int, Scheme | None] = dataclasses.field(default_factory=dict)
    named: frozenset[str] = frozenset()
    left_out: tuple[Callable[[Graph], Graph], ...] = ()
    split: SplitLayers = dataclasses.field(default_factory=dict)
    rewritten: Graph | None = None
