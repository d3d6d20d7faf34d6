"""The configuration of a compilation, and the settings that stages take their arguments from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from keras_qat.errors import InvalidRewriteError
from keras_qat.graph import Graph
from keras_qat.passes.overrides import Key, Overrides
from keras_qat.passes.split_activations import SplitLayers
from keras_qat.quantizers import RangeRule, checked_default_range, checked_steps, get_range_rule
from keras_qat.scheme import Scheme, get_scheme
from keras_qat.targets import DEFAULT_TARGET, get_target

POLICIES = ("exact", "lookup", "substitute", "error")


@dataclasses.dataclass(frozen=True)
class Config:
    """The options of `quantize_model`, `check` and `clone_model`. They mean the same in each.

    Attributes:
        scheme: The scheme; None for `clone_model`, whose layers compute in float.
        rewrites: Names of the rewrites to apply; None for all.
        skip_layers: Names of layers to remove.
        activations: The policy for activations.
        overrides: Layers that get another scheme, or None to stay in float.
        quant_delay: Number of training steps in float.
        default_ranges_stats: A range for the tensors that lack min/max data, or None.
        quantized_input_stats: The meaning of the integers of inputs, or None.
        range_rule: The range rule of activations, or its name.
        weight_range_rule: The range rule of weights, or its name; None for the schemes' defaults.
        target: Name of the target of the file; None becomes the default target.
        storage: How files store weights of less than 8 bits, see `Scheme`.

    Raises:
        InvalidRewriteError: If `activations` is not the name of a policy.
        InvalidOverrideError: If a key or a value of `overrides` has another type.
        InvalidDelayError: If `quant_delay` is not a non-negative integer.
        InvalidDefaultRangeError: If `default_ranges_stats` is not a valid range.
        InvalidRangeRuleError: If a range rule is unknown.
        InvalidTargetError: If `target` has no profile.
        InvalidSchemeError: If `storage` is unknown.

    Example:
    >>> from keras_qat.scheme import get_scheme
    >>> Config(get_scheme("int8"), overrides={"head": None}).activations
    'exact'
    """

    scheme: Scheme | None = None
    rewrites: Sequence[str] | None = None
    skip_layers: Sequence[str] = ()
    activations: str = "exact"
    overrides: Mapping[Key, str | Scheme | None] | str | None = None
    quant_delay: int = 0
    default_ranges_stats: Sequence[float] | None = None
    quantized_input_stats: Mapping[str, Sequence[float | str]] | None = None
    range_rule: str | RangeRule = "robust"
    weight_range_rule: str | RangeRule | None = None
    target: str | None = None
    storage: str | None = None

    def __post_init__(self):
        object.__setattr__(self, "quant_delay", checked_steps(self.quant_delay))
        if self.default_ranges_stats is not None:
            checked_default_range(self.default_ranges_stats)
        object.__setattr__(self, "target", get_target(self.target or DEFAULT_TARGET).name)
        for rule in (self.range_rule, self.weight_range_rule):
            get_range_rule("robust" if rule is None else rule)
        Overrides(self.overrides or {})
        (self.scheme or get_scheme("int4")).with_storage(self.storage)
        if self.activations not in POLICIES:
            raise InvalidRewriteError(
                "Unknown policy for activations.",
                received=f"activations={self.activations!r}",
                expected=f"one of {POLICIES}",
            )


@dataclasses.dataclass(frozen=True)
class Setting:
    """The configuration and what it means for one model. Steps take their arguments from here.

    Attributes:
        config: The configuration.
        chosen: Names of the rewrites to apply.
        default: Scheme of the operations without an override; None if all stay in float.
        schemes: Scheme (None for float) of each operation with an override, by its `id`.
        named: The origins that a key of `overrides` matches.
        left_out: The rewrites that `rewrites` leaves out, in order.
        split: The layers that `split_activations` has split.
        rewritten: The graph after the last rewrite; None before.
    """

    config: Config
    chosen: frozenset[str]
    default: Scheme | None = None
    schemes: Mapping[int, Scheme | None] = dataclasses.field(default_factory=dict)
    named: frozenset[str] = frozenset()
    left_out: tuple[Callable[[Graph], Graph], ...] = ()
    split: SplitLayers = dataclasses.field(default_factory=dict)
    rewritten: Graph | None = None
