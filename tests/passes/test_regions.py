"""Borders between layers of different schemes, and which side of them each node is on."""

import keras
from keras import layers

from keras_qat.graph import read_model
from keras_qat.layers import find_slice
from keras_qat.passes.pipeline import PIPELINE, run_pipeline
from keras_qat.passes.regions import (
    Border,
    draw_borders,
    remove_borders,
    settle_borders,
    with_borders,
)
from keras_qat.scheme import SCHEMES

INT8 = SCHEMES["int8"]


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


def in_float(graph, *names):
    return {id(graph.nodes[name].head): None for name in names}


def order(graph):
    """The names of the nodes, a bar for each border."""
    return " ".join("|" if isinstance(n.head, Border) else n.name for n in graph.nodes.values())


def drawn(graph, *names):
    return draw_borders(graph, in_float(graph, *names), INT8).check()


def test_a_border_is_drawn_where_the_scheme_changes():
    graph = conv_block()
    assert order(drawn(graph, "conv")) == "x | conv | bn relu last"
    assert order(drawn(graph, "bn", "relu")) == "x conv | bn relu | last"
    assert order(drawn(graph, "last")) == "x conv bn relu | last"
    assert drawn(graph) is graph


def test_layers_of_one_scheme_take_a_tensor_through_one_border():
    x = keras.Input((4,), name="x")
    a = layers.Dense(4, name="a")(x)
    y = layers.Add(name="sum")([layers.Dense(4, name="b")(a), layers.Dense(4, name="c")(a)])
    graph = drawn(read_model(keras.Model(x, y)), "b", "c")
    assert order(graph) == "x a | b c | | sum"


def test_no_slice_takes_a_border():
    assert find_slice([Border(None, False, name="border")]) is None


def test_what_a_layer_takes_up_becomes_what_it_becomes():
    graph = conv_block()
    asked = in_float(graph, "conv")
    assert order(settle_borders(drawn(graph, "conv"), asked).check()) == "x | conv bn relu | last"
    asked = in_float(graph, "bn")
    assert order(settle_borders(drawn(graph, "bn"), asked).check()) == "x conv | bn relu | last"


def test_what_the_user_spoke_of_stays():
    graph = conv_block()
    for other in ("bn", "relu"):
        asked = {**in_float(graph, "conv"), id(graph.nodes[other].head): INT8}
        settled = settle_borders(draw_borders(graph, asked, INT8), asked)
        assert order(settled).split("|")[2].split()[0] == other


def test_what_others_take_too_stays():
    x = keras.Input((8, 8, 3), name="x")
    y = layers.Conv2D(4, 3, name="conv")(x)
    graph = read_model(keras.Model(x, [layers.ReLU(name="relu")(y), y]))
    before = drawn(graph, "conv")
    assert settle_borders(before, in_float(graph, "conv")) is before


def test_a_shared_follower_moves_with_all_its_calls_or_not_at_all():
    relu, x = layers.ReLU(name="relu"), keras.Input((8, 8, 3), name="x")
    y = relu(layers.Conv2D(4, 1, name="a")(x))
    graph = read_model(keras.Model(x, relu(layers.Conv2D(4, 1, name="b")(y))))
    one, both = in_float(graph, "a"), in_float(graph, "a", "b")
    before = draw_borders(graph, one, INT8)
    assert settle_borders(before, one) is before
    settled = settle_borders(draw_borders(graph, both, INT8), both).check()
    assert order(settled) == "x | a relu | | b relu_1 |"


def test_schemes_are_those_between_the_borders():
    graph = conv_block()
    plain, schemes = remove_borders(drawn(graph, "bn", "relu"), INT8)
    assert order(plain.check()) == "x conv bn relu last"
    assert schemes == {"x": INT8, "conv": INT8, "bn": None, "relu": None, "last": INT8}


def test_rewriting_fuses_nothing_across_a_border():
    graph = conv_block()
    passes = with_borders(PIPELINE, in_float(graph, "relu"), INT8)
    rewritten, schemes = remove_borders(run_pipeline(graph, passes)[0], INT8)
    chains = {name: len(node.operations) for name, node in rewritten.nodes.items()}
    assert chains == {"x": 1, "conv": 2, "relu": 1, "last": 1}
    assert schemes["relu"] is None
    assert with_borders(PIPELINE, {}, INT8) == PIPELINE
