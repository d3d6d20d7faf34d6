"""clone_model and quantize_model: the functions to call before training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_qat.calibration.calibrating import calibrate
from keras_qat.compiler import compile
from keras_qat.layers import QuantizedModel, RewrittenModel
from keras_qat.lost_training import warn_of_lost_training
from keras_qat.mixed_precision.budget import Budget
from keras_qat.mixed_precision.planning import quantize_within
from keras_qat.passes.config import Config
from keras_qat.passes.retargeting import retargeted
from keras_qat.quantizers import RangeRule
from keras_qat.scheme import Scheme, get_scheme


def clone_model(
    model: keras.Model,
    *,
    rewrites: Sequence[str] | None = None,
    skip_layers: Sequence[str] = (),
    input_tensors: Any = None,
    activations: str = "exact",
    overrides: Mapping[str | type, str | Scheme | None] | str | None = None,
    target: str | None = None,
) -> keras.Model:
    """Rewrites a model into a topology fit for quantization, in float, with its weights.

    Nested models are opened, batch normalizations and activations are fused into the layer before
    them, and operations without effect are removed. Nothing is quantized. The function is the
    same, except with `skip_layers`, `activations="substitute"` or the rewrite `"drop_bias"`.

    Args:
        model: A built Keras model, functional, sequential or subclassed. It is not changed.
        rewrites: Names of the rewrites to apply, see `docs/rewrites.md`; None for all. They are
            applied in the order of the pipeline.
        skip_layers: Names of layers to leave out, of nested models too. Each must have one input
            of the shape of its output. This changes the function.
        input_tensors: Keras tensors to build the clone upon, in the structure of the model's
            inputs; None for new inputs.
        activations: The policy for activations, see `quantize_model`.
        overrides: Layers that will get another scheme, or None to stay in float, in
            `quantize_model`. All of the clone computes in float, but layers are not fused across a
            boundary between integers and float.
        target: The device of the file, see `quantize_model`. Functions that it has no operator for
            become the layers that look them up.

    Returns:
        A functional `keras.Model` of `keras_qat` layers that trains and saves like any other.
        Its `rewrite_log` lists the rewrites.

    Raises:
        InvalidModelError: If the model cannot be read, has weights that are not finite, or a name
            in `skip_layers` is not the name of a layer that can be left out.
        InvalidRewriteError: If `rewrites` has an unknown name.
        InvalidOverrideError: If a key of `overrides` matches no layer, or a value is not a scheme.
        UnsupportedLayerError: If a layer has no integer form.
        RewriteError: If the clone computes other values than the model, see `quantize_model`.

    Example:
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3),
    ...                           keras.layers.BatchNormalization(), keras.layers.ReLU()])
    >>> [type(layer).__name__ for layer in clone_model(model).layers]
    ['InputLayer', 'QConv2D']
    """
    config = Config(
        rewrites=rewrites,
        skip_layers=skip_layers,
        activations=activations,
        overrides=overrides,
        target=target,
    )
    compiled = compile(model, config)
    clone = compiled.build(RewrittenModel, input_tensors)
    compiled.prove(clone)
    warn_of_lost_training(model, clone)
    return clone


def quantize_model(
    model: keras.Model,
    scheme: str | Scheme = "int8",
    *,
    calibration_data: Any = None,
    rewrites: Sequence[str] | None = None,
    skip_layers: Sequence[str] = (),
    activations: str = "exact",
    quant_delay: int = 0,
    overrides: Mapping[str | type, str | Scheme | None] | str | None = None,
    default_ranges_stats: Sequence[float] | None = None,
    quantized_input_stats: Mapping[str, Sequence[float | str]] | None = None,
    range_rule: str | RangeRule = "robust",
    weight_range_rule: str | RangeRule | None = None,
    target: str | None = None,
    storage: str | None = None,
    budget: Budget | None = None,
) -> QuantizedModel:
    """Turns a model into one that trains with quantization and computes integers at inference.

    Each layer of the result is one LiteRT operator, or a fixed small group of operators. With
    `training=True` it computes in float with straight-through fake quantization. At inference
    its results equal those of the target's kernels, bit for bit.

    Args:
        model: A built Keras model, functional, sequential or subclassed, or a model from
            `clone_model`. It is not changed. A quantized model, with `target` alone, becomes a
            model for that target, with its weights and ranges.
        scheme: `"int8"`; `"int8_per_tensor"`, whose weights have one scale per tensor;
            `"int4"`, where convolutions and dense layers have weights of 4 bits; `"int2"`, where
            dense layers have weights of 2 bits and convolutions of 4; `"int16x8"` for activations
            of 16 bits; `"uint8"` for the fully uint8 model of TensorFlow 1; or a `Scheme`.
            `docs/bits.md` compares them.
        calibration_data: Data to observe the range of each activation with, see `calibrate`.
            Without it the ranges come from the first training steps.
        rewrites: Names of the rewrites to apply, see `docs/rewrites.md`; None for all.
        skip_layers: Names of layers to leave out, see `clone_model`. This changes the function.
        activations: The policy for activations. `"exact"` computes each with the fastest
            operators, such as LOGISTIC and MUL for a swish, and looks up functions without an
            operator in a table. `"lookup"` looks up every function that some targets have no
            operator for, and writes leaky ReLU as PRELU, on which all kernels agree
            (`docs/performance.md` has the price). `"substitute"` substitutes cheap activations for
            lookups, such as relu for softplus, for accelerators without GATHER (see
            `substitute_activations` in `docs/rewrites.md`; train after it). `"error"` raises for
            lookups.
        quant_delay: Number of training steps in float, while ranges are observed. Quantization
            then starts by itself. The number of steps left is saved with the weights. Inference
            always computes integers.
        overrides: Layers that get another scheme, or None to stay in float. A key is the name of
            a layer, a regular expression for whole names, or a layer class or its name. Names have
            priority, then the first key that matches. Keys refer to the layers of `model`, nested
            ones too. An override applies to everything that a layer is rewritten into, and
            layers are not fused across a boundary between integers and float. The file has
            QUANTIZE and DEQUANTIZE exactly at these boundaries. Layers of `"int8"`,
            `"int8_per_tensor"`, `"int4"` and `"int2"` pass on the same integers. There is one
            QUANTIZE between them and layers of `"int16x8"`. The word `"ends_int8"` instead of a
            dict gives `"int8"` to the first and the last layers with a kernel.
        default_ranges_stats: A range (min, max) for the tensors that lack min/max data, until they
            are calibrated or trained. The model's `default_ranges` lists these tensors.
        quantized_input_stats: The meaning of the integers of inputs, a dict from the names of
            inputs to `(mean, std)`: the integer `q` represents `(q - mean) / std`. (0, 255) is for
            pixels of a model that was trained on 0 to 1, and (127.5, 127.5) for -1 to 1. The
            integers are uint8 (int8 integers are 128 less). They are int8 if the mean is negative,
            if the calibration data fits int8 only, or with `(mean, std, "int8")`. Data that
            does not fit causes an `InputStatsWarning`. Other inputs cover their observed range, see
            `calibrate` for pixels that the model scales itself.
        range_rule: The rule by which activations get their range, see `calibrate`. Only models that
            are made with `"lsq"` can learn ranges.
        weight_range_rule: The rule by which layers with a kernel get the range of their weights,
            a name or an object of `keras_qat.quantizers.range_rules`, see `docs/ranges.md`. None
            for `"minmax"`, the extremes, at 8 bits, and `"mse"`, the least squared error, at fewer.
        target: The device of the file: `"litert"`, the default, for LiteRT's kernels on PCs,
            `"litert-arm64"` for those on phones, `"reference"` for LiteRT's reference kernels;
            `"tflite-micro"`, `"ethos-u"` or `"edgetpu"`, see `docs/targets.md`. Inference equals
            the kernels of the target. Functions that it has no operator for are looked up.
        storage: How the file stores weights of less than 8 bits. `"packed"` stores several in a
            byte. `"int8"` stores one in a byte, which all runtimes take, and compression and NPUs
            shrink. None packs the weights of the operators whose packed weights `target` takes.
            The storage decides which kernels run, and so the integers.
        budget: The largest size of the file. Each layer gets `scheme` or a scheme of the budget,
            such that the outputs have the least noise within the size. It is measured with
            `calibration_data`, which is required. `overrides` that the user gives are kept.

    Returns:
        A functional `keras.Model`, to be compiled and trained. Its `rewrite_log` lists the
        rewrites. With a budget, its `budget_plan` has the chosen schemes and the alternatives.

    Raises:
        InvalidModelError: If the model cannot be read, has weights that are not finite, or a name
            in `skip_layers` is not the name of a layer that can be left out.
        UnsupportedLayerError: If a layer has no integer form.
        InvalidSchemeError: If the scheme or the storage is unknown.
        InvalidDataError: If the calibration data does not fit.
        InvalidOverrideError: If a key of `overrides` matches no layer, or a value is not a scheme.
        InvalidDelayError: If `quant_delay` is not a non-negative integer.
        InvalidDefaultRangeError: If `default_ranges_stats` is not a valid range.
        InvalidInputStatsError: If `quantized_input_stats` is not valid, or names an input that the
            model does not have.
        InvalidRangeRuleError: If a range rule is unknown.
        InvalidTargetError: If `target` has no profile.
        InvalidBudgetError: If no choice of schemes is within the budget, or there is no data.
        MissingPackageError: If scipy, which chooses within a budget, is not installed.
        RewriteError: If an output has another shape or dtype than the model's, or if its values in
            float, before any rounding, differ from the model's by more than 1e-3 of their
            largest magnitude, on one or two samples of the calibration data (generated if there
            is no data, or if it can be read only once). The error names the first layer that
            differs. Values are not compared if an enabled rewrite changes the function.

    Example:
    >>> import numpy as np
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3)])
    >>> images = np.random.default_rng(0).random((32, 8, 8, 3), "float32")
    >>> qat = quantize_model(model)
    >>> calibrate(qat, images, verbose=0)
    >>> qat.predict(images, verbose=0).shape
    (32, 6, 6, 4)
    """
    config = Config(
        scheme=get_scheme(scheme),
        rewrites=rewrites,
        skip_layers=skip_layers,
        activations=activations,
        overrides=overrides,
        quant_delay=quant_delay,
        default_ranges_stats=default_ranges_stats,
        quantized_input_stats=quantized_input_stats,
        range_rule=range_rule,
        weight_range_rule=weight_range_rule,
        target=target if budget is None else Budget.checked(budget).target_for(target),
        storage=storage,
    )
    only_target = Config(get_scheme("int8"), target=target)
    is_alone = config == only_target and budget is None
    if isinstance(model, QuantizedModel) and target is not None and is_alone:
        return retargeted(model, target)
    if budget is not None:
        quantized = quantize_within(model, config, budget, calibration_data)
    else:
        compiled = compile(model, config)
        quantized = compiled.build(QuantizedModel)
        compiled.prove(quantized, calibration_data)
    warn_of_lost_training(model, quantized)
    if calibration_data is not None and budget is None:
        calibrate(quantized, calibration_data)
    if default_ranges_stats is not None:
        quantized.set_default_ranges(default_ranges_stats)
    return quantized
