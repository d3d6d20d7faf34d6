"""build_model: what is done to each layer while the model is built."""

import dataclasses

import keras
from keras import layers

from keras_qat.graph import build_model, read_model


def test_each_layer_can_be_given_its_weights_before_the_next_one_is_built():
    x = keras.Input((4,), name="x")
    first, second = layers.Dense(3, name="first"), layers.Dense(2, name="second")
    graph = read_model(keras.Model(x, second(first(x))))
    fresh = {name: layers.Dense(size, name=name) for name, size in (("first", 3), ("second", 2))}
    nodes = {
        name: dataclasses.replace(node, operations=(fresh.get(name, node.head),))
        for name, node in graph.nodes.items()
    }
    replaced = dataclasses.replace(graph, nodes=nodes)
    seen = []

    def after_call(node):
        seen.append((node.name, fresh["first"].built, fresh["second"].built))

    build_model(replaced, after_call=after_call)
    assert seen == [("x", False, False), ("first", True, False), ("second", True, True)]
