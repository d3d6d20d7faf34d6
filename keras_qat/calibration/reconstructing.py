"""Bias correction and AdaRound over all layers of a model."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import keras

from keras_qat.calibration.bias_correcting import correct_bias
from keras_qat.calibration.integer_kernels import folded_kernel
from keras_qat.calibration.rounding import round_adaptively
from keras_qat.calibration.walking import Values, count_kernels, visit_kernels
from keras_qat.data.batches import Batch
from keras_qat.layers import QuantizedModel
from keras_qat.layers.kernels.rescaling import output_offset
from keras_qat.layers.kernels.weighted import WeightedLayer


def reconstruct(
    model: QuantizedModel, data: Sequence[Batch], methods: Collection[str], verbose: int | str
) -> None:
    """Makes each layer's output in integers similar to that in float, from the first to the last.

    Args:
        model: A quantized model with ranges.
        data: Batches of its inputs.
        methods: `"adaround"`, `"bias_correction"` or both.
        verbose: 0 for no progress bar.
    """

    def visit(layer: WeightedLayer, real: Values, rounded: Values) -> None:
        """Rounds the weights of one layer, or corrects its bias, as `methods` says."""
        kernel, corrects = folded_kernel(layer), "bias_correction" in methods
        if "adaround" in methods:
            is_centered = corrects and output_offset(layer) is not None
            round_adaptively(layer, real, rounded, is_centered=is_centered)
        if corrects:
            correct_bias(layer, real, rounded, kernel)

    count = count_kernels(model)
    bar = keras.utils.Progbar(count, verbose=0 if verbose == 0 else 1, unit_name="layer")
    visit_kernels(model, data, visit, bar)
