"""The quantized model: an ordinary functional model whose layers know their neighbours' scales."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_qat.errors import (
    DefaultRangesWarning,
    InvalidGraphError,
    MissingRangeError,
    RangeDriftWarning,
    warn_user,
)
from keras_qat.graph import Edge, Graph, range_groups, read_model
from keras_qat.layers.boundary.quantize import RangeHolder
from keras_qat.layers.core.base import (
    Parameters,
    QuantizedLayer,
    float_mode,
    in_float_mode,
    inference,
)
from keras_qat.layers.models.finiteness import all_finite, nan_unless_finite, warn_of_nan
from keras_qat.layers.models.formats import writer_of
from keras_qat.layers.models.rewritten_model import RewrittenModel
from keras_qat.layers.models.table_groups import scale_adjustments
from keras_qat.quantizers import (
    MISFIT_FIX,
    QuantDelay,
    RangeObserver,
    RangeParameters,
    RangeRule,
    Robust,
    checked_default_range,
    delayed,
    range_misfit,
)

__all__ = ["QuantizedModel", "float_mode"]

# Of how many tensors without a range an error says what takes them.
_MOST = 4
# The limits of an inner tensor that an older version saved no range of.
_NOT_SAVED = (0.0, 0.0)
NOT_SAVED_FIX = "Calibrate the model again, `keras_qat.calibrate(model, data)`."


@keras.saving.register_keras_serializable("keras_qat")
class QuantizedModel(RewrittenModel):
    """A functional model of quantized layers, as `keras_qat.quantize_model` returns it.

    It trains, saves, reloads and clones like any functional model. Its constructor links each
    layer to the quantization parameters of the tensors around it, so that they are the same
    after `quantize_model` and after loading.

    Args:
        *args: `inputs` and `outputs` of `keras.Model`.
        **kwargs: Keyword arguments of `keras.Model`.

    Attributes:
        calibration_outliers: The samples that calibration set aside, or that made the range of a
            tensor wide: a list of dicts with the attributes of `keras_qat.quantizers.Outliers`.
        range_rule: The rule by which training moves the ranges that it does not hold.

    Raises:
        InvalidGraphError: If a layer of the model is not a quantized one.
    """

    calibration_outliers: Sequence[Mapping[str, Any]] = ()
    range_rule: RangeRule = Robust()

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        link_layers(read_model(self))

    @property
    def quant_delay(self) -> QuantDelay | None:
        """The training steps before quantization starts. None without a delay."""
        delays = (getattr(layer, "quant_delay", None) for layer in self.layers)
        return next((delay for delay in delays if delay is not None), None)

    def call(self, inputs, training=None, mask=None, **kwargs):
        """Computes integers at inference. Raises an error if a tensor lacks min/max data.

        Outputs are NaN for samples with NaN. All outputs are NaN if a weight or a range is not
        finite, or if a tensor lacks min/max data in a compiled function, which cannot raise.
        """
        if in_float_mode():
            return super().call(inputs, training=training, mask=mask, **kwargs)
        is_finite = all_finite(self)
        if not training and _are_readable(observed_layers(self), inputs):
            self.check_ranges()
            warn_of_ranges_not_saved(self)
            if not bool(is_finite):
                warn_of_nan(self)
        if not training:
            is_finite = keras.ops.logical_and(is_finite, _all_observed(self))
        delay = self.quant_delay if training else None
        is_delayed = delayed(None if delay is None else delay.count_down())
        with is_delayed if training else inference():
            outputs = super().call(inputs, training=training, mask=mask, **kwargs)
        return nan_unless_finite(outputs, inputs, is_finite)

    def predict(self, *args, **kwargs):
        """Predicts like `keras.Model`. Warns if weights that are not finite cause NaN."""
        outputs = super().predict(*args, **kwargs)
        if _has_nan(y.ravel()[:1] for y in keras.tree.flatten(outputs)):
            warn_of_nan(self)
        return outputs

    def evaluate(self, *args, **kwargs):
        """Evaluates like `keras.Model`. Warns if weights that are not finite cause NaN."""
        results = super().evaluate(*args, **kwargs)
        if _has_nan(keras.tree.flatten(results)):
            warn_of_nan(self)
        return results

    def fit(self, *args, **kwargs):
        """Trains the model, and warns of calibrated ranges that do not fit the training.

        Args:
            *args: Arguments of `keras.Model.fit`.
            **kwargs: Keyword arguments of `keras.Model.fit`.

        Returns:
            The history of `keras.Model.fit`.
        """
        history = super().fit(*args, **kwargs)
        misfits = [text for name, own in named_observers(self) if (text := range_misfit(name, own))]
        if misfits:
            warn_user(
                f"Training sees other ranges than calibration did, in {len(misfits)} tensor(s). "
                f"{' '.join(misfits[:2])} {MISFIT_FIX}",
                RangeDriftWarning,
            )
        return history

    def get_config(self):
        """Returns the functional configuration, what calibration set aside, and the range rule."""
        outliers = [dict(each) for each in self.calibration_outliers]
        rule = keras.saving.serialize_keras_object(self.range_rule)
        return {
            **super().get_config(),
            **({"calibration_outliers": outliers} if outliers else {}),
            **({"range_rule": rule} if self.range_rule != Robust() else {}),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Makes the model of a configuration."""
        config = dict(config)
        outliers, rule = config.pop("calibration_outliers", ()), config.pop("range_rule", None)
        model = super().from_config(config, custom_objects=custom_objects)
        if rule is not None:
            model.set_range_rule(keras.saving.deserialize_keras_object(rule, custom_objects))
        model.calibration_outliers = outliers
        return model

    def make_predict_function(self, force=False):
        """Checks the ranges, then builds the function that `predict` runs."""
        self.check_ranges()
        warn_of_ranges_not_saved(self)
        return super().make_predict_function(force=force)

    def make_test_function(self, force=False):
        """Checks the ranges, then builds the function that `evaluate` runs."""
        self.check_ranges()
        warn_of_ranges_not_saved(self)
        return super().make_test_function(force=force)

    def export(
        self, filepath, format="tf_saved_model", verbose=None, input_signature=None, **kwargs
    ):
        """Writes the model for inference.

        Args:
            filepath: The path to write to.
            format: `"litert"` for the file of `keras_qat.export_litert`, `"tf_saved_model"` for a
                SavedModel that computes the quantized model in float operators.
            verbose: Whether to print the path of the artifact.
            input_signature: As in `keras.Model.export`. Not for `"litert"`.
            **kwargs: For `"litert"` the arguments of `keras_qat.export_litert`.

        Raises:
            ExportError: If the format has no quantized form, or does not take the arguments.
            MissingRangeError: If a tensor lacks min/max data.
        """
        self.check_ranges()
        if format == "tf_saved_model":
            super().export(filepath, format, verbose, input_signature, **kwargs)
            return
        writer_of(format, input_signature)(self, filepath, **kwargs)
        if verbose is not False:
            print(f"Saved artifact at '{filepath}'.")

    @property
    def lacking_ranges(self) -> tuple[str, ...]:
        """The names of the tensors that have neither min/max data nor a default range."""
        return tuple(
            name
            for name, observer in named_observers(self)
            if not observer.is_observed and not observer.is_default
        )

    @property
    def default_ranges(self) -> dict[str, tuple[float, float]]:
        """The ranges (min, max) of the tensors that have a default range now, by name."""
        return {
            name: observer.limits
            for name, observer in named_observers(self)
            if observer.is_default and observer.limits != _NOT_SAVED
        }

    def set_default_ranges(self, default_ranges_stats: Any) -> None:
        """Gives a range to each tensor that was neither calibrated nor trained.

        Training, inference, saved models and files use it until calibration or a training step
        observes the tensor.

        Args:
            default_ranges_stats: A pair (min, max).

        Raises:
            InvalidDefaultRangeError: If the argument is not a range.
        """
        ends = checked_default_range(default_ranges_stats)
        for _, observer in named_observers(self):
            observer.assume(*ends)

    def set_range_rule(self, rule: RangeRule) -> None:
        """Sets the rule by which training moves ranges; a training step is compiled with it.

        Args:
            rule: The rule.
        """
        if rule == self.range_rule:
            return
        self.range_rule = rule
        for _, observer in named_observers(self):
            observer.rule = rule
        self.train_function = None

    @property
    def quantized_input_stats(self) -> dict[str, tuple[float, float]]:
        """The statistics `(mean, std)` of the inputs by name, for uint8 integers.

        The pixel `q` of a file's input represents `(q - mean) / std`. The integers of an int8 input
        are smaller by 128. Inputs of ids and inputs without a range are left out.
        """
        graph, lacking = read_model(self), self.lacking_ranges
        return {
            node.inputs[0].node: node.head.meaning()
            for node in graph.nodes.values()
            if isinstance(node.head, RangeHolder)
            and node.inputs[0].node in graph.inputs
            and node.name not in lacking
        }

    def check_ranges(self) -> None:
        """Raises if a tensor has no range: not calibrated, not trained, and no default.

        Raises:
            MissingRangeError: If a tensor has no range. Names these tensors and their consumers.
        """
        lacking = self.lacking_ranges
        if lacking:
            raise missing_ranges(lacking, _uses(read_model(self)))


