"""The findings of `check` about operators that have no fast kernel."""

import keras
from keras import layers

import keras_qat


def network(size=32):
    x = keras.Input((size, size, 8))
    y = layers.Conv2D(8, 1, name="conv")(x)
    y = layers.PReLU(shared_axes=[1, 2], name="first")(y)
    y = layers.PReLU(shared_axes=[1, 2], name="second")(layers.Conv2D(8, 1, name="again")(y))
    return keras.Model(x, y)


def slow(*args, **kwargs):
    report = keras_qat.check(*args, **kwargs)
    return [each for each in report.findings if each.code == "slow-operator"]


def test_slow_operator_is_one_finding_with_its_cost_and_layers():
    (finding,) = slow(network())
    assert finding.level == "warning" and finding.layers == ("first", "second")
    assert "PRELU of int8 is not taken by XNNPACK" in finding.message
    assert "measured, 16 times the time of an ADD" in finding.message
    assert "16,384 elements in 'first', 'second'" in finding.message


def test_slow_operator_is_found_for_litert_only():
    assert len(slow(network(), target="litert")) == 1
    assert slow(network(), target="ethos-u") == []


def test_slow_operator_ignores_cheap_operators():
    assert slow(network(size=8)) == []
    relu = keras.Sequential([keras.Input((64, 64, 8)), layers.Conv2D(8, 3, activation="relu")])
    assert slow(relu) == []


def test_slow_operator_is_found_in_a_quantized_model():
    assert len(slow(keras_qat.quantize_model(network()))) == 1
