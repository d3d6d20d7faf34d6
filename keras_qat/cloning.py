"""clone_model, quantize_model and calibrate: what a user calls before training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_qat.calibration import calibrate
from keras_qat.conversion import Conversion
from keras_qat.errors import OwnTrainingWarning, warn_user
from keras_qat.graph.reading import is_model
from keras_qat.layers import QuantizedModel, RewrittenModel
from keras_qat.passes.options import Options
from keras_qat.passes.overrides import Overrides
from keras_qat.quantizers import checked_default_range, checked_steps
from keras_qat.scheme import Scheme, get_scheme

# What a subclass of `keras.Model` overrides to train or to be evaluated in its own way.
_STEPS = ("train_step", "test_step", "compute_loss", "compute_metrics")

# How a model of the user's class trains the new one.
_FUNCTIONAL = "trainer = {kind}(model.input, model(model.input))"
_SEQUENTIAL = "trainer = {kind}([model])"
_SUBCLASSED = """class Trainer({kind}):
    def __init__(self, inner):
        keras.Model.__init__(self)
        self.inner = inner

    def call(self, inputs, training=None):
        return self.inner(inputs, training=training)


trainer = Trainer(model)"""


def clone_model(
    model: keras.Model,
    *,
    rewrites: Sequence[str] | None = None,
    skip_layers: Sequence[str] = (),
    input_tensors: Any = None,
    activations: str = "exact",
) -> keras.Model:
    """Rewrites a model into a topology fit for quantization, in float, with its weights.

    Nested models are opened, batch normalization and activations become part of the layer
    before them, what does nothing is dropped. The function is preserved, nothing is quantized; only
    `skip_layers`, `activations="substitute"` and the rewrite `"drop_bias"` change it.

    Args:
        model: A built Keras model, functional, sequential or subclassed. It is not changed.
        rewrites: Names of the rewrites to apply, see `docs/rewrites.md`; None for all. They are
            applied in the order of the pipeline.
        skip_layers: Names of layers to leave out, of nested models too. Each must have one input
            of the shape of its output. This changes the function.
        input_tensors: Keras tensors to build the clone upon, in the structure of the model's
            inputs; None for new inputs like the model's.
        activations: What becomes of activations, see `quantize_model`.

    Returns:
        A functional `keras.Model` of `keras_qat` layers that trains and saves like any other.
        Its `rewrite_log` lists what was rewritten.

    Raises:
        InvalidModelError: If the model cannot be read, has weights that are not finite, or has
            no layer of a name in `skip_layers` that could be left out.
        InvalidRewriteError: If there is no rewrite of a name.
        UnsupportedLayerError: If a layer has no integer form.
        RewriteError: If the clone does not compute what the model computes, see `quantize_model`.

    Example:
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3),
    ...                           keras.layers.BatchNormalization(), keras.layers.ReLU()])
    >>> [type(layer).__name__ for layer in clone_model(model).layers]
    ['InputLayer', 'QConv2D']
    """
    options = Options(rewrites=rewrites, skip_layers=skip_layers, activations=activations)
    conversion = Conversion(model, options)
    conversion.run()
    _warn_of_own_training(model)
    clone = conversion.build(RewrittenModel, input_tensors)
    conversion.prove(clone)
    return clone


def quantize_model(
    model: keras.Model,
    scheme: str | Scheme = "int8",
    *,
    calibration_data: Any = None,
    rewrites: Sequence[str] | None = None,
    activations: str = "exact",
    quant_delay: int = 0,
    overrides: Mapping[str | type, str | Scheme | None] | None = None,
    default_ranges_stats: Any = None,
    quantized_input_stats: Mapping[str, Sequence[Any]] | None = None,
) -> QuantizedModel:
    """Turns a model into one that trains with quantization and computes integers at inference.

    Each layer of the result is one LiteRT operator, or a fixed small group of them. With
    `training=True` it computes in float with straight-through fake quantization; at inference
    it computes what LiteRT's reference kernels compute, bit for bit. These are the kernels of
    microcontrollers; the default ones of phones and PCs (XNNPACK) round some operators
    differently, and `verify` measures by how much.

    Args:
        model: A built Keras model, functional, sequential or subclassed, or what `clone_model`
            returned. It is not changed.
        scheme: `"int8"`; `"int8_per_tensor"`, whose weights have one scale per tensor; `"uint8"`
            for the fully uint8 model of TensorFlow 1; or a `Scheme`.
        calibration_data: Data to observe the range of each activation with, see `calibrate`.
            Without it the ranges come from the first training steps.
        rewrites: Names of the rewrites to apply, see `docs/rewrites.md`; None for all.
        activations: What becomes of activations. `"exact"` computes each with the fastest
            operators, such as LOGISTIC and MUL for a swish, and looks up in a table what no
            operator computes; `"lookup"` looks up whatever some targets have no operator for, and
            takes PRELU for leaky ReLU, on which all kernels agree (see `docs/performance.md` for
            the price); `"substitute"` puts cheap ones in the place of lookups, such as relu for
            softplus, for accelerators without GATHER (see `substitute_activations` in
            `docs/rewrites.md`; train after it); `"error"` refuses lookups.
        quant_delay: How many training steps to train in float first, while ranges are observed;
            quantization then starts by itself. The steps left are saved with the weights.
            Inference computes integers all the time.
        overrides: Layers that get another scheme, or None to stay in float. A key is the name of
            a layer, a regular expression for whole names, or a layer class or its name; names win,
            then the first that matches counts. It means the layers of `model`, nested ones
            too, and all that they are rewritten into; what is fused otherwise stays apart between
            integers and float. The file has QUANTIZE and DEQUANTIZE exactly at these borders:
            layers of `"int8"` and `"int8_per_tensor"` pass on the same integers.
        default_ranges_stats: A range (min, max) for the tensors that lack min/max data, until they
            are calibrated or trained. The model's `default_ranges` names those that have it.
        quantized_input_stats: What the integers of inputs mean, a dict from the names of inputs to
            `(mean, std)`: the integer `q` stands for `(q - mean) / std`. (0, 255) is for pixels
            of a model that was trained on 0 to 1, and (127.5, 127.5) on -1 to 1. It is about uint8
            (those of an int8 file are 128 less), or about int8 if the mean is negative or
            the calibration data fits only that; `(mean, std, "int8")` says so. Data that it
            does not fit is an `InputStatsWarning`. Other inputs cover their observed range, see
            `calibrate` for pixels that the model scales itself.

    Returns:
        A functional `keras.Model`, to be compiled and trained. Its `rewrite_log` lists what was
        rewritten.

    Raises:
        InvalidModelError: If the model cannot be read, or has weights that are not finite.
        UnsupportedLayerError: If a layer has no integer form.
        InvalidSchemeError: If the scheme is unknown.
        InvalidDataError: If the calibration data does not fit.
        InvalidOverrideError: If a key of `overrides` matches no layer, or a value is no scheme.
        InvalidDelayError: If `quant_delay` is not a whole number of steps.
        InvalidDefaultRangeError: If `default_ranges_stats` is no range.
        InvalidInputStatsError: If `quantized_input_stats` is not understood, or about an input
            that the model does not have.
        RewriteError: If an output has another shape or dtype than the model's, or if its values in
            float, before anything is rounded, differ from the model's by more than 1e-3 of their
            largest magnitude, on one or two samples of the calibration data (made up where there
            is none, or where it can be read only once). It names the first layer that differs.
            Values are not compared where a rewrite that was asked for changes the function.

    Example:
    >>> import numpy as np
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3)])
    >>> images = np.random.default_rng(0).random((32, 8, 8, 3), "float32")
    >>> qat = quantize_model(model)
    >>> calibrate(qat, images, verbose=0)
    >>> qat.predict(images, verbose=0).shape
    (32, 6, 6, 4)
    """
    resolved, delay = get_scheme(scheme), checked_steps(quant_delay)
    if default_ranges_stats is not None:
        checked_default_range(default_ranges_stats)
    options = Options(
        scheme=resolved,
        rewrites=rewrites,
        activations=activations,
        overrides=Overrides(overrides or {}),
        quantized_input_stats=quantized_input_stats,
    )
    conversion = Conversion(model, options)
    conversion.run()
    _warn_of_own_training(model)
    quantized = conversion.build(QuantizedModel, delay=delay)
    conversion.prove(quantized, calibration_data)
    if calibration_data is not None:
        calibrate(quantized, calibration_data)
    if default_ranges_stats is not None:
        quantized.set_default_ranges(default_ranges_stats)
    return quantized


def _warn_of_own_training(model: keras.Model) -> None:
    """Warns if a model trains or is evaluated in its own way: the new model is of another class."""
    own = [name for name in _STEPS if getattr(type(model), name) is not getattr(keras.Model, name)]
    if own:
        kind = type(model).__name__
        names = ", ".join(f"`{name}`" for name in own)
        recipe = _FUNCTIONAL if is_model(model) else _SUBCLASSED
        recipe = _SEQUENTIAL if isinstance(model, keras.Sequential) else recipe
        warn_user(
            f"The model's own {names} is not part of the new model: it trains as Keras does. To "
            f"train it in the way of {kind}, train it inside a {kind}, and export the inner model, "
            f"here `model`:\n\n{recipe.format(kind=kind)}\n",
            OwnTrainingWarning,
        )
