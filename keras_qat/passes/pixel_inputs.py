"""Finds the inputs of a model that take pixels."""

from __future__ import annotations

import functools

import numpy as np

from keras_qat.graph import Edge, Graph, Node
from keras_qat.layers.core.registry import find_rule
from keras_qat.layers.kernels.input_affine import INPUT_AFFINE
from keras_qat.passes.fold_affines_forward import Affine, constant_affine
from keras_qat.quantizers import Shared

_WHITE = 255.0
# Normalized images are hardly ever larger: ImageNet's channels end at -2.2 and 2.7.
_LARGEST = 4.0


def pixel_inputs(graph: Graph) -> frozenset[str]:
    """Returns the names of inputs whose values the model scales down like pixels.

    Signs of pixels are a `Rescaling` from 0..255 to 0..1 or -1..1 at the start of a model, and a
    `Normalization` at the start of a model for images. The layer after may have absorbed either
    one, or it may be written in operators. Data are a weaker sign, since images need not have a
    white pixel. Layers before it may move values and keep their range, such as a `Resizing`, or
    act at training only, such as a `RandomFlip`.

    Args:
        graph: A graph that the pipeline has rewritten.
    """
    consumers = graph.consumers()

    @functools.cache
    def takes_pixels(edge: Edge) -> bool:
        """Returns whether all consumers of a tensor scale it like pixels."""
        behind, shape = consumers.get(edge, []), graph.shape(edge)
        is_image = len(shape) == 4 and shape[-1] in (1, 3, 4)
        return bool(behind) and all(
            _scales_pixels(_affine(node), is_image)
            or (_keeps_range(node) and takes_pixels(Edge(node.name)))
            for node in behind
        )

    return frozenset(name for name in graph.inputs if takes_pixels(Edge(name)))


def _keeps_range(node: Node) -> bool:
    """Returns whether the output of a node has the range of its input."""
    found = find_rule(node.operations)
    return found is not None and isinstance(found.layer.output_specification, Shared)


def _affine(node: Node) -> Affine | None:
    if not INPUT_AFFINE(node.head):
        return constant_affine(node)
    return Affine(node.head.factor, node.head.offset)


def _scales_pixels(affine: Affine | None, is_image: bool) -> bool:
    """Returns whether 0..255 becomes 0..1 or -1..1, or about that size if it is an image."""
    if affine is None:
        return False
    black, white = affine.beta, affine.gamma * _WHITE + affine.beta
    is_unit = (np.isclose(black, 0, atol=0.01) | np.isclose(black, -1, atol=0.01)) & np.isclose(
        white, 1, atol=0.01
    )
    is_normal = (black > -_LARGEST) & (black <= 0) & (white > 0.5) & (white < _LARGEST)
    return bool(np.all(is_unit)) or (is_image and bool(np.all(is_normal)))
