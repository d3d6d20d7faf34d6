import keras
import pytest
from keras import layers

from keras_qat.graph import Matcher, any_of, layer_of, maybe, operation_named, read_model
from keras_qat.graph.patterns import matches_chain

CONV, NORM, RELU = "conv", "norm", "relu"


def equal_to(word):
    return Matcher(word, lambda operation: operation == word)


PATTERN = (equal_to(CONV), maybe(equal_to(NORM)), maybe(equal_to(RELU)))


@pytest.mark.parametrize(
    ("chain", "matched"),
    [
        ([CONV], True),
        ([CONV, NORM], True),
        ([CONV, RELU], True),
        ([CONV, NORM, RELU], True),
        ([], False),
        ([NORM], False),
        ([CONV, RELU, NORM], False),
        ([CONV, NORM, NORM], False),
        ([CONV, RELU, RELU], False),
        ([CONV, "other"], False),
        (["other", CONV], False),
    ],
)
def test_matches_chain(chain, matched):
    assert matches_chain(PATTERN, chain) is matched


def test_matches_chain_needs_each_required_follower():
    assert not matches_chain((equal_to(CONV), equal_to(NORM)), [CONV])


def test_layer_of_matches_the_exact_class():
    class Special(layers.Dense):
        pass

    matcher = layer_of(layers.Dense, layers.Flatten)
    assert matcher(layers.Dense(1)) and matcher(layers.Flatten())
    assert not matcher(Special(1)) and not matcher(layers.Reshape((1,)))
    assert matcher.label == "keras.layers.Dense or keras.layers.Flatten"
    assert layer_of(Special).label == "Special"


def test_operation_named_matches_operations_and_no_layers():
    x = keras.Input((2,))
    operation = list(read_model(keras.Model(x, x + x)).nodes.values())[1].head
    matcher = operation_named("Add", "Subtract")
    assert matcher(operation) and not matcher(layers.Add())
    assert not operation_named("Multiply")(operation)
    assert matcher.label == "ops.add or ops.subtract"
    assert operation_named("GetItem", "ExpandDims").label == "x[...] or ops.expand_dims"


def test_any_of_and_maybe():
    either = any_of(equal_to(CONV), equal_to(RELU))
    assert either(CONV) and either(RELU) and not either(NORM)
    assert either.label == "conv or relu"
    assert maybe(either).optional and not either.optional
