"""The quantized model: an ordinary functional model whose layers know their neighbours' scales."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_qat.backend import is_training, start_in_inference
from keras_qat.errors import RangeDriftWarning, warn_user
from keras_qat.graph import read_model
from keras_qat.graph.keras_internals import (
    exclude_from_weight_decay,
    only_shapes_are_computed,
)
from keras_qat.layers.boundary.quantize import BoundaryLayer
from keras_qat.layers.core.base import QuantizedLayer
from keras_qat.layers.core.integers import inference
from keras_qat.layers.core.modes import float_mode, in_float_mode
from keras_qat.layers.models.finiteness import all_finite, nan_unless_finite, warn_of_nan
from keras_qat.layers.models.formats import writer_of
from keras_qat.layers.models.learned_ranges import learned_ranges
from keras_qat.layers.models.missing_ranges import missing_ranges, uses_of
from keras_qat.layers.models.neighbours import assign_params
from keras_qat.layers.models.observed_ranges import (
    NOT_SAVED,
    all_observed,
    named_observers,
    observed_layers,
    warn_of_ranges_not_saved,
)
from keras_qat.layers.models.rewritten_model import RewrittenModel
from keras_qat.quantizers import (
    MISFIT_FIX,
    QuantDelay,
    RangeRule,
    Robust,
    checked_default_range,
    delayed,
    range_misfit,
)
from keras_qat.targets import get_target

__all__ = ["QuantizedModel", "float_mode"]


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
        budget_plan: The `keras_qat.mixed_precision.BudgetPlan` of a model that was quantized within
            a budget; None for a model that was loaded. The layers have the chosen schemes.

    Raises:
        InvalidGraphError: If a layer of the model is not a quantized one.
    """

    calibration_outliers: Sequence[Mapping[str, Any]] = ()
    budget_plan: Any = None

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        assign_params(read_model(self))
        start_in_inference(self)

    @property
    def target(self) -> str:
        """Name of the target whose kernels inference equals."""
        layers = (each for each in self.layers if isinstance(each, QuantizedLayer))
        return next((each.target for each in layers if each.scheme is not None), "reference")

    def set_target(self, target: str) -> None:
        """Sets the target whose kernels inference equals; the layers stay the same.

        Args:
            target: Name of the target.

        Raises:
            InvalidTargetError: If there is no profile of the target.
        """
        for layer in self.layers:
            if isinstance(layer, QuantizedLayer):
                layer.target = get_target(target).name
        self.predict_function = self.test_function = None

    @property
    def quant_delay(self) -> QuantDelay | None:
        """The training steps before quantization starts. None without a delay."""
        delays = (getattr(layer, "quant_delay", None) for layer in self.layers)
        return next((delay for delay in delays if delay is not None), None)

    def call(self, inputs, training=None, mask=None, **kwargs):
        """Computes integers at inference. Raises an error if a tensor lacks min/max data.

        On PyTorch `model.train()` makes calls without `training` steps of training.

        Outputs are NaN for samples with NaN. All outputs are NaN if a weight or a range is not
        finite, or if a tensor lacks min/max data in a compiled function, which cannot raise.
        """
        training = is_training(self, training)
        if in_float_mode():
            return super().call(inputs, training=training, mask=mask, **kwargs)
        is_finite = all_finite(self)
        if not training and _are_readable(observed_layers(self), inputs):
            self.check_ranges()
            warn_of_ranges_not_saved(self)
            if not bool(is_finite):
                warn_of_nan(self)
        if not training:
            is_finite = keras.ops.logical_and(is_finite, all_observed(self))
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
        start_in_inference(self)
        misfits = [text for name, own in named_observers(self) if (text := range_misfit(name, own))]
        if misfits:
            warn_user(
                f"Training sees other ranges than calibration did, in {len(misfits)} tensor(s). "
                f"{' '.join(misfits[:2])} {MISFIT_FIX}",
                RangeDriftWarning,
            )
        return history

    def get_config(self):
        """Returns the functional configuration, and what calibration set aside."""
        outliers = [dict(each) for each in self.calibration_outliers]
        return {
            **super().get_config(),
            **({"calibration_outliers": outliers} if outliers else {}),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Makes the model of a configuration."""
        config = dict(config)
        outliers = config.pop("calibration_outliers", ())
        rule = config.pop("range_rule", None)  # older models have it, their layers do not
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

    def make_train_function(self, force=False):
        """Excludes learned ranges from weight decay, then builds the function that `fit` runs."""
        if self.learned_ranges:
            exclude_from_weight_decay(self.optimizer, self.learned_ranges)
        return super().make_train_function(force=force)

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
            if observer.is_default and observer.limits != NOT_SAVED
        }

    def set_default_ranges(self, default_ranges_stats: Sequence[float]) -> None:
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

    @property
    def range_rule(self) -> RangeRule:
        """The rule by which training moves the ranges that it does not hold."""
        rules = (observer.specification.rule for _, observer in named_observers(self))
        return next(rules, Robust())

    def set_range_rule(self, rule: RangeRule) -> None:
        """Sets the rule by which training moves ranges; a training step is compiled with it.

        Args:
            rule: The rule.
        """
        if rule == self.range_rule:
            return
        for layer in self.layers:
            if isinstance(layer, QuantizedLayer):
                layer.set_range_rule(rule)
        self.train_function = None

    @property
    def learned_ranges(self) -> list[Any]:
        """The variables by which training learns ranges. `fit` excludes them from weight decay.

        A training loop of your own, or a model around this one, has to do it:
        `optimizer.exclude_from_weight_decay(qat.learned_ranges)`.
        """
        return learned_ranges(self)

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
            if isinstance(node.head, BoundaryLayer)
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
            raise missing_ranges(lacking, uses_of(read_model(self)))


# Keras writes the bare name of the class into `.h5`.
keras.saving.get_custom_objects()["QuantizedModel"] = QuantizedModel


def _has_nan(values: Iterable[Any]) -> bool:
    return any(np.isnan(value).any() for value in values)


def _are_readable(layers: list[QuantizedLayer], inputs) -> bool:
    if only_shapes_are_computed():  # PyTorch has values there too, but not those of the user
        return False
    try:
        # JAX traces a step with variables that have values, but inputs that have none.
        for tensor in (layers[0].observer.updates, keras.tree.flatten(inputs)[0][:1]):
            keras.ops.convert_to_numpy(tensor)
    except Exception:  # inside a traced function each backend refuses in its own way
        return False
    return True
