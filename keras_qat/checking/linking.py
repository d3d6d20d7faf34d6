"""The layers of a quantized model, built and linked, but not yet a Keras model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from keras_qat.checking.statistics import Statistics
from keras_qat.data.batches import Batch
from keras_qat.graph import Graph
from keras_qat.quantizers import RangeObserver


@dataclasses.dataclass(frozen=True)
class LinkedModel:
    """The layers that would be exported, with the ranges that are known before training.

    Attributes:
        graph: Each node but the inputs is a call of a layer that is built, has its weights, and is
            linked to the quantization parameters of its inputs and outputs.
        statistics: Statistics of the values of tensors, by their observers.
        sample: A batch of the inputs; None if there is no data.
        is_quantized: Whether the layers are those of a quantized model, whose ranges are used.
    """

    graph: Graph
    statistics: Mapping[RangeObserver, Statistics]
    sample: Batch | None = None
    is_quantized: bool = False

    def layers(self) -> list[Any]:
        """Returns the layers that compute integers, each once."""
        heads = (node.head for node in self.graph.nodes.values() if not node.is_input)
        return list({id(head): head for head in heads if head.scheme is not None}.values())
