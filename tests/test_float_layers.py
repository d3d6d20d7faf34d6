"""The float form of every rule, on the contract cases: the file equals Keras."""

import numpy as np
import pytest

import keras_qat
from keras_qat.layers import QuantizeInput
from tests.layers.cases import first_of_each
from tests.layers.contract import Prepared, as_arrays
from tests.layers.litert_files import exported, operators_of, run_litert
from tests.layers.test_contract import CASES

FLOAT_ENDS = {"inference_input_type": "float32", "inference_output_type": "float32"}
# Without the cases of inputs: they have no layer in float.
LAYER_CASES = [case for case in CASES if QuantizeInput not in case.covers]


def run_real(content, arrays):
    """Returns the outputs of a file of float32 inputs and outputs by the reference kernels."""
    tensors, outputs = run_litert(content, arrays)
    return [tensors[name][0] for name in outputs]


@pytest.mark.one_in(2)
@pytest.mark.parametrize("case", first_of_each(LAYER_CASES))
def test_float_layers_equal_keras(case):
    prepared = Prepared(case)
    model = keras_qat.quantize_model(prepared.keras_model, overrides={".*": None})
    keras_qat.calibrate(model, tuple(prepared.arrays), verbose=0)
    content = exported(model, **FLOAT_ENDS)
    assert not {"QUANTIZE", "DEQUANTIZE"} & set(operators_of(content))
    expected = as_arrays(prepared.keras_model(prepared.x, training=False))
    found = run_real(content, prepared.arrays)
    for ours, theirs, values in zip(
        as_arrays(model.predict(prepared.x, verbose=0)), found, expected, strict=True
    ):
        largest = np.max(np.abs(values))
        np.testing.assert_allclose(ours, values, rtol=0, atol=1e-5 * largest)
        np.testing.assert_allclose(theirs, values, rtol=0, atol=1e-5 * largest)
