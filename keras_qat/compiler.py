"""Compiles a float model to a rewritten or quantized one, stage by stage."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from types import MappingProxyType
from typing import Any, cast

import keras

from keras_qat.errors import KerasQatError, UnsupportedLayerError
from keras_qat.extending import carry_ranges, in_float, is_extended
from keras_qat.graph import Graph, Node, build_model
from keras_qat.graph.soundness import (
    input_errors,
    quantization_errors,
    training_errors,
    weight_errors,
)
from keras_qat.graph.subclassed import read_any_model
from keras_qat.layers import QuantizedLayer
from keras_qat.layers.core.drop_in import copy_by_path, copy_trainable
from keras_qat.layers.kernels.batch_normalization import batch_norm_of
from keras_qat.layers.kernels.weighted import WeightedLayer
from keras_qat.layers.models.finiteness import check_finite
from keras_qat.lowering import check_float_layers
from keras_qat.passes import Rewrite, select_rewrites
from keras_qat.passes.config import Config, Setting
from keras_qat.passes.inference_calls import batch_norm_calls
from keras_qat.passes.inline_models import inline_models
from keras_qat.passes.kept_weights import kept_weights
from keras_qat.passes.making_stages import MAKING
from keras_qat.passes.overrides import Overrides
from keras_qat.passes.pipeline import PIPELINE
from keras_qat.passes.provenance import error_of_user, rewrites_of
from keras_qat.passes.rewriting_stages import REWRITING
from keras_qat.passes.running import Runner, name_of
from keras_qat.passes.schemes import check_one_type, origins_of
from keras_qat.proof import check_ends, check_values
from keras_qat.quantizers import Robust, get_range_rule, weight_rule
from keras_qat.scheme import get_scheme

# The scheme that tells integers from float in a clone, if none of its overrides has one.
_STAND_IN = get_scheme("int8")


@dataclasses.dataclass
class CompiledGraph:
    """The graph of a model before and after the stages.

    Attributes:
        config: The configuration.
        source: The graph of the model, as it was read. Operations are identified by their `id`, so
            the graph has to live as long as the compilation.
        graph: The graph of Keras operations after the passes that have run.
        layers: The graph of quantized layers; None if the stages ended before they were made.
        log: The rewrites of the passes.
        batch_norm_calls: The `id` of each batch normalization that occurred in a graph, and whether
            it is called with `training=False`.
        extended: The model of which layers are quantized already, whose ranges are kept; or None.
    """

    config: Config
    source: Graph
    graph: Graph
    layers: Graph | None = None
    log: list[Rewrite] = dataclasses.field(default_factory=list)
    batch_norm_calls: set[tuple[int, bool]] = dataclasses.field(default_factory=set)
    extended: keras.Model | None = None

    def build(self, model_class: Any, input_tensors: Any = None) -> Any:
        """Builds a model from the layers, with the weights of the source model.

        Args:
            model_class: Class of the model.
            input_tensors: Keras tensors to build upon; None for new ones.

        Raises:
            UnsupportedLayerError: If a layer does not accept the shapes of its inputs.
            RewriteError: If an output has another shape or dtype than the source model's.
            InvalidModelError: If folded weights are not finite.
        """
        layers = cast(Graph, self.layers)
        self._set_range_rules(layers)
        if self.config.quant_delay:
            first = next(node for node in layers.nodes.values() if not node.is_input)
            first.head.delay_steps = self.config.quant_delay
        carry = functools.partial(carry_weights, self.graph)
        try:
            result = build_model(layers, model_class, input_tensors=input_tensors, after_call=carry)
        except UnsupportedLayerError as error:
            raise error_of_user(error, layers.nodes.get(error.layer or "")) from error.__cause__
        self._freeze_batch_norms()
        result.rewrite_log = tuple(self.log)
        result.origins = MappingProxyType(origins_by_layer(layers))
        result.kept_weights = kept_weights(inline_models(self.source), self.graph, self.log)
        check_ends(self.source, result)
        if self.extended is not None:
            carry_ranges(self.extended, result)
        if self.config.scheme is not None:
            check_float_layers(result)
            check_finite(result)
        return result

    def _set_range_rules(self, layers: Graph) -> None:
        """Tells each new layer the range rules of its tensors and of its weights."""
        own = get_range_rule(self.config.range_rule)
        for layer in (node.head for node in layers.nodes.values() if not node.is_input):
            if isinstance(layer, QuantizedLayer) and own != Robust():
                layer.range_rule = own
            if isinstance(layer, WeightedLayer) and layer.scheme is not None:
                layer.weight_range_rule = weight_rule(self.config.weight_range_rule, layer.scheme)

    def _freeze_batch_norms(self) -> None:
        """Freezes the batch normalizations that the model only calls with `training=False`."""
        calls = self.batch_norm_calls
        frozen = {found for found, is_inference in calls if is_inference}
        frozen -= {found for found, is_inference in calls if not is_inference}
        for name, node in cast(Graph, self.layers).nodes.items():
            source = self.graph.nodes.get(name)
            norm = batch_norm_of(node.head)
            if source is not None and norm is not None and frozen & set(map(id, source.operations)):
                norm.trainable = False

    def prove(self, model: keras.Model, data: Any = None) -> None:
        """Compares the values of a built model in float with the values of the source model.

        Args:
            model: The model that `build` returned.
            data: Data for the inputs, for one or two samples; None for generated samples.

        Raises:
            RewriteError: With the first layer that differs.
        """
        check_values(self.source, model, self.log, data)


def compile(model: keras.Model, config: Config, runner: Runner | None = None) -> CompiledGraph:
    """Runs the stages, from a Keras model to a graph of quantized layers.

    `quantize_model`, `clone_model` and `check` all call it, so they agree on every model.

    Args:
        model: A built Keras model. It is not changed. New layers on the tensors of a quantized
            model make a model whose quantized layers keep their schemes and ranges.
        config: The configuration.
        runner: Runs the passes. By default a `Runner`, which raises the first error. If a runner
            collects errors, the stages may end early.

    Returns:
        A `CompiledGraph`, whose `build` makes a model.

    Raises:
        InvalidModelError: If the model cannot be read, or is quantized already.
        InvalidRewriteError: If `rewrites` has an unknown name.
        InvalidOverrideError: If a key of `overrides` matches no layer.
        InvalidInputStatsError: If `quantized_input_stats` is not valid.
        UnsupportedLayerError: If a layer has no integer form, or the `call` of a subclassed model
            cannot be traced.
        InvalidGraphError: If a pass fails, or an invariant is violated after a stage.

    Example:
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="head")])
    >>> compiled = compile(model, Config(get_scheme("int8")))
    >>> [type(node.head).__name__ for node in compiled.layers.nodes.values()]
    ['InputLayer', 'QuantizeInput', 'QDense']
    """
    chosen = frozenset(map(name_of, select_rewrites(config.rewrites)))
    extended = model if is_extended(model) else None
    if extended is not None:
        model, config = in_float(model, config)
    source = read_any_model(model)
    setting = _setting(source, config, chosen)
    compiled = CompiledGraph(config, source, source, extended=extended)
    runner = runner or Runner()
    for error in model_errors(model, source):
        runner.report(error)
    if runner.errors:  # errors of layers would follow from an error that is known
        return compiled
    try:
        _run_stages(compiled, setting, runner)
    except Exception:
        if not runner.errors:
            raise
    return compiled


def model_errors(model: keras.Model, source: Graph) -> Iterator[KerasQatError]:
    """Yields an error for each property of the whole model that prevents quantization.

    Args:
        model: The model.
        source: The graph of the model, as it was read.
    """
    yield from quantization_errors(model)
    yield from weight_errors(model)
    yield from input_errors(source)
    yield from training_errors(source)


def _setting(source: Graph, config: Config, chosen: frozenset[str]) -> Setting:
    """Returns what a configuration means for a model."""
    wanted = Overrides(config.overrides or {}).schemes(source)
    schemes = {key: each and each.with_storage(config.storage) for key, each in wanted.items()}
    default = config.scheme and config.scheme.with_storage(config.storage)
    if schemes and default is None:
        default = next((scheme for scheme in schemes.values() if scheme is not None), _STAND_IN)
    if default is not None:
        check_one_type(schemes, default)
    named = origins_of(source, schemes) if schemes else frozenset()
    left_out = tuple(each for each in PIPELINE if name_of(each) not in chosen)
    return Setting(config, chosen, default, schemes, named, left_out)


def _run_stages(compiled: CompiledGraph, setting: Setting, runner: Runner) -> None:
    """Runs the passes of all stages, and checks the invariants after each stage."""
    for stage in REWRITING:
        for rewrite in stage.passes(setting):
            before, compiled.graph = compiled.graph, runner.run(rewrite, compiled.graph)
            compiled.batch_norm_calls |= batch_norm_calls(compiled.graph)
            compiled.log += rewrites_of(name_of(rewrite), before, compiled.graph)
    setting, made = dataclasses.replace(setting, rewritten=compiled.graph), compiled.graph
    for stage in MAKING:
        for each in stage.passes(setting):
            compiled.layers = made = runner.run(each, made)


def carry_weights(graph: Graph, node: Node) -> None:
    """Copies the weights of Keras operations to the built layer that replaces them.

    Args:
        graph: The graph from which the layers were made.
        node: A node of the graph that `make_layers` returned.
    """
    source = graph.nodes.get(node.name)  # None for inserted layers, such as an input's QUANTIZE
    if source is not None and isinstance(source.head, QuantizedLayer):
        copy_by_path(source.head, node.head)
        copy_trainable(source.head, node.head)
    elif source is not None and isinstance(node.head, QuantizedLayer):
        node.head.carry_weights(source)
    if isinstance(node.head, WeightedLayer):
        node.head.fit_weight_range()


def origins_by_layer(graph: Graph) -> dict[str, tuple[str, ...]]:
    """Returns the origins of each layer of a graph, over all its calls, by its name.

    Args:
        graph: A graph whose nodes are calls of layers.
    """
    found: dict[str, dict[str, None]] = {}
    for node in graph.nodes.values():
        found.setdefault(node.head.name, {}).update(dict.fromkeys(node.origins))
    return {name: tuple(origins) for name, origins in found.items()}
