"""Layers with a kernel, a batch normalization folded into it, and a fused activation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_qat.arithmetic.accumulate import in_bytes
from keras_qat.graph import Node
from keras_qat.layers.core.activation_names import function_name
from keras_qat.layers.core.base import QuantizedLayer
from keras_qat.layers.core.constants import stored
from keras_qat.layers.core.drop_in import copy_by_path, copy_values, layer_of_chain
from keras_qat.layers.core.fused import fused_code
from keras_qat.layers.core.integers import OffsetInts
from keras_qat.layers.core.layer_config import rule_of_config
from keras_qat.layers.core.rules import packs_weights
from keras_qat.layers.kernels.accumulators import (
    requantize_centered,
    requantize_wide_centered,
)
from keras_qat.layers.kernels.block import Block
from keras_qat.layers.kernels.folding import (
    folded_weights,
    input_kernel,
    input_shift,
    kernel_fold,
)
from keras_qat.layers.kernels.input_affine import INPUT_AFFINE, InputAffine, without_affine
from keras_qat.layers.kernels.integer_weights import (
    BiasPressure,
    FoldedWeights,
    IntegerWeights,
    bias_pressure,
    check_accumulators,
    integer_weights,
    least_scale_for_sums,
    scaled_axes,
)
from keras_qat.layers.kernels.kernel_operator import KernelOperator
from keras_qat.layers.kernels.kernel_steps import (
    deployed_steps,
    fit_steps,
    make_weight_range,
    trained_kernel,
    weight_rule_config,
)
from keras_qat.quantizers import (
    Grid,
    MinMax,
    RangeRule,
    WeightRange,
    quantize_weights,
    weight_grid,
)
from keras_qat.scheme import BYTE, Scheme


class WeightedLayer(Block):
    """Base class of layers with a kernel, a bias, a batch normalization and an activation.

    The batch normalization belongs to the layer. At training it normalizes with the batch's
    statistics, and at inference it is folded into the kernel and the bias. Weights are quantized
    after folding: training computes `BN(conv(x, fq(kernel * s) / s))` with
    `s = gamma / sqrt(moving_variance + epsilon)`. Their grid is therefore the
    grid in the exported file.

    Args:
        *args: Arguments of the Keras layer.
        input_affine: Arguments of an `InputAffine`, which the layer applies first.
        fixed_batch: Whether the file of the model is for one batch size. Fast kernels take
            transposed convolutions only there, and round differently.
        weight_range_rule: The rule of the kernel's range, or the rule's configuration. None for the
            extremes.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of the Keras layer and of `Block`.

    Attributes:
        kernel_operator: The `KernelOperator` that computes the layer, one for all layers of a
            class.
        weight_range: The steps of the kernel; None if they follow from its extremes.
    """

    activation_bits = (8, 16)
    takes_activation = True
    kernel_operator: KernelOperator

    def __init__(
        self,
        *args,
        input_affine: dict | None = None,
        fixed_batch: bool = False,
        weight_range_rule: RangeRule | dict[str, Any] | None = None,
        scheme=None,
        **kwargs,
    ):
        super().__init__(*args, scheme=scheme, **kwargs)
        self.fixed_batch = fixed_batch
        self.weight_range_rule = rule_of_config(weight_range_rule) or MinMax()
        self.weight_range: WeightRange | None = None
        self.input_affine = None if input_affine is None else InputAffine(**input_affine)

    @property
    def channel_axes(self) -> tuple[int, ...]:
        """The dimensions of the kernel that number its output channels, negative."""
        return self.kernel_operator.channel_axes

    def build(self, input_shape):
        """Builds the Keras layer, the batch normalization and the steps of the kernel."""
        super().build(input_shape)
        self.weight_range = make_weight_range(self)

    def kernel_integers(self) -> tuple[Any, Any]:
        """Returns the integers of the kernel in training, and the kernel that stands for 1.

        Returns:
            float32 tensors: whole numbers in the shape of the kernel, and the difference of the
            kernel, as the layer holds it, between two integers, which broadcasts against it.

        Example:
        >>> from keras_qat.layers import QDense
        >>> layer = QDense(1, scheme="int8")
        >>> layer.build((None, 2))
        >>> layer.kernel.assign([[1.27], [0.3]]) is not None
        True
        >>> integers, step = layer.kernel_integers()
        >>> integers.numpy().tolist(), round(float(step[0, 0]), 4)
        ([[127.0], [30.0]], 0.01)
        """
        fold = kernel_fold(self)
        kernel, scheme = input_kernel(self) * fold, self._scheme()
        least = least_scale_for_sums(kernel, self.channel_axes, scheme)
        axes = scaled_axes(kernel, self.channel_axes, scheme)
        grid = weight_grid(kernel, axes, scheme, least, deployed_steps(self, fold))
        step = grid.scale / fold
        if self.input_affine is not None:
            step = step / self.input_affine.scaled(ops.ones_like(self.kernel))
        return quantize_weights(kernel, grid), step

    def fit_weight_range(self) -> None:
        """Sets the steps of the kernel by its range rule, as calibration does."""
        fold = kernel_fold(self)
        fit_steps(self, input_kernel(self) * fold, fold)

    def float_forward(self, inputs, training=None):
        """Applies kernel, bias, batch normalization and activation in float."""
        return self.finish(self.kernel_operator.apply(self, inputs, input_kernel(self)), training)

    def training_forward(self, inputs):
        """Applies the fake-quantized folded kernel, then the rest in float."""
        kernel = trained_kernel(self, input_kernel(self), kernel_fold(self))
        return self.quantize_output(
            self.finish(self.kernel_operator.apply(self, inputs, kernel), True)
        )

    def integer(self, *inputs: OffsetInts, output: Grid):
        """Accumulates in int32 and requantizes as the target's kernel does."""
        ((values, grid),) = inputs
        weights = self.integer_weights(grid.scale, output.scale)
        operator, scheme = self.kernel_operator, self._scheme()
        is_wide = scheme.activation_bits > BYTE
        parts = in_bytes(values) if is_wide else (values,)
        sums = [operator.accumulate(self, part, weights.kernel) for part in parts]
        requantize = requantize_wide_centered if is_wide else requantize_centered
        return requantize(
            *sums,
            weights.bias,
            grid.scale,
            weights.kernel_scale,
            *output,
            rule=self.integer_rule(operator.code, operator.dtype(self)),
            activation=function_name(self.activation),
            scheme=scheme,
        )

    @property
    def packs_weights(self) -> bool:
        """Whether the file stores several weights in a byte."""
        return packs_weights(self.kernel_operator.code, self.target, self._scheme())

    @property
    def weight_dtype(self) -> str:
        """Type of the weights in the file, such as `"int4"`."""
        scheme = self._scheme()
        return scheme.weight_dtype if self.packs_weights else scheme.with_weights(()).weight_dtype

    def takes_delegate(self, code: str) -> bool:
        """Returns whether fast kernels that have the operator take it with these shapes."""
        return code != self.kernel_operator.code or self.kernel_operator.takes_delegate(self)

    def integer_weights(self, input_scale, output_scale) -> IntegerWeights:
        """Computes the integer kernel, bias and multipliers from the current variables.

        Args:
            input_scale: float32 scalar tensor.
            output_scale: float32 scalar tensor.

        Returns:
            The `IntegerWeights`.
        """
        return integer_weights(self.folded_weights(), input_scale, output_scale, self._scheme())

    def bias_pressure(self, input_scale, output_scale) -> BiasPressure:
        """Returns the cost of biases for weights: a bias of 32 bits needs large enough steps.

        A bias is stored at `input_scale * kernel_scale` and must stay below 2^30. A channel with a
        larger bias gets a larger weight scale, and uses fewer of the 8 bits of its weights. The
        same holds for a channel whose weights are smaller than 2^-31 of the size that the output's
        steps need.

        Args:
            input_scale: float32 scalar, the scale of the layer's input.
            output_scale: float32 scalar, the scale of the layer's output.

        Returns:
            A `BiasPressure`: for each weight scale the scale that the weights need, the scale in
            use, and the factor between the two. The factor is 1 everywhere for a layer without
            large biases.

        Example:
        >>> from keras_qat.layers import QDense
        >>> layer = QDense(2, scheme="int8", bias_initializer=keras.initializers.Constant(2.0**31))
        >>> layer.build((None, 4))
        >>> layer.kernel.assign([[1.27] * 2] * 4) is not None
        True
        >>> layer.bias_pressure(1.0, 2.0**24).factor.round().tolist()
        [400.0, 400.0]
        """
        return bias_pressure(self.folded_weights(), input_scale, output_scale, self._scheme())

    def folded_weights(self) -> FoldedWeights:
        """Returns the deployed weights in float."""
        return folded_weights(self)

    @property
    def adds_bias(self) -> bool:
        """Returns whether the sums get a bias: the layer's own, or that of a folded operation."""
        return (
            self.use_bias or self.batch_normalization is not None or input_shift(self) is not None
        )

    def lower_weights(self):
        """Returns the weights as numpy arrays for `lower`.

        Returns:
            Integer kernel, its `Quantization`, int32 bias; for a float layer float32 kernel, None,
            float32 bias. If not `adds_bias`, the bias is 0: CONV_2D and DEPTHWISE_CONV_2D must have
            a bias.

        Raises:
            UnsupportedLayerError: If bias or sums are so large relative to the output's range that
                no kernel can scale them in 32 bits.
        """
        if self.scheme is None:
            folded = self.folded_weights()
            bias = ops.convert_to_numpy(folded.offset + folded.shifted)
            return ops.convert_to_numpy(folded.kernel), None, bias
        neighbours = self._neighbours()
        scales = neighbours.inputs[0].grid().scale, neighbours.output.grid().scale
        weights = self.integer_weights(*scales)
        check_accumulators(weights, scales, self.channel_axes, self._scheme(), self.name)
        grid = Grid(weights.kernel_scale, weights.kernel_zero_point)
        kernel, quantization = stored(weights.kernel, grid, self.weight_dtype)
        return kernel, quantization, ops.convert_to_numpy(weights.bias)

    def lower(self, builder, *inputs):
        """Adds the kernel's operator."""
        return self.kernel_operator.add(self, builder, inputs[0])

    def fused_code(self) -> str:
        """Returns LiteRT's name of the activation."""
        return fused_code(function_name(self.activation), self.output_grid())

    @classmethod
    def from_match(cls, node: Node, scheme: Scheme | None) -> QuantizedLayer:
        """Makes the layer for `[InputAffine +] head [+ BatchNormalization] [+ ReLU]`."""
        operations = without_affine(node.operations)
        cls.kernel_operator.check(dataclasses.replace(node, operations=operations), scheme)
        affine = {"input_affine": node.head.config()} if INPUT_AFFINE(node.head) else {}
        return layer_of_chain(cls, operations, name=node.name, scheme=scheme, **affine)

    @classmethod
    def config_of_keras(cls, head: Any, followers: Sequence[Any]) -> dict[str, Any]:
        """Returns the configuration for a Keras layer and its followers, see `Block`."""
        config = super().config_of_keras(head, followers)
        # The kernel is copied with its low-rank updates merged.
        return config | dict.fromkeys(config.keys() & {"lora_rank", "lora_alpha"})

    def finish(self, y, training=None):
        """Applies the input's offset, bias, batch normalization and activation in float."""
        return super().finish(y if input_shift(self) is None else y + input_shift(self), training)

    def layers_in_keras(self) -> list[keras.layers.Layer] | None:
        """Returns the Keras layers that compute the same in float, with this layer's weights."""
        layers = super().layers_in_keras()
        if self.input_affine is None or layers is None:
            return layers
        return [self.input_affine.to_keras(), *layers]

    def get_config(self):
        """Returns the constructor's arguments."""
        affine = {} if self.input_affine is None else {"input_affine": self.input_affine.config()}
        fixed = {"fixed_batch": True} if self.fixed_batch else {}
        return {**super().get_config(), **affine, **fixed, **weight_rule_config(self)}

    def carry_weights(self, node: Node) -> None:
        """Copies kernel, bias and batch normalization."""
        self.copy_from_keras(node.operations)

    def copy_from_keras(self, chain: Sequence[Any]) -> None:
        """Copies kernel, bias, batch normalization and the weights of the activation."""
        sources = [operation for operation in chain if getattr(operation, "weights", None)]
        for mine, theirs in zip([self, self.batch_normalization], sources, strict=False):
            copy_values(theirs, mine)
        if isinstance(self.activation, keras.layers.Layer):
            copy_by_path(chain[0].activation, self.activation)
