"""Findings about the calibration of a quantized model."""

from __future__ import annotations

from collections.abc import Iterator

from keras_qat.checking.findings import WARNING, Finding
from keras_qat.layers import QuantizedModel
from keras_qat.layers.models.observed_ranges import (
    NOT_SAVED_FIX,
    named_observers,
    not_saved,
    tensors_without_saved_range,
)
from keras_qat.quantizers import MISFIT_FIX, Outliers, range_misfit


def calibration_findings(model: QuantizedModel) -> Iterator[Finding]:
    """Finds samples that calibration set aside, and ranges that do not fit or were not saved.

    Args:
        model: The quantized model.

    Yields:
        One finding for each tensor with outliers, one for each tensor whose range has drifted, and
        one for all tensors without a saved range.
    """
    names = tensors_without_saved_range(model)
    if names:
        place = names[0].partition("/")[0], names[0]
        yield Finding(WARNING, "range-not-saved", *place, not_saved(names), NOT_SAVED_FIX)
    for each in model.calibration_outliers:
        outliers = Outliers(**each)
        place = outliers.input, outliers.input
        code = "wide-activation-range" if outliers.is_kept else "outlying-samples"
        yield Finding(WARNING, code, *place, str(outliers), outliers.fix)
    for name, observer in named_observers(model):
        place, text, fix = (name.partition("/")[0], name), range_misfit(name, observer), MISFIT_FIX
        if observer.was_replaced:
            text = f"Training replaced the calibrated range of '{name}', which fitted no sample."
            fix = "Calibrate again, `keras_qat.calibrate(model, data)`, once training is done."
        if text:
            yield Finding(WARNING, "range-drift", *place, text, fix)
