"""The registry: the layer of each chain of operations."""

import keras
import pytest

import keras_qat
from keras_qat.errors import InvalidRegistrationError, UnsupportedLayerError
from keras_qat.graph import layer_of, maybe
from keras_qat.layers.core import registry
from keras_qat.layers.core.registry import find_rule, register, registered_rules

layers = keras.layers


class MyConv2D(layers.Conv2D):
    """A subclass that may compute a different function."""


def norm():
    layer = layers.BatchNormalization()
    layer.build((None, 4, 4, 2))
    return layer


@pytest.mark.parametrize(
    ("chain", "expected"),
    [
        ([layers.Conv2D(2, 1)], "QConv2D"),
        ([layers.Conv2D(2, 1), norm()], "QConv2D"),
        ([layers.Conv2D(2, 1), norm(), layers.ReLU()], "QConv2D"),
        ([layers.Conv2D(2, 1), layers.Activation("relu6")], "QConv2D"),
        ([layers.Conv2D(2, 1), layers.ReLU(), norm()], None),
        ([layers.Conv2D(2, 1), norm(), norm()], None),
        ([layers.Conv2D(2, 1), layers.Softmax()], None),
        ([layers.DepthwiseConv2D(1), layers.ReLU(6.0)], "QDepthwiseConv2D"),
        ([layers.Dense(2), layers.Activation("relu")], "QDense"),
        ([norm(), layers.ReLU()], "QBatchNormalization"),
        ([layers.Add(), layers.ReLU()], "QAdd"),
        ([layers.Add(), norm()], None),
        ([layers.MaxPooling2D(), layers.ReLU()], None),
        ([layers.ReLU()], "QReLU"),
        ([layers.Softmax()], "QSoftmax"),
        ([MyConv2D(2, 1)], None),
        ([], None),
    ],
)
def test_find_rule_of_a_chain(chain, expected):
    entry = find_rule(chain)
    assert (None if entry is None else entry.layer.__name__) == expected


def test_register_adds_a_rule(monkeypatch):
    monkeypatch.setattr(registry, "_RULES", list(registered_rules()))
    before = registered_rules()

    @register(layer_of(MyConv2D), maybe(layer_of(layers.ReLU)))
    class QMine(keras_qat.layers.QuantizedLayer):
        pass

    assert registered_rules()[:-1] == before
    assert find_rule([MyConv2D(2, 1), layers.ReLU()]) == registered_rules()[-1]
    assert registered_rules()[-1].layer is QMine


class Sorted(layers.Layer):
    """A layer without an integer operator in LiteRT."""

    def call(self, x):
        return keras.ops.sort(x)


def test_quantize_model_names_an_unsupported_layer_with_the_reason():
    model = keras.Sequential([keras.Input((4, 4, 2)), Sorted(name="mine")])
    with pytest.raises(UnsupportedLayerError, match="'mine'.*supported.*Sort.*register"):
        keras_qat.quantize_model(model)
    with pytest.raises(UnsupportedLayerError, match="'mine'"):
        keras_qat.clone_model(model)


@pytest.mark.parametrize(
    ("pattern", "target"),
    [((), MyConv2D), ((layer_of(MyConv2D),), lambda layer, x: x)],
    ids=["nothing", "a function for a matcher"],
)
def test_register_refuses_invalid_arguments(pattern, target):
    with pytest.raises(InvalidRegistrationError, match="layer class"):
        register(*pattern)(target)


def test_register_takes_a_layer_class(monkeypatch):
    monkeypatch.setattr(registry, "_RULES", list(registered_rules()))

    @keras_qat.register(MyConv2D, maybe(layer_of(layers.ReLU)))
    class QMine(keras_qat.layers.QuantizedLayer):
        pass

    entry = find_rule([MyConv2D(2, 1), layers.ReLU()])
    assert entry is not None and entry.layer is QMine


def classes_above(layer):
    return [base for base in layer.__mro__[1:] if base.__module__.startswith("keras_qat.")]


def test_registered_and_public_layers_have_at_most_three_classes_of_ours_above():
    public = {each for each in vars(keras_qat.layers).values() if isinstance(each, type)}
    found = public | {rule.layer for rule in registered_rules()}
    assert keras_qat.layers.QConv2D in found
    deep = {layer: classes_above(layer) for layer in found if len(classes_above(layer)) > 3}
    assert not deep
