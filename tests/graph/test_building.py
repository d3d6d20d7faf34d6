"""build_model: the function that it calls for each layer while it builds the model."""

import dataclasses

import keras
from keras import layers

from keras_qat.graph import build_model, read_model


def test_build_model_lets_a_layer_get_weights_before_it_builds_the_next():
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
