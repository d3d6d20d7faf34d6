"""RESIZE_NEAREST_NEIGHBOR and RESIZE_BILINEAR."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_qat.arithmetic.resize import IN_INTEGERS, Interpolation, Taps
from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph import Node, any_of, layer_of, operation_named
from keras_qat.layers.core.base import QuantizedLayer
from keras_qat.layers.core.integers import OffsetInts
from keras_qat.layers.core.moves_values import MovesValues
from keras_qat.layers.core.registry import register
from keras_qat.layers.moving.reshape import check_channels_last, sample_sizes
from keras_qat.quantizers import Grid, unless_delayed
from keras_qat.scheme import Scheme

_OPERATORS = {
    "nearest": "RESIZE_NEAREST_NEIGHBOR",
    "bilinear": "RESIZE_BILINEAR",
}
_OPTIONS = ("antialias", "crop_to_aspect_ratio", "pad_to_aspect_ratio")


@register(
    any_of(layer_of(keras.layers.UpSampling2D, keras.layers.Resizing), operation_named("Resize"))
)
@keras.saving.register_keras_serializable("keras_qat")
class QResize(MovesValues):
    """Resizes images: one RESIZE_NEAREST_NEIGHBOR or RESIZE_BILINEAR, with the input's range.

    The positions are those of half-pixel centers, as in Keras. The bilinear kernel represents them
    in 1024ths of a pixel, the kernel of uint8 in float32, and XNNPACK in 2048ths. The training
    forward uses the positions of the target's kernel too. LiteRT's default and reference kernels
    may differ by several integers if an image is resized by an odd factor.

    Args:
        size: Height and width of the output.
        interpolation: `"nearest"` or `"bilinear"`.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:
    >>> x = np.array([0.0, 1.0], "float32").reshape(1, 1, 2, 1)
    >>> QResize((1, 4), "bilinear")(x).numpy().ravel().tolist()
    [0.0, 0.25, 0.75, 1.0]
    """

    operators = ("RESIZE_NEAREST_NEIGHBOR", "RESIZE_BILINEAR")

    def __init__(
        self,
        size: Sequence[int],
        interpolation: str,
        *,
        scheme: str | Scheme | None = None,
        **kwargs,
    ):
        super().__init__(scheme=scheme, **kwargs)
        self.size, self.interpolation = tuple(size), interpolation
        if interpolation not in _OPERATORS:
            raise UnsupportedLayerError(
                "LiteRT does not support this interpolation.",
                layer=self.name,
                received=f"interpolation='{interpolation}'",
                expected=f"one of {tuple(_OPERATORS)}",
                fix="Use another interpolation, or resize before the model.",
            )
        self.operators = (_OPERATORS[interpolation][0],)

    def build(self, input_shape):
        """Checks the input, and that the kernel's positions are inside the image."""
        if len(input_shape) != 4 or None in input_shape[1:3]:
            raise UnsupportedLayerError(
                "Only a batch of images of known size can be resized.",
                layer=self.name,
                received=f"an input of shape {tuple(input_shape)}",
                expected="shape (batch, height, width, channels)",
                fix="Give the model's input a fixed shape, with a batch axis.",
            )
        for old, new in zip(input_shape[1:3], self.size, strict=True):
            if self.interpolation == "bilinear" and self._reads_beyond(old, new):
                raise UnsupportedLayerError(
                    "LiteRT's reference kernel would read beyond the image: its positions are "
                    "rounded to 1024ths of a pixel.",
                    layer=self.name,
                    received=f"a size of {old} resized to {new}",
                    expected="a smaller factor",
                    fix="Resize in two steps, or by the nearest neighbour.",
                )
        super().build(input_shape)

    def compute_output_shape(self, input_shape):
        """Returns the shape of the resized images."""
        return (input_shape[0], *self.size, input_shape[3])

    def float_forward(self, inputs, training=None):
        """Resizes with exact positions."""
        del training
        if self.interpolation == "nearest":
            return self._nearest(inputs)
        sizes = zip(inputs.shape[1:3], self.size, strict=True)
        return _interpolated(inputs, [_exact_taps(*pair) for pair in sizes])

    def training_forward(self, inputs):
        """Resizes with the kernel's positions. Interpolated values are rounded to the grid."""
        if self.interpolation == "nearest":
            return self._nearest(inputs)
        sizes = zip(inputs.shape[1:3], self.size, strict=True)
        taps = [self._training_taps(*pair) for pair in sizes]
        return self.quantize_output(_interpolated(inputs, taps))

    def integer(self, *inputs: OffsetInts, output: Grid):
        """Selects integers, or interpolates as the kernel of the type does."""
        values = inputs[0].values
        if self.interpolation == "nearest":
            return self._nearest(values)
        height, width = map(self._interpolation.taps, values.shape[1:3], self.size)
        q = ops.cast(values, "int32") + output.zero_point
        q = self._interpolation.interpolate(q, *height, *width)
        return ops.cast(q - output.zero_point, "float32")

    def lower(self, builder, *inputs):
        """Adds one operator."""
        return builder.operator(
            _OPERATORS[self.interpolation],
            (inputs[0], builder.constant("size", np.array(self.size, "int32"))),
            options={"alignCorners": False, "halfPixelCenters": True},
        )

    @property
    def _interpolation(self) -> Interpolation:
        """The rule of the target's kernel."""
        return IN_INTEGERS if self.scheme is None else self.integer_rule("RESIZE_BILINEAR")

    def _training_taps(self, size_in: int, size_out: int) -> Taps:
        """Returns the kernel's neighbours as real weights; the exact ones during the delay."""
        lower, upper, weights = self._interpolation.taps(size_in, size_out)
        kernels = lower, upper, weights.astype("float32") * np.float32(1 / self._interpolation.one)
        return Taps(*map(unless_delayed, _exact_taps(size_in, size_out), kernels))

    def _reads_beyond(self, size_in: int, size_out: int) -> bool:
        return self._interpolation.taps(size_in, size_out).lower.max() >= size_in

    def _nearest(self, x):
        for axis, size in enumerate(self.size, start=1):
            x = ops.take(x, _nearest_positions(x.shape[axis], size), axis=axis)
        return x

    @classmethod
    def from_match(cls, node: Node, scheme: Scheme | None) -> QuantizedLayer:
        """Makes the layer.

        Raises:
            UnsupportedLayerError: If it does not only resize.
        """
        check_channels_last(node.name, node.head.data_format)
        asked = [name for name in _OPTIONS if getattr(node.head, name, False)]
        if asked:
            raise UnsupportedLayerError(
                "Resizing with cropping, padding or antialiasing has no integer form.",
                layer=node.name,
                received=f"{asked[0]}=True",
                expected=f"{asked[0]}=False",
                fix="Crop, pad or smooth in layers of their own, or before the model.",
            )
        size = sample_sizes(node)[:2]
        return cls(size, node.head.interpolation, name=node.name, scheme=scheme)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "size": self.size, "interpolation": self.interpolation}


def _nearest_positions(size_in: int, size_out: int) -> np.ndarray:
    # Float32 like `GetNearestNeighbor` in TFLite's `reference/resize_nearest_neighbor.h`.
    scale = np.float32(size_in) / np.float32(size_out)
    centers = np.arange(size_out, dtype="float32") + np.float32(0.5)
    return np.minimum(np.floor(centers * scale), size_in - 1).astype("int32")


def _exact_taps(size_in: int, size_out: int) -> Taps:
    position = (np.arange(size_out) + 0.5) * size_in / size_out - 0.5
    lower = np.maximum(np.floor(position), 0)
    upper = np.clip(np.ceil(position), 0, size_in - 1)
    weights = (position - lower).astype("float32")
    return Taps(lower.astype("int32"), upper.astype("int32"), weights)


def _interpolated(x, taps: Sequence[Taps]):
    for axis, (lower, upper, weights) in enumerate(taps, start=1):
        weights = ops.reshape(weights, [-1 if i == axis else 1 for i in range(4)])
        first, second = ops.take(x, lower, axis=axis), ops.take(x, upper, axis=axis)
        x = first + (second - first) * weights
    return x
