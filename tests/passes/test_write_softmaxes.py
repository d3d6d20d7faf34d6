"""write_softmaxes: a softmax over any axis becomes one over the last axis."""

import keras
import pytest
from keras import ops

import keras_qat
from keras_qat.errors import UnsupportedLayerError
from tests.passes.customs import around, assert_exact, names, normal

Softmax = keras.layers.Softmax
TURNED = ["QTranspose", "QSoftmax", "QTranspose"]
CASES = {
    "vector": ((7,), lambda x: ops.softmax(x), ["QSoftmax"]),
    "last_of_two": ((5, 7), lambda x: ops.softmax(x, axis=2), ["QSoftmax"]),
    "last_of_three": ((3, 5, 7), Softmax(), ["QSoftmax"]),
    "last_of_four": ((2, 3, 5, 7), lambda x: ops.softmax(x, axis=-1), ["QSoftmax"]),
    "operation": ((5, 7), lambda x: ops.softmax(x, axis=1), TURNED),
    "negative_axis": ((3, 5, 7), lambda x: ops.softmax(x, axis=-3), TURNED),
    "layer": ((5, 7), Softmax(axis=1), TURNED),
    "all_axes": ((3, 5), Softmax(axis=(1, 2)), ["QReshape", "QSoftmax", "QReshape"]),
    "two_axes": (
        (3, 5, 7),
        Softmax(axis=(-3, -2)),
        ["QTranspose", "QReshape", "QSoftmax", "QReshape", "QTranspose"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_write_softmaxes_over_any_axis(name, tmp_path):
    shape, softmax, expected = CASES[name]
    quantized = assert_exact(around(softmax, shape), 3 * normal(shape), tmp_path)
    assert names(quantized) == expected


def test_write_softmaxes_refuses_the_batch_axis():
    with pytest.raises(UnsupportedLayerError, match="(?s)over the batch.*bad"):
        keras_qat.quantize_model(around(Softmax(axis=0, name="bad"), (4,)))
    with pytest.raises(UnsupportedLayerError, match="Softmax"):
        keras_qat.quantize_model(around(lambda x: ops.softmax(x, axis=0), (4,)))
