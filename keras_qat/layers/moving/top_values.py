"""TOPK_V2: the largest values of the last axis, and their positions."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.layers.core.base import QuantizedLayer
from keras_qat.layers.core.integers import OffsetInts
from keras_qat.layers.core.moves_values import MovesValues
from keras_qat.litert import Tensor
from keras_qat.scheme import Scheme


class TopValues(QuantizedLayer):
    """Base class of both outputs of `ops.top_k`: of equal values the first one counts.

    Args:
        count: The number of values.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    operators = ("TOPK_V2",)
    place: int

    def __init__(self, count: int, *, scheme: str | Scheme | None = None, **kwargs):
        super().__init__(scheme=scheme, **kwargs)
        self.count = int(count)

    def compute_output_shape(self, input_shape):
        """Returns the shape with another size of the last axis."""
        return (*input_shape[:-1], self.count)

    def float_forward(self, inputs, training=None):
        """Finds the values, the largest first."""
        del training
        return ops.top_k(inputs, self.count)[self.place]

    def lower(self, builder, *inputs):
        """Adds one TOPK_V2, unless the layer of the other output has added it."""
        (x,) = inputs

        def add() -> tuple[Tensor, Tensor]:
            """Adds a TOPK_V2. Only the output of this layer has the name of the layer."""
            name, shape = builder.name, builder.output_shape
            other = ("positions", "values")[self.place]
            names = (name, f"{name}/{other}") if self.place == 0 else (f"{name}/{other}", name)
            values = Tensor(names[0], shape, x.dtype, x.quantization)
            positions = Tensor(names[1], shape, "int32")
            count = builder.constant("count", np.array(self.count, "int32"))
            builder.add("TOPK_V2", (x, count), (values, positions))
            return values, positions

        return builder.once(("TOPK_V2", x, self.count), add)[self.place]

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "count": self.count}


@keras.saving.register_keras_serializable("keras_qat")
class QTopValues(TopValues, MovesValues):
    """The largest values of the last axis, the largest first: the values of one TOPK_V2.

    Args:
        count: The number of values.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:
    >>> QTopValues(2)(np.array([[1.0, 7.0, 3.0]])).numpy().tolist()
    [[7.0, 3.0]]
    """

    place = 0


@keras.saving.register_keras_serializable("keras_qat")
class QTopPositions(TopValues):
    """The positions of the largest values of the last axis: the positions of one TOPK_V2.

    Args:
        count: The number of values.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:
    >>> QTopPositions(2)(np.array([[1.0, 7.0, 3.0]])).numpy().tolist()
    [[1, 2]]
    """

    place = 1
    plain_dtype = "int32"
    plain_inputs = ("int",)
    output_specification = None

    def training_forward(self, inputs):
        """Finds the positions, which are not rounded."""
        return self.float_forward(inputs, training=True)

    def integer(self, *inputs: OffsetInts, output: Any):
        """Finds the positions among the integers, in the order of LiteRT on each backend."""
        del output
        values = ops.cast(inputs[0].values, "int32")
        size = values.shape[-1]
        # No two keys are equal. Backends differ in the order of equal values.
        keys = values * size + ops.arange(size - 1, -1, -1, dtype="int32")
        return ops.top_k(keys, self.count)[1]
