"""GATHER from a table of integers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.arithmetic.requantize import quantize
from keras_qat.graph import Node, layer_of
from keras_qat.layers.core.base import QuantizedLayer
from keras_qat.layers.core.drop_in import assign_copy, layer_of_chain
from keras_qat.layers.core.integers import OffsetInts
from keras_qat.layers.core.registry import register
from keras_qat.quantizers import Derived, Grid
from keras_qat.scheme import Scheme


@register(layer_of(keras.layers.Embedding))
@keras.saving.register_keras_serializable("keras_qat")
class QEmbedding(QuantizedLayer, keras.layers.Embedding):
    """Looks up vectors by integer ids: one GATHER from an int8 table.

    The table has the grid of the output. The range is that of the current whole table, so neither
    calibration nor training must contain every id. The ids are an input of the model, and stay
    int32 in the file. An id must lie in `[0, input_dim)`. LiteRT refuses other ids, and the result
    of Keras then depends on the backend.

    `mask_zero` becomes False: layers that take the mask take a comparison of the ids instead. The
    outputs of the model have no masks, so a loss needs `sample_weight` to leave padding out.

    Args:
        *args: Arguments of `keras.layers.Embedding`.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.Embedding`.

    Example:
    >>> QEmbedding(4, 2, embeddings_initializer="ones")(np.array([[3, 0]])).numpy().tolist()
    [[[1.0, 1.0], [1.0, 1.0]]]
    """

    operators = ("GATHER",)
    takes_indices = True
    output_specification = Derived("embeddings")

    def integer(self, *inputs: OffsetInts, output: Grid):
        """Looks up the vectors and rounds them, as the table in the file is rounded."""
        vectors = self.float_forward(inputs[0].values)
        return ops.cast(self._quantized(vectors, output) - output.zero_point, "float32")

    def lower(self, builder, *inputs):
        """Adds one GATHER from the table."""
        table, grid = ops.convert_to_tensor(self.embeddings), self.output_grid()
        if grid is not None:
            table = ops.cast(self._quantized(table, grid), self._scheme().dtype)
        table = ops.convert_to_numpy(table)
        return builder.operator(
            "GATHER",
            (builder.constant("embeddings", table, builder.output_quantization), inputs[0]),
            options={"axis": 0},
        )

    def _quantized(self, values, grid: Grid):
        scheme = self._scheme()
        limits = np.int32(scheme.activation_low), np.int32(scheme.activation_high)
        return quantize(values, *grid, *limits)

    @classmethod
    def from_match(cls, node: Node, scheme: Scheme | None) -> QuantizedLayer:
        """Makes the layer. The layers that take its mask take it as a separate tensor."""
        given = {"name": node.name, "scheme": scheme, "mask_zero": False}
        return layer_of_chain(cls, node.operations, **given)

    @classmethod
    def config_of_keras(cls, head: Any, followers: Sequence[Any]) -> dict[str, Any]:
        """Returns the configuration. The table is copied with its low-rank updates merged."""
        config = super().config_of_keras(head, followers)
        return config | dict.fromkeys(config.keys() & {"lora_rank", "lora_alpha"})

    def carry_weights(self, node: Node) -> None:
        """Copies the table."""
        self.copy_from_keras(node.operations)

    def copy_from_keras(self, chain: Sequence[Any]) -> None:
        """Copies the table."""
        assign_copy(self.embeddings, chain[0].embeddings)
