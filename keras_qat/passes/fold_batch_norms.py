"""Folds batch normalization into the layer before it."""

from __future__ import annotations

from keras_qat.graph import Graph
from keras_qat.layers.kernels.batch_normalization import BATCH_NORM
from keras_qat.passes.fusing import fuse_followers


def fold_batch_norms(graph: Graph) -> Graph:
    """Folds a batch normalization into the convolution or dense layer before it.

    Matches: a convolution (of sequences or images, depthwise, transposed) or `Dense`, linear,
    with a `BatchNormalization` over the last axis, or a `ChannelAffine`, as its only consumer.
    All calls of a shared layer must be followed by the same one.
    Builds: one layer. At training it still normalizes with the statistics of the batch. At
    inference the normalization is part of the kernel and the bias.
    Why: LiteRT has no operator for batch normalization, and the folded kernel is quantized.

    Args:
        graph: The graph.

    Returns:
        A graph with fewer batch normalizations.
    """
    return fuse_followers(graph, BATCH_NORM)
