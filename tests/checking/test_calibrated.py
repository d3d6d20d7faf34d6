"""Findings of check on a calibrated model, without data."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers

import keras_qat
from tests import seeds
from tests.quick import some_quick

CODES = ("wide-activation-range", "outlying-samples")


def found(qat):
    return [(each.code, each.layer) for each in keras_qat.check(qat).warnings if each.code in CODES]


def calibrated(seed, change=None, rule="robust"):
    """Makes a model that is calibrated on 500 samples. `change` changes one of them."""
    seeds.seed(seed)
    hidden = layers.Dense(24, activation="relu", name="hidden")
    model = keras.Sequential([keras.Input((16,), name="x"), hidden, layers.Dense(4, name="last")])
    data = np.random.default_rng(seed).normal(size=(500, 16)).astype("float32")
    if change is not None:
        data[7] = change(data, hidden)
    qat = keras_qat.quantize_model(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", keras_qat.errors.OutlierWarning)
        keras_qat.calibrate(qat, data, range_rule=rule, verbose=0)
    return qat


def large(data, _):
    return data[7] * 100


@pytest.mark.parametrize("seed", some_quick(range(6), 0, 1))
def test_check_names_ranges_that_outliers_widened(seed, tmp_path):
    assert found(calibrated(seed)) == []
    assert found(calibrated(seed, large)) == [("outlying-samples", "x")]
    qat = calibrated(seed, large, "minmax")
    wide = [("wide-activation-range", name) for name in ("x_quantize", "hidden", "last")]
    assert found(qat) == wide
    qat.save(tmp_path / "model.keras")
    assert found(keras.saving.load_model(tmp_path / "model.keras")) == wide


def test_check_names_a_tensor_that_is_large_for_an_input_of_usual_size():
    def along_one_unit(data, hidden):
        # No value is larger than in other samples, but one unit sums them all.
        hidden.kernel.assign(np.concatenate([np.full((16, 1), 9.0), hidden.kernel[:, 1:]], axis=1))
        hidden.bias.assign([-9 * 16.0] + [0.0] * 23)
        return np.full(16, np.abs(data).max())

    qat = calibrated(0, along_one_unit)
    assert ("wide-activation-range", "hidden") in found(qat)
    assert ("outlying-samples", "x") not in found(qat)
    (finding,) = [each for each in keras_qat.check(qat).warnings if each.layer == "hidden"]
    assert finding.message.startswith("The range of 'hidden' is made by 1 of 500 samples (0.2 %)")