# Keras writes the bare name of the class into `.h5`.
keras.saving.get_custom_objects()["QuantizedModel"] = QuantizedModel


def named_observers(model: keras.Model) -> Iterator[tuple[str, RangeObserver]]:
    """Yields the name and the observer of each tensor with an observed range.

    Inputs with `quantized_input_stats` have no observed range.

    A tensor between a layer's operators has the name that it has in the file.
    """
    for layer in model.layers:
        if isinstance(layer, QuantizedLayer):
            if layer.observer is not None and layer.fixed_parameters is None:
                yield layer.name, layer.observer
            for observer, _ in layer.inner_observations():
                yield f"{layer.name}/{observer.name.removesuffix('_range')}", observer


def _all_observed(model: keras.Model) -> Any:
    """Whether each tensor has min/max data or a default range, as a tensor."""
    updates = [observer.updates.value for _, observer in named_observers(model)]
    return keras.ops.all(keras.ops.stack(updates) != 0) if updates else True


def missing_ranges(lacking: Sequence[str], uses: Mapping[str, Sequence[str]]) -> MissingRangeError:
    """Makes the error for tensors that lack min/max data.

    Args:
        lacking: Names of the tensors.
        uses: What takes each tensor, as text.
    """
    shown = (f"'{name}' is {' and '.join(uses[name])}" for name in lacking[:_MOST] if uses[name])
    return MissingRangeError(
        f"{len(lacking)} tensor(s) lack min/max data, which is necessary for quantization: "
        f"{_listing(lacking, len(lacking))}. {'; '.join(shown)}.",
        tensors=lacking,
        layer=lacking[0].partition("/")[0],
        fix="Calibrate (`keras_qat.calibrate(model, data)`, or `calibration_data` of "
        "`quantize_model`), or train the model. If accuracy does not matter, pass "
        "`default_ranges_stats=(min, max)` to `export_litert` or `quantize_model`; "
        "`keras_qat.suggest_default_ranges(model, data)` finds a range that covers all values.",
    )


