"""Fuses an activation into the layer before it."""

from __future__ import annotations

from keras_qat.graph import Graph
from keras_qat.layers.activation_names import FUSED
from keras_qat.passes.fusing import fuse_followers


def fuse_activations(graph: Graph) -> Graph:
    """Makes a layer and the ReLU or ReLU6 behind it one layer.

    Matches: a convolution, dense layer, batch normalization, or an addition, subtraction or
    multiplication, with a ReLU or ReLU6 as its only consumer; the `Add` and `Activation("relu")`
    at the end of a residual block too.
    Builds: one layer with the activation fused.
    Why: the activation is a clip of the integers that costs nothing; on its own it is an
    operator that reads and writes the whole tensor, and requantizes it once more.

    Args:
        graph: The graph.

    Returns:
        A graph with fewer activations.
    """
    return fuse_followers(graph, FUSED)
