"""EinsumDense as a block. Its product becomes a FULLY_CONNECTED or a BATCH_MATMUL."""

from __future__ import annotations

import keras
from keras import ops

from keras_qat.layers.kernels.block import Block


@keras.saving.register_keras_serializable("keras_qat")
class QEinsumDense(Block, keras.layers.EinsumDense):
    """Dense layer over any axes with batch normalization and activation, for a model's definition.

    The block computes in float, and rewrites replace it by operators. `bias_axes` defines the bias.

    Args:
        *args: Arguments of `keras.layers.EinsumDense`.
        batch_norm: Whether a batch normalization follows, or its arguments.
        **kwargs: Keyword arguments of `keras.layers.EinsumDense` and of `Block`.

    Example:
    >>> layer = QEinsumDense("abc,cd->abd", (None, 8), batch_norm=True, activation="relu")
    >>> layer(ops.ones((1, 5, 4))).shape
    TensorShape([1, 5, 8])
    """

    @property
    def use_bias(self) -> bool:
        """Whether there is a bias."""
        return self.bias_axes is not None

    def float_forward(self, inputs, training=None):
        """Multiplies in float, then applies batch normalization and activation."""
        return self.finish(ops.einsum(self.equation, inputs, self.kernel), training)