def tensors_without_saved_range(model: keras.Model) -> tuple[str, ...]:
    """Returns the names of inner tensors whose ranges an older version did not save.

    Args:
        model: A quantized model.
    """
    inner = ((n, each) for n, each in named_observers(model) if each.is_default)
    return tuple(name for name, observer in inner if observer.limits == _NOT_SAVED)


def warn_of_ranges_not_saved(model: keras.Model) -> None:
    """Warns of inner tensors whose ranges an older version did not save.

    Args:
        model: A quantized model.
    """
    names = tensors_without_saved_range(model)
    if names:
        warn_user(f"{not_saved(names)} {NOT_SAVED_FIX}", DefaultRangesWarning)


def not_saved(names: Sequence[str]) -> str:
    """Returns the warning about tensors without a saved range.

    Args:
        names: Names of the tensors.
    """
    return (
        f"{len(names)} tensor(s) inside layers have coarser steps than necessary: "
        f"{_listing(names)}. An older version of keras_qat saved the model without their ranges."
    )


def _uses(graph: Graph) -> Mapping[str, Sequence[str]]:
    """The layers that take each tensor."""
    uses: dict[str, list[str]] = defaultdict(list)
    for node in graph.nodes.values():
        for edge in node.inputs:
            kind = type(node.head).__name__
            uses[graph.nodes[edge.node].head.name].append(
                f"an input to the layer '{node.name}' ({kind})"
            )
    for edge in graph.output_edges:
        uses[graph.nodes[edge.node].head.name].append("an output of the model")
    return uses


