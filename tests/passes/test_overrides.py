"""Keys of `overrides`: the layers that they match, their precedence, and refused keys."""

import keras
import pytest
from keras import layers

from keras_qat.errors import InvalidOverrideError
from keras_qat.graph import read_model
from keras_qat.passes.overrides import Overrides
from keras_qat.scheme import SCHEMES

INT8 = SCHEMES["int8"]


def model():
    inner = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4, name="a"), layers.ReLU(name="b")], name="inner"
    )
    x = keras.Input((4,), name="x")
    y = layers.Dense(4, name="block_1_dense")(inner(x))
    return keras.Model(x, layers.Dense(2, name="head")(layers.Dropout(0.1, name="block_2_drop")(y)))


def schemes(overrides):
    """Returns the scheme by the name of the operation: "int8", or None for float."""
    network = model()
    found = Overrides(overrides).schemes(read_model(network))
    inside = [*network.layers, *network.get_layer("inner").layers]
    by_name = {id(layer): layer.name for layer in inside}
    return {by_name[key]: value and value.name for key, value in found.items()}


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({}, {}),
        ({"head": None}, {"head": None}),
        ({"head": INT8}, {"head": "int8"}),
        ({"head": "int8"}, {"head": "int8"}),
        ({"block_.*": None}, {"block_1_dense": None, "block_2_drop": None}),
        ({r"block_\d_dense": None}, {"block_1_dense": None}),
        ({layers.Dense: None}, {"a": None, "block_1_dense": None, "head": None}),
        ({"Dense": None}, {"a": None, "block_1_dense": None, "head": None}),
        ({"inner": None}, {"a": None, "b": None}),
        ({keras.Sequential: None}, {"a": None, "b": None}),
        ({"inner": None, "a": "int8"}, {"a": "int8", "b": None}),
        ({"inner": None, "Dense": "int8"}, {"a": None, "b": None, "block_1_dense": "int8"}),
    ],
    ids=str,
)
def test_overrides_keys_match(overrides, expected):
    found = schemes(overrides)
    assert {name: found[name] for name in expected} == expected
    assert len(found) == len(expected) + ("Dense" in overrides and "inner" in overrides)


def test_overrides_regular_expression_matches_whole_names_only():
    with pytest.raises(InvalidOverrideError, match="'block_1'"):
        schemes({"block_1": None})


def test_overrides_prefer_a_name_and_then_the_first_match():
    assert schemes({"hea.": "int8", "he.d": None})["head"] == "int8"
    assert schemes({"he.d": None, layers.Dense: "int8"})["head"] is None
    assert schemes({layers.Dense: "int8", "he.d": None})["head"] == "int8"
    assert schemes({".*": None, layers.Dense: None, "head": "int8"})["head"] == "int8"


def test_overrides_keys_match_operations():
    x = keras.Input((4,))
    graph = read_model(keras.Model(x, keras.ops.exp(x) + x))
    assert len(Overrides({"Exp": None, "Add": None}).schemes(graph)) == 2


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"haed": None}, "matches no layer.*such as .'head'.*Received: 'haed'.*To fix it"),
        ({layers.Conv2D: None}, "matches no layer.*Received: the class Conv2D"),
        ({"Dence": None}, "such as .'Dense'"),
        ({"head(": None}, r"not a regular expression: .*Received: 'head\('"),
        ({3: None}, "A key of .*Received: 3"),
        ({"head": "int7"}, r"overrides\['head'\]. is not a scheme.*one of .*'int8'"),
        ({"head": False}, "is not a scheme.*Received: False"),
        (["head"], r"Expected: a dict, or 'ends_int8'\. Received: \['head'\]"),
    ],
    ids=str,
)
def test_overrides_refuses_invalid_keys_and_values(overrides, message):
    with pytest.raises(InvalidOverrideError, match=message):
        schemes(overrides)
