"""The graph of a Keras model: reading, checking, matching, rewriting, building."""

from keras_qat.graph.building import build_model
from keras_qat.graph.graph import Edge, Graph, Node, Parameter
from keras_qat.graph.patterns import Matcher, any_of, label_of, layer_of, maybe, operation_named
from keras_qat.graph.reading import read_model

__all__ = [
    "Edge",
    "Graph",
    "Matcher",
    "Node",
    "Parameter",
    "any_of",
    "build_model",
    "label_of",
    "layer_of",
    "maybe",
    "operation_named",
    "read_model",
]
