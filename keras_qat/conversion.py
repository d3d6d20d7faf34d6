"""The stages from a float model to a rewritten or quantized one, in the order in which they run."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast

import keras

from keras_qat.errors import KerasQatError
from keras_qat.graph import Graph, Node, build_model
from keras_qat.graph.soundness import (
    check_float,
    input_errors,
    quantization_errors,
    training_errors,
    weight_errors,
)
from keras_qat.graph.subclassed import read_any_model
from keras_qat.layers import QuantizedLayer
from keras_qat.layers.batch_normalization import batch_norm_of
from keras_qat.layers.drop_in import copy_by_path
from keras_qat.layers.finiteness import check_finite
from keras_qat.lowering import check_float_layers
from keras_qat.passes import Rewrite, select_rewrites
from keras_qat.passes.inference_calls import batch_norm_calls
from keras_qat.passes.inline_models import inline_models
from keras_qat.passes.kept_weights import kept_weights
from keras_qat.passes.left_out import check_left_out
from keras_qat.passes.make_layers import make_layers
from keras_qat.passes.overrides import Overrides
from keras_qat.passes.pipeline import Pass, name_of, run_pass
from keras_qat.passes.pixel_inputs import pixel_inputs
from keras_qat.passes.provenance import rewrites_of
from keras_qat.passes.quantize_inputs import quantize_floats, quantize_inputs
from keras_qat.passes.remove_layers import remove_layers
from keras_qat.passes.schemes import with_schemes
from keras_qat.passes.separate_ranges import separate_ranges
from keras_qat.passes.substitute_activations import check_no_lookups, with_policy
from keras_qat.proof import check_ends, check_values
from keras_qat.scheme import Scheme

# Runs a pass.
Runner = Callable[[Pass, Graph], Graph]


@dataclasses.dataclass(frozen=True)
class Options:
    """The options of `quantize_model` and `clone_model` that decide about the graph.

    Attributes:
        scheme: The scheme; None for `clone_model`, whose layers compute in float.
        rewrites: Names of the rewrites to apply; None for all.
        skip_layers: Names of layers to leave out.
        activations: The policy for activations.
        overrides: Layers that get another scheme.
        quantized_input_stats: The meaning of the integers of inputs.
    """

    scheme: Scheme | None = None
    rewrites: Sequence[str] | None = None
    skip_layers: Sequence[str] = ()
    activations: str = "exact"
    overrides: Overrides = dataclasses.field(default_factory=lambda: Overrides({}))
    quantized_input_stats: Mapping[str, Sequence[Any]] | None = None


class Conversion:
    """One conversion of a model: reads it, then `rewrite`, `make_layers` and `build` in this order.

    `quantize_model`, `clone_model` and `check` all run it, so that they agree on every model.

    Args:
        model: A built Keras model. It is not changed.
        options: The options.

    Attributes:
        source: The graph of the model, as it was read. Operations are known by their `id`, so that
            the graph has to live as long as the conversion.
        graph: The graph of Keras operations after the passes that have run.
        made: The graph of quantized layers; None until `make_layers` has run.
        log: The rewrites that the passes did.

    Raises:
        InvalidModelError: If the model cannot be read, or is quantized already.
        InvalidRewriteError: If there is no rewrite of a name.
        InvalidOverrideError: If a key of `overrides` matches no layer.
        UnsupportedLayerError: If the `call` of a subclassed model cannot be traced.
    """

    def __init__(self, model: keras.Model, options: Options):
        passes = with_policy(select_rewrites(options.rewrites), options.activations)
        if options.skip_layers:
            remove = functools.partial(remove_layers, names=options.skip_layers)
            passes = (inline_models, remove, *passes)
        self.source = self.graph = read_any_model(model)
        self.made: Graph | None = None
        self.log: list[Rewrite] = []
        self._batch_norm_calls: set[tuple[int, bool]] = set()
        self._model, self._options = model, options
        if options.scheme is not None:
            schemes = options.overrides.schemes(self.source)
            passes = with_schemes(passes, self.source, schemes, options.scheme)
        self._passes = passes

    def run(self) -> None:
        """Runs all stages but the last, and raises the first error.

        Raises:
            KerasQatError: See `model_errors`, `rewrite` and `make_layers`.
        """
        for error in self.model_errors():
            raise error
        self.rewrite()
        self.make_layers()

    def model_errors(self) -> Iterator[KerasQatError]:
        """Yields each reason for which the model is unfit, whatever its layers are."""
        yield from quantization_errors(self._model)
        yield from weight_errors(self._model)
        yield from input_errors(self.source)
        yield from training_errors(self.source)

    def rewrite(self, run: Runner = run_pass) -> None:
        """Runs the passes of the pipeline.

        Args:
            run: Runs one pass.

        Raises:
            UnsupportedLayerError: If a pass refuses a layer.
            InvalidModelError: If a layer is quantized already.
            InvalidGraphError: If a pass fails.
        """
        for rewrite in self._passes:
            self._run(run, rewrite)
        for verdict in self._verdicts():
            self.graph = run(_as_pass(verdict), self.graph)

    def _run(self, run: Runner, rewrite: Pass) -> None:
        before, self.graph = self.graph, run(rewrite, self.graph)
        self._batch_norm_calls |= batch_norm_calls(self.graph)
        self.log += rewrites_of(name_of(rewrite), before, self.graph)

    def _verdicts(self) -> Iterator[Callable[[Graph], None]]:
        """Functions that raise if a rewritten graph is not what the options ask for."""
        options = self._options
        yield check_float
        if options.activations in ("substitute", "error"):
            yield functools.partial(check_no_lookups, scheme=options.scheme)
        if options.rewrites is not None:
            yield functools.partial(check_left_out, rewrites=options.rewrites)

    def make_layers(self, run: Runner = run_pass) -> None:
        """Makes quantized layers of the rewritten graph, and puts quantizations between them.

        Args:
            run: Runs one pass.

        Raises:
            UnsupportedLayerError: If a layer has no integer form.
            InvalidInputStatsError: If `quantized_input_stats` is not understood.
        """
        scheme = self._options.scheme
        lookup = self._options.activations == "lookup"
        self.made = made = run(functools.partial(make_layers, lookup=lookup), self.graph)
        if scheme is None:
            return
        pixels, stats = pixel_inputs(self.graph), self._options.quantized_input_stats
        for each in (
            functools.partial(
                quantize_inputs, scheme=scheme, quantized_input_stats=stats, pixels=pixels
            ),
            functools.partial(quantize_floats, scheme=scheme),
            functools.partial(separate_ranges, scheme=scheme),
        ):
            self.made = made = run(each, made)

    def build(self, model_class: Any, input_tensors: Any = None, delay: int = 0) -> Any:
        """Builds a model of the layers, with the weights of the source model.

        Args:
            model_class: Class of the model.
            input_tensors: Keras tensors to build upon; None for new ones.
            delay: Steps of training before quantization starts.

        Raises:
            UnsupportedLayerError: If a layer refuses the shapes of its inputs.
            RewriteError: If an output has another shape or dtype than the source model's.
            InvalidModelError: If folded weights are not finite.
        """
        made = cast(Graph, self.made)
        if delay:
            first = next(node for node in made.nodes.values() if not node.is_input)
            first.head.delay_steps = delay
        _name_outputs(made)
        result = build_model(
            made,
            model_class,
            input_tensors=input_tensors,
            after_call=functools.partial(carry_weights, self.graph),
        )
        self._freeze_batch_norms()
        result.rewrite_log = tuple(self.log)
        result.origins = MappingProxyType(origins_by_layer(made))
        result.kept_weights = kept_weights(inline_models(self.source), self.graph, self.log)
        check_ends(self.source, result)
        if self._options.scheme is not None:
            check_float_layers(result)
            check_finite(result)
        return result

    def _freeze_batch_norms(self) -> None:
        """Freezes the batch normalizations that the model only calls with `training=False`."""
        calls = self._batch_norm_calls
        frozen = {found for found, is_inference in calls if is_inference}
        frozen -= {found for found, is_inference in calls if not is_inference}
        for name, node in cast(Graph, self.made).nodes.items():
            source = self.graph.nodes.get(name)
            norm = batch_norm_of(node.head)
            if source is not None and norm is not None and frozen & set(map(id, source.operations)):
                norm.trainable = False

    def prove(self, model: keras.Model, data: Any = None) -> None:
        """Compares what a built model computes in float with what the source model computes.

        Args:
            model: What `build` returned.
            data: Data for the inputs, of which one or two samples are taken; None to make some up.

        Raises:
            RewriteError: Naming the first layer that differs.
        """
        check_values(self.source, model, self.log, data)


def _as_pass(verdict: Callable[[Graph], None]) -> Pass:
    """A pass that only raises."""

    @functools.wraps(getattr(verdict, "func", verdict))
    def checked(graph: Graph) -> Graph:
        verdict(graph)
        return graph

    return checked


def carry_weights(graph: Graph, node: Node) -> None:
    """Gives a built layer the weights of the Keras operations that it was made of.

    Args:
        graph: The graph that the layers were made of.
        node: A node of what `make_layers` made of it.
    """
    source = graph.nodes.get(node.name)  # none for what was put in, such as an input's QUANTIZE
    if source is not None and isinstance(source.head, QuantizedLayer):
        copy_by_path(source.head, node.head)
        node.head.trainable = source.head.trainable
    elif source is not None and isinstance(node.head, QuantizedLayer):
        node.head.carry_weights(source)


def origins_by_layer(graph: Graph) -> dict[str, tuple[str, ...]]:
    """Returns the origins of each layer of a graph, over all its calls, by its name.

    Args:
        graph: A graph whose nodes are calls of layers.
    """
    found: dict[str, dict[str, None]] = {}
    for node in graph.nodes.values():
        found.setdefault(node.head.name, {}).update(dict.fromkeys(node.origins))
    return {name: tuple(origins) for name, origins in found.items()}


def _name_outputs(graph: Graph) -> None:
    """Tells layers what the outputs that they make are called."""
    names: dict[int, set[str]] = {}
    for edge, name in zip(graph.output_edges, graph.output_names, strict=True):
        names.setdefault(id(graph.nodes[edge.node].head), set()).add(name)
    for edge, name in zip(graph.output_edges, graph.output_names, strict=True):
        layer = graph.nodes[edge.node].head
        if len(names[id(layer)]) == 1 and name != layer.name:
            layer.output_name = name
