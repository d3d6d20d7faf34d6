"""Folds batch normalization into the layer before it."""

from __future__ import annotations

from keras_qat.graph import Graph
from keras_qat.layers.batch_normalization import BATCH_NORM
from keras_qat.passes.fusing import fuse_followers


def fold_batch_norms(graph: Graph) -> Graph:
    """Makes a convolution or dense layer and the batch normalization behind it one layer.

    Matches: a convolution (of sequences or images, depthwise, transposed) or `Dense`, linear,
    with a `BatchNormalization` over the last axis, or a `ChannelAffine`, as its only consumer.
    Calls of a shared layer must all be followed by the same one.
    Builds: one layer. At training it still normalizes with the batch's statistics; at inference
    the normalization is in the kernel and the bias.
    Why: LiteRT has no batch normalization operator, and the folded kernel is what is quantized.

    Args:
        graph: The graph.

    Returns:
        A graph with fewer batch normalizations.
    """
    return fuse_followers(graph, BATCH_NORM)
