"""HARD_SWISH: cases of the contract, hand-computed numbers, the limit of the kernel."""

import keras
import numpy as np
import pytest

import keras_qat
from keras_qat.layers import QHardSwish
from tests.layers.cases import Case, branches, layer, operation
from tests.layers.contract import HALVES, Prepared, assert_equals_litert, quantized_with
from tests.layers.litert_files import exported, operators_of
from tests.models import called

Activation = keras.layers.Activation


def far_below(model, rng, batch):
    """Returns inputs of which only the largest are slightly above -3."""
    return [rng.uniform(-40, -2.99, (batch, *x.shape[1:])).astype("float32") for x in model.inputs]


CASES = [
    Case(
        "hard_swish",
        (QHardSwish,),
        branches(
            (3, 4, 2),
            [layer(Activation, "hard_silu")],
            [layer(Activation, "hard_swish")],
            [operation(keras.ops.hard_silu)],
            [layer(keras.layers.Conv2D, 3, 1, activation="hard_swish")],
        ),
        activations="lookup",
    ),
    Case(
        "hard_swish_of_nothing",
        (QHardSwish,),
        branches((50,), [layer(Activation, "hard_swish")]),
        data=far_below,
        least_scale=1.0,
        greatest_scale=1.0,
        activations="lookup",
    ),
]


def test_hard_swish_by_hand():
    x = keras.Input((6,), name="x")
    model = keras.Model(x, Activation("hard_swish", name="y")(x))
    model = quantized_with(model, "lookup", x=HALVES, y=HALVES)
    values = np.array([[0.0, 3.0, 10.0, -3.0, -50.0, 1.5]], "float32")
    # 1.125 is 2.25 steps of 0.5
    assert called(model, values).tolist() == [[0.0, 3.0, 10.0, 0.0, 0.0, 1.0]]
    assert operators_of(exported(model)) == ["HARD_SWISH"]


@pytest.mark.parametrize("largest", [-2.999999, -3.0, 1e-6])
def test_hard_swish_file_that_the_kernel_refuses_is_not_written(largest, tmp_path):
    x = keras.Input((3,), name="x")
    model = keras.Model(x, Activation("hard_swish", name="y")(x))
    model = keras_qat.quantize_model(model, activations="lookup")
    values = np.array([[-100.0, -50.0, largest]], "float32")
    keras_qat.calibrate(model, values, verbose=0)
    parameters = model.get_layer("y").neighbours
    input_scale, output_scale = parameters.inputs[0].grid().scale, parameters.output.grid().scale
    assert float(input_scale) < 128 * float(output_scale)
    keras_qat.export_litert(model, tmp_path / "model.tflite")
    assert keras_qat.verify(model, tmp_path / "model.tflite", values, verbose=0).exact


def test_hard_swish_that_shares_its_input_range_equals_litert():
    x = keras.Input((3,), name="x")
    y = keras.layers.Concatenate()([x, Activation("hard_swish")(x)])
    prepared = Prepared(
        Case("shared", (), lambda: keras.Model(x, y), data=far_below, activations="lookup")
    )
    assert_equals_litert(prepared)
