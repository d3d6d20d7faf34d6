"""Schemes of nodes: fused layers, layers without an operator, and layers that stay separate."""

import keras
import pytest
from keras import layers

from keras_qat.graph import read_model
from keras_qat.passes.config import Config, Setting
from keras_qat.passes.pipeline import DEFAULT_REWRITES
from keras_qat.passes.rewriting_stages import REWRITING
from keras_qat.passes.running import run_pipeline
from keras_qat.passes.schemes import (
    annotate_schemes,
    settle_followers,
    settle_without_operator,
)
from keras_qat.scheme import SCHEMES

INT8, PER_TENSOR = SCHEMES["int8"], SCHEMES["int8_per_tensor"]


def chain(*made):
    x = y = keras.Input((8, 8, 3), name="x")
    for layer in made:
        y = layer(y)
    return read_model(keras.Model(x, y))


def conv_block():
    return chain(
        layers.Conv2D(4, 3, name="conv"),
        layers.BatchNormalization(name="bn"),
        layers.ReLU(name="relu"),
        layers.Conv2D(2, 1, name="last"),
    )


def schemes_of(graph, **named):
    return {id(graph.nodes[name].head): scheme for name, scheme in named.items()}


def in_float(graph):
    """Returns the names of the nodes in float."""
    return [name for name, node in graph.nodes.items() if node.scheme is None]


def settled(graph, **named):
    annotated = annotate_schemes(graph, schemes_of(graph, **named), INT8)
    return settle_followers(annotated, set(named)).check()


def with_schemes(graph, **named):
    """Returns the graph after all rewrites. Some nodes have their own schemes."""
    schemes = schemes_of(graph, **named)
    setting = Setting(Config(INT8), frozenset(DEFAULT_REWRITES), INT8, schemes, frozenset(named))
    passes = [each for stage in REWRITING for each in stage.passes(setting)]
    return run_pipeline(graph, passes)[0]


def rewritten(graph, **named):
    """Returns the number of operations of each node after all rewrites, and the nodes in float."""
    graph = with_schemes(graph, **named)
    counts = {node.name: len(node.operations) for node in graph.nodes.values() if node.inputs}
    return counts, in_float(graph)


def test_annotate_schemes_gives_inputs_the_default():
    graph = conv_block()
    annotated = annotate_schemes(graph, schemes_of(graph, conv=None, last=PER_TENSOR), INT8)
    schemes = [node.scheme for node in annotated.nodes.values()]
    assert schemes == [INT8, None, INT8, INT8, PER_TENSOR]


def test_settle_followers_puts_followers_of_a_float_layer_in_float():
    assert in_float(settled(conv_block(), conv=None)) == ["conv", "bn", "relu"]
    assert in_float(settled(conv_block(), bn=None)) == ["bn", "relu"]
    assert in_float(settled(conv_block(), last=None)) == ["last"]


def test_settle_followers_keeps_nodes_with_an_override():
    assert in_float(settled(conv_block(), conv=None, bn=INT8)) == ["conv"]
    assert in_float(settled(conv_block(), conv=None, relu=INT8)) == ["conv", "bn"]


def test_settle_followers_keeps_followers_of_a_tensor_with_other_uses():
    x = keras.Input((8, 8, 3), name="x")
    y = layers.Conv2D(4, 3, name="conv")(x)
    graph = read_model(keras.Model(x, [layers.ReLU(name="relu")(y), y]))
    assert in_float(settled(graph, conv=None)) == ["conv"]


def test_settle_followers_moves_a_shared_follower_with_all_its_calls_or_not_at_all():
    relu, x = layers.ReLU(name="relu"), keras.Input((8, 8, 3), name="x")
    y = relu(layers.Conv2D(4, 1, name="a")(x))
    graph = read_model(keras.Model(x, relu(layers.Conv2D(4, 1, name="b")(y))))
    assert in_float(settled(graph, a=None)) == ["a"]
    assert in_float(settled(graph, a=None, b=None)) == ["a", "relu", "b", "relu_1"]


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ({"conv": None, "last": None}, ["conv", "drop", "last"]),
        ({"conv": None}, ["conv"]),
        ({"last": None}, ["drop", "last"]),
    ],
)
def test_settle_without_operator_takes_the_scheme_of_the_consumer(named, expected):
    graph = chain(
        layers.Conv2D(4, 3, name="conv"),
        layers.Dropout(0.5, name="drop"),
        layers.Conv2D(2, 1, name="last"),
    )
    annotated = annotate_schemes(graph, schemes_of(graph, **named), INT8)
    assert in_float(settle_without_operator(annotated, INT8)) == expected


def test_rewrites_do_not_join_float_and_integer_nodes():
    assert rewritten(conv_block(), relu=None) == ({"conv": 2, "relu": 1, "last": 1}, ["relu"])
    assert rewritten(conv_block(), conv=None) == ({"conv": 3, "last": 1}, ["conv"])
    assert rewritten(conv_block()) == ({"conv": 3, "last": 1}, [])


FLOATS = [
    ("pad", [layers.ZeroPadding2D(((0, 1), (0, 1))), layers.Conv2D(2, 3, strides=2)]),
    ("scale", [layers.Rescaling(0.5), layers.Conv2D(2, 3)]),
    ("first", [layers.Rescaling(0.5), layers.Rescaling(0.5, 1.0)]),
]


@pytest.mark.parametrize(("name", "made"), FLOATS, ids=[name for name, _ in FLOATS])
def test_rewrites_do_not_join_a_float_layer_with_an_integer_layer(name, made):
    graph = chain(*made)
    first = list(graph.nodes)[1]
    joined, _ = rewritten(graph)
    apart, floats = rewritten(graph, **{first: None})
    assert len(joined) == 1 and len(apart) == 2 and floats == [first]


def test_fused_node_has_the_scheme_of_the_kernel():
    made = with_schemes(conv_block(), relu=PER_TENSOR, last=PER_TENSOR)
    assert {name: node.scheme for name, node in made.nodes.items()} == {
        "x": INT8,
        "conv": INT8,
        "last": PER_TENSOR,
    }
