"""The sources of ranges in the rows of the report."""

import json

import keras
import numpy as np
import pytest
from keras import layers

import keras_qat
from keras_qat.checking import check
from keras_qat.layers import UnfusedBatchNormalization
from tests.models import images, network, quantized_network


def ranges(report):
    return {each.tensor: str(each) for row in report.layers for each in row.tensors}


def branches():
    x = keras.Input((4,), name="x")
    a = layers.Dense(3, name="a")(x)
    gate = layers.Dense(3, activation="sigmoid", name="gate")(x)
    both = layers.Concatenate(name="both")([a, gate])
    return keras.Model(x, layers.Flatten(name="flat")(both), name="branches")


def test_range_sources_of_a_float_model():
    assert ranges(check(network())) == {
        "image_quantize": "from calibration",
        "conv": "from calibration",
        "depthwise": "from calibration",
        "add": "from calibration",
        "pool": "shared with 'add'",
        "mean": "from calibration",
        "head": "from calibration",
        "head_softmax": "fixed by SOFTMAX: scale 1/256, zero point -128",
    }


def test_range_sources_in_uint8():
    found = ranges(check(network(), "uint8"))
    assert found["head_softmax"] == "fixed by SOFTMAX: scale 1/256, zero point 0"


def test_range_sources_of_shared_ranges():
    found = ranges(check(branches()))
    assert found["a"] == "from calibration, shared with 'gate_sigmoid_requantize'"
    assert found["gate_sigmoid"] == "fixed by LOGISTIC: scale 1/256, zero point -128"
    assert found["gate_sigmoid_requantize"] == "from calibration, shared with 'a'"
    assert found["both"] == "shared with 'a', 'gate_sigmoid_requantize'"


def test_range_sources_with_data():
    data = np.array([[0.0, 1.0], [2.0, -4.0]], "float32")
    x = keras.Input((2,), name="x")
    model = keras.Model(x, layers.Dense(1, kernel_initializer="ones", name="sum")(x))
    found = ranges(check(model, calibration_data=data))
    assert found == {"x_quantize": "observed (-4..2)", "sum": "observed (-2..1)"}


def test_range_sources_of_an_embedding():
    x = keras.Input((2,), dtype="int32", name="ids")
    model = keras.Model(x, layers.Embedding(4, 3, name="table")(x))
    assert ranges(check(model)) == {"table": "from the weights"}


def test_range_sources_of_tensors_inside_a_layer():
    x = keras.Input((2,), name="x")
    model = keras.Model(x, UnfusedBatchNormalization(name="norm")(layers.Dense(2)(x)))
    found = ranges(check(model))
    assert found["norm"] == found["norm/product"] == "from calibration"
    data = np.ones((3, 2), "float32")
    assert ranges(check(model, calibration_data=data))["norm/product"].startswith("observed (")


def test_range_sources_of_a_model_with_errors():
    x = keras.Input((4, 3), name="x")
    y = layers.LSTM(2, recurrent_dropout=0.1, name="lstm")(layers.Dense(3, name="dense")(x))
    report = check(keras.Model(x, layers.Dense(2, name="end")(y)))
    assert not report.ok and not report.warnings
    assert set(ranges(report)) == {"x_quantize", "dense", "end"}


def test_range_sources_of_a_quantized_model():
    model = quantized_network()
    conv = model.get_layer("conv").observer
    found = ranges(check(model))
    low, high = float(conv.minimum), float(conv.maximum)
    assert found["conv"] == f"calibrated ({low:.4g}..{high:.4g})"
    assert found["pool"] == "shared with 'add'"


def test_range_sources_of_a_quantized_model_without_ranges():
    model = keras_qat.quantize_model(network())
    assert ranges(check(model))["conv"] == "lacking"
    model.set_default_ranges((-1, 3))
    assert ranges(check(model))["conv"] == "default (-1, 3)"


def test_check_leaves_a_quantized_model_unchanged():
    model = keras_qat.quantize_model(network())
    before = [np.array(variable) for variable in model.variables]
    check(model, calibration_data=images())
    after = [np.array(variable) for variable in model.variables]
    assert all((a == b).all() for a, b in zip(before, after, strict=True))
    assert model.lacking_ranges


def test_range_sources_of_a_float_layer():
    model = keras_qat.quantize_model(network(), overrides={"head": None})
    assert ranges(check(model))["head"] == "float"


def test_range_sources_are_in_the_report():
    report = check(network())
    assert "shared with 'add'" in str(report)
    rows = {row["name"]: row for row in json.loads(json.dumps(report.to_dict()))["layers"]}
    assert rows["pool"]["tensors"] == [
        {
            "tensor": "pool",
            "source": "shared",
            "minimum": None,
            "maximum": None,
            "shared_with": ["add"],
            "fixed_by": "",
        }
    ]


@pytest.mark.parametrize("data", [np.zeros((2, 3)), [], np.full((2, 8, 8, 3), np.nan)])
def test_check_refuses_data_that_does_not_fit(data):
    with pytest.raises(keras_qat.errors.InvalidDataError):
        check(network(), calibration_data=data)