def observed_layers(model: keras.Model) -> list[QuantizedLayer]:
    """Returns the layers of a model whose outputs have an observed range."""
    return [layer for layer in model.layers if getattr(layer, "observer", None) is not None]


def link_layers(graph: Graph) -> None:
    """Gives each layer the quantization parameters of its inputs and its output.

    Args:
        graph: A graph in which each node but the inputs is one quantized layer.

    Raises:
        InvalidGraphError: If a node is something else, or tensors with prescribed parameters
            would have to share them with others.
    """
    for node in graph.nodes.values():
        if not node.is_input and not isinstance(node.head, QuantizedLayer):
            raise InvalidGraphError(
                "A quantized model has a layer that is not quantized.",
                layer=node.name,
                received=type(node.head).__name__,
                fix="Make the model with `keras_qat.quantize_model`.",
            )
    groups, least_scales = range_groups(graph), _least_scales(graph)
    adjustments = scale_adjustments(graph, groups)
    parameters: dict[int, Parameters | None] = {}
    for group in groups.values():
        if id(group) not in parameters:
            made = _group_parameters(graph, group.edges, least_scales, adjustments.get(group))
            parameters[id(group)] = made
    for node in graph.nodes.values():
        if not node.is_input:
            inputs = [parameters[id(groups[edge])] for edge in node.inputs]
            node.head.link(inputs, parameters[id(groups[Edge(node.name)])])


def _least_scales(graph: Graph) -> Mapping[Edge, float]:
    """What the operators that take a tensor need its scale to be at least."""
    least: dict[Edge, float] = defaultdict(float)
    for node in graph.nodes.values():
        for edge in node.inputs:
            least[edge] = max(least[edge], node.head.least_input_scale)
    return least


def _group_parameters(
    graph: Graph,
    edges: tuple[Edge, ...],
    least_scales: Mapping[Edge, float],
    adjust: Callable[[Any, Any], Any] | None,
) -> Parameters | None:
    makers = {id(layer): layer for layer in _makers(graph, edges)}.values()
    fixed = [layer for layer in makers if layer.fixed_parameters is not None]
    if is_contradictory(graph, edges):
        raise InvalidGraphError(
            f"The tensors {_listing(map(str, edges))} have to share one range, but LiteRT "
            "prescribes that of some of them.",
            layer=fixed[0].name,
            fix="Make the model with `keras_qat.quantize_model`, which puts a `Requantize` there.",
        )
    if fixed:
        return fixed[0].fixed_parameters
    observers = [layer.range_source for layer in makers]
    schemes = [layer.scheme for layer in makers if layer.scheme is not None]
    least_scale = max(map(least_scales.__getitem__, edges))
    return RangeParameters(schemes[0], observers, least_scale, adjust) if schemes else None


def is_contradictory(graph: Graph, edges: tuple[Edge, ...]) -> bool:
    """Whether tensors that have to share one range have one that is prescribed, and another.

    Args:
        graph: A graph of quantized layers.
        edges: The tensors.
    """
    return len({layer.fixed_parameters for layer in _makers(graph, edges)}) > 1


def _makers(graph: Graph, edges: tuple[Edge, ...]) -> Iterator[QuantizedLayer]:
    """The layers that compute the values of a group, or add some to those that they move."""
    for edge in edges:
        node = graph.nodes[edge.node]
        if node.is_input or node.head.scheme is None:
            continue
        if not node.head.shares_range or node.head.observer is not None:
            yield node.head


def _listing(names, most: int = 8) -> str:
    names = list(names)
    shown = ", ".join(f"'{name}'" for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _has_nan(values: Iterable[Any]) -> bool:
    return any(np.isnan(value).any() for value in values)


def _are_readable(layers: list[QuantizedLayer], inputs) -> bool:
    try:
        # JAX traces a step with variables that have values, but inputs that have none.
        for tensor in (layers[0].observer.updates, keras.tree.flatten(inputs)[0][:1]):
            keras.ops.convert_to_numpy(tensor)
    except Exception:  # inside a traced function each backend refuses in its own way
        return False
    return True
