"""Running single passes on small models."""

import keras

from keras_qat.graph import build_model, read_model


def applied(rewrite, model):
    """Returns the checked graph that a pass makes of a model."""
    return rewrite(read_model(model)).check(after=rewrite.__name__)


def chains(graph):
    """Returns the names of the operations of each node, inputs left out."""
    return {
        node.name: [operation.name for operation in node.operations]
        for node in graph.nodes.values()
        if not node.is_input
    }


def maximum_difference(graph, model, data):
    """Returns the largest difference between a model and the model built from a graph."""
    ours = keras.tree.flatten(build_model(graph)(data))
    theirs = keras.tree.flatten(model(data))
    return max(
        float(keras.ops.max(keras.ops.abs(a - b))) for a, b in zip(ours, theirs, strict=True)
    )
