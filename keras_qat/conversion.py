"""The conversion of a float model to a rewritten or quantized one, as stages in order."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, cast

import keras

from keras_qat.errors import KerasQatError
from keras_qat.graph import Graph, Node, build_model
from keras_qat.graph.soundness import (
    input_errors,
    quantization_errors,
    training_errors,
    weight_errors,
)
from keras_qat.graph.subclassed import read_any_model
from keras_qat.layers import QuantizedLayer
from keras_qat.layers.core.drop_in import copy_by_path
from keras_qat.layers.kernels.batch_normalization import batch_norm_of
from keras_qat.layers.models.finiteness import check_finite
from keras_qat.lowering import check_float_layers
from keras_qat.passes import Rewrite, select_rewrites
from keras_qat.passes.inference_calls import batch_norm_calls
from keras_qat.passes.inline_models import inline_models
from keras_qat.passes.kept_weights import kept_weights
from keras_qat.passes.options import Options, Setting
from keras_qat.passes.pipeline import MAKING, PIPELINE, REWRITING
from keras_qat.passes.provenance import rewrites_of
from keras_qat.passes.running import Pass, name_of, run_pass
from keras_qat.passes.schemes import check_one_type, origins_of
from keras_qat.proof import check_ends, check_values
from keras_qat.scheme import Scheme

# A function that runs a pass.
Runner = Callable[[Pass, Graph], Graph]


class Conversion:
    """One conversion of a model. Call `run` and then `build`.

    `quantize_model`, `clone_model` and `check` all use it, so they agree on every model.

    Args:
        model: A built Keras model. It is not changed.
        options: The options.

    Attributes:
        source: The graph of the model, as it was read. Operations are identified by their `id`, so
            the graph has to live as long as the conversion.
        graph: The graph of Keras operations after the passes that have run.
        made: The graph of quantized layers; None until they are made.
        log: The rewrites of the passes.

    Raises:
        InvalidModelError: If the model cannot be read, or is quantized already.
        InvalidRewriteError: If `rewrites` has an unknown name.
        InvalidOverrideError: If a key of `overrides` matches no layer.
        UnsupportedLayerError: If the `call` of a subclassed model cannot be traced.
    """

    def __init__(self, model: keras.Model, options: Options):
        chosen = frozenset(map(name_of, select_rewrites(options.rewrites)))
        self.source = self.graph = read_any_model(model)
        self.made: Graph | None = None
        self.log: list[Rewrite] = []
        self._batch_norm_calls: set[tuple[int, bool]] = set()
        self._model, self._options = model, options
        schemes: Mapping[int, Scheme | None] = {}
        if options.scheme is not None:
            schemes = options.overrides.schemes(self.source)
            check_one_type(schemes, options.scheme)
        named = origins_of(self.source, schemes) if schemes else frozenset()
        left_out = tuple(each for each in PIPELINE if name_of(each) not in chosen)
        self._setting = Setting(options, chosen, schemes, named, left_out)

    def run(self) -> None:
        """Runs all stages but the last, and raises the first error.

        Raises:
            KerasQatError: See `model_errors` and `run_stages`.
        """
        for error in self.model_errors():
            raise error
        self.run_stages()

    def model_errors(self) -> Iterator[KerasQatError]:
        """Yields an error for each property of the whole model that prevents quantization."""
        yield from quantization_errors(self._model)
        yield from weight_errors(self._model)
        yield from input_errors(self.source)
        yield from training_errors(self.source)

    def run_stages(self, run: Runner = run_pass) -> None:
        """Runs the passes of all stages, and checks the invariants after each stage.

        Args:
            run: Runs one pass.

        Raises:
            UnsupportedLayerError: If a layer has no integer form.
            InvalidModelError: If a layer is quantized already.
            InvalidInputStatsError: If `quantized_input_stats` is not valid.
            InvalidGraphError: If a pass fails, or an invariant is violated after a stage.
        """
        for stage in REWRITING:
            for rewrite in stage.passes(self._setting):
                before, self.graph = self.graph, run(rewrite, self.graph)
                self._batch_norm_calls |= batch_norm_calls(self.graph)
                self.log += rewrites_of(name_of(rewrite), before, self.graph)
        setting, made = dataclasses.replace(self._setting, rewritten=self.graph), self.graph
        for stage in MAKING:
            for each in stage.passes(setting):
                self.made = made = run(each, made)

    def build(self, model_class: Any, input_tensors: Any = None, delay: int = 0) -> Any:
        """Builds a model from the layers, with the weights of the source model.

        Args:
            model_class: Class of the model.
            input_tensors: Keras tensors to build upon; None for new ones.
            delay: Steps of training before quantization starts.

        Raises:
            UnsupportedLayerError: If a layer does not accept the shapes of its inputs.
            RewriteError: If an output has another shape or dtype than the source model's.
            InvalidModelError: If folded weights are not finite.
        """
        made = cast(Graph, self.made)
        if delay:
            first = next(node for node in made.nodes.values() if not node.is_input)
            first.head.delay_steps = delay
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
        """Compares the values of a built model in float with the values of the source model.

        Args:
            model: The model that `build` returned.
            data: Data for the inputs, for one or two samples; None for generated samples.

        Raises:
            RewriteError: With the first layer that differs.
        """
        check_values(self.source, model, self.log, data)


def carry_weights(graph: Graph, node: Node) -> None:
    """Copies the weights of Keras operations to the built layer that replaces them.

    Args:
        graph: The graph from which the layers were made.
        node: A node of the graph that `make_layers` returned.
    """
    source = graph.nodes.get(node.name)  # None for inserted layers, such as an input's QUANTIZE
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
