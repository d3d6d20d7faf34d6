"""Fuses an activation into the layer before it."""

from __future__ import annotations

from keras_qat.graph import Graph
from keras_qat.layers.core.activation_names import FUSED
from keras_qat.passes.fusing import fuse_followers


def fuse_activations(graph: Graph) -> Graph:
    """Fuses a ReLU or ReLU6 into the layer before it.

    Matches: a convolution, dense layer, batch normalization, or an addition, subtraction or
    multiplication, with a ReLU or ReLU6 as its only consumer; the `Add` and `Activation("relu")`
    at the end of a residual block too.
    Builds: one layer with the activation fused.
    Why: a fused activation clips the integers and costs nothing. A separate activation is an
    operator that reads and writes the whole tensor, and requantizes it once more.

    Args:
        graph: The graph.

    Returns:
        A graph with fewer activations.
    """
    return fuse_followers(graph, FUSED)
