"""Base class of all quantized layers: three forwards, its neighbours and lowering."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Self

import keras

from keras_qat.backend import full_precision
from keras_qat.errors import KerasQatError, NotQuantizedError, original_error
from keras_qat.graph import Node
from keras_qat.layers.core.drop_in import (
    cannot_take_up,
    copy_by_path,
    default_name,
    keras_layers_of,
    layer_from_keras,
    layer_of_chain,
    quiet_config,
    with_settings,
)
from keras_qat.layers.core.integers import (
    NeighbourParams,
    OffsetInts,
    Parameters,
    in_integers,
    rounded,
)
from keras_qat.layers.core.layer_config import own_config, rule_of_config
from keras_qat.layers.core.modes import in_float_mode, replaced_forward
from keras_qat.layers.core.rules import exact_scheme, integer_rule
from keras_qat.layers.core.tensor_observers import build_observers, observers_of
from keras_qat.quantizers import (
    Derived,
    Free,
    Grid,
    QuantDelay,
    RangeObserver,
    RangeRule,
    Specification,
    ValueRange,
)
from keras_qat.scheme import BYTE, Scheme, get_scheme


class QuantizedLayer(keras.layers.Layer):
    """Base class of the layers of a quantized model.

    With `scheme=None` the layer computes what the Keras layer of the same name computes. With a
    scheme, `training=True` computes in float with straight-through fake quantization, and
    inference computes the integers of the target's kernels.

    A tensor between two layers holds real values, `(q - zero_point) * scale` in float32.
    Inside `integer` a tensor is `OffsetInts`: the whole numbers `q - zero_point`, in float32.

    Subclasses define `float_forward`, `integer` and `lower`; most also inherit from the Keras
    layer whose arguments they take.

    Args:
        *args: Arguments of the Keras layer.
        name: Name of the layer, by default the name of the Keras layer, such as `conv2d`.
        scheme: A scheme, its name, or None for a layer that computes in float.
        storage: How the file stores narrow weights, see `Scheme`.
        quant_delay: Number of training steps in float. One layer of a model counts them for all.
        range_rule: The rule by which training moves the ranges of its tensors, or the rule's
            configuration; None for the rules of the specifications.
        target: Name of the target whose kernels inference equals.
        keras_layer: The serialized Keras layer that was converted, if it has no weights and this
            class does not inherit from its class.
        output_name: Name of the model's output that this layer computes, if not that of the layer.
        holds_ranges: Whether training leaves the ranges of its tensors and weights as they are.
        **kwargs: Keyword arguments of the Keras layer.

    Attributes:
        keras_class: The Keras layer that the class replaces; None if it replaces an operation of
            `keras.ops`.
        is_opened: Whether a rewrite replaces a float layer of a model's definition by the Keras
            layers that it stands for.
        operators: The LiteRT operators that `lower` adds, each that it may add for some
            arguments; empty where it adds none. Each registered layer says it.
        int8_operators: Those of them that take int8 tensors inside the layer in every scheme.
        output_specification: How the output gets its quantization parameters, unless arguments of
            the layer change it.
        least_input_scale: Scale that inputs have at least; their range is widened to it.
        activation_bits: Widths of activations that its integer arithmetic is exact for. Empty for
            a layer without integer arithmetic, which rewrites replace.
        makes_operator: Whether `lower` adds an operator with the layer's name.
        takes_indices: Whether the input is ids instead of quantized values.
        plain_inputs: Kinds of plain numbers that inputs may be: "int", "bool" or both.
        plain_dtype: Type of an output of plain integers or booleans; None for real values.
        shares_inputs: Whether all inputs with real values have the same parameters.
        learns_range: Whether the range of the output is learned, under a rule that learns ranges.
        avoids_ties: Whether the scales around it are chosen for the table that its kernel makes.
        takes_activation: Whether the `activation` of the Keras layer becomes a node of its own.
    """

    keras_class: Any = None
    is_opened = True
    operators: tuple[str, ...]
    int8_operators: tuple[str, ...] = ()
    output_specification: Specification | None = Free()
    least_input_scale = 0.0
    takes_activation = False
    takes_indices = False
    plain_inputs: tuple[str, ...] = ()
    plain_dtype: str | None = None
    shares_inputs = False
    learns_range = True
    avoids_ties = False
    activation_bits: tuple[int, ...] = (8,)
    makes_operator = True

    def __init_subclass__(cls, **kwargs):
        """Sets the Keras layer that a class inherits from, unless the class defines it."""
        super().__init_subclass__(**kwargs)
        inherited = next(base for base in cls.__mro__ if not issubclass(base, QuantizedLayer))
        is_own = inherited is keras.layers.Layer or not inherited.__module__.startswith("keras.")
        if not is_own:
            cls.keras_class = inherited

    def __init__(
        self,
        *args,
        name: str | None = None,
        scheme: str | Scheme | None = None,
        storage: str | None = None,
        quant_delay: int = 0,
        range_rule: RangeRule | dict[str, Any] | None = None,
        target: str = "reference",
        keras_layer: dict[str, Any] | None = None,
        output_name: str | None = None,
        holds_ranges: bool = False,
        **kwargs,
    ):
        if name is None and self.keras_class is not None:
            name = default_name(self.keras_class)
        super().__init__(*args, name=name, **kwargs)
        self.keras_layer, self.output_name = keras_layer, output_name
        self.scheme: Scheme | None = None
        if scheme is not None:
            scheme = get_scheme(scheme).with_storage(storage)
            self.scheme = self.checked_scheme(scheme, self.name)
        self.target = target
        self.neighbours = NeighbourParams()
        self.delay_steps: int = quant_delay
        self.quant_delay: QuantDelay | None = None
        self.observer: Any = None
        self.range_rule = rule_of_config(range_rule)
        self.trains_ranges = not holds_ranges

    @classmethod
    def checked_scheme(cls, scheme: str | Scheme, name: str) -> Scheme:
        """Returns a scheme, if layers of this class have exact arithmetic for it.

        Args:
            scheme: A scheme, or its name.
            name: Name of the layer.

        Raises:
            UnsupportedLayerError: If the activations of the scheme have an unsupported width.
            InvalidSchemeError: If no scheme has this name.
        """
        operators = getattr(cls, "operators", ())
        return exact_scheme(cls.__name__, get_scheme(scheme), cls.activation_bits, operators, name)

    def specifications(self) -> Mapping[str, Specification | None]:
        """Returns how the tensors get their quantization parameters, if there is a scheme.

        Subclasses whose arguments change it, or with observed tensors between their operators,
        extend it.

        Returns:
            The specification of `"output"`, and of each observed tensor between the operators.
            None stands for an output of plain integers or booleans.
        """
        return {"output": self.output_specification}

    def observers(self) -> dict[str, RangeObserver]:
        """Returns the observers of the tensors that are observed, by the names of the tensors."""
        return observers_of(self)

    @property
    def range_source(self) -> Any:
        """The object that provides the output's minimum and maximum: an observer or a table."""
        specification = self.specifications()["output"]
        if isinstance(specification, Derived):
            return ValueRange(lambda: getattr(self, specification.source))
        return self.observer

    def set_range_rule(self, rule: RangeRule) -> None:
        """Sets the rule by which training moves the ranges of the layer's tensors."""
        self.range_rule = rule
        for observer in self.observers().values():
            observer.set_rule(rule)

    def build(self, input_shape):
        """Builds the Keras layer, the range observers and the delay."""
        super().build(input_shape)
        build_observers(self)
        if self.delay_steps:
            # Last, so that the order of the weights is the same after loading.
            self.quant_delay = QuantDelay(self.delay_steps, name="quant_delay")
            self.quant_delay.build()

    def __call__(self, *args, **kwargs):
        """Calls the layer as Keras does. Raised errors keep their parts, not only their text."""
        try:
            return super().__call__(*args, **kwargs)
        except KerasQatError as error:
            found = original_error(error)
        raise found

    def call(self, inputs, training=None):
        """Computes in float, with fake quantization (training), or in integers (inference)."""
        replaced = replaced_forward()
        if replaced is not None:
            return replaced(self, inputs)
        with contextlib.nullcontext() if training else full_precision():
            if self.scheme is None or in_float_mode():
                return self.float_forward(inputs, training=training)
            return self.training_forward(inputs) if training else self.integer_forward(inputs)

    def compute_output_spec(self, *args, **kwargs):
        """Returns the shape and the type of the output."""
        made = super().compute_output_spec(*args, **kwargs)
        return made if self.plain_dtype is None else keras.KerasTensor(made.shape, self.plain_dtype)

    def float_forward(self, inputs, training=None):
        """Computes the output of the Keras layer in float."""
        del training
        return super().call(inputs)

    def training_forward(self, inputs):
        """Computes in float, with the output rounded to its grid."""
        return self.quantize_output(self.float_forward(inputs, training=True))

    def quantize_output(self, y):
        """Observes the range of the output and rounds it to its grid, straight through."""
        output = self._neighbours().output
        if output is None:
            return y
        if self.observer is not None:
            self.observer.track(self.observed_values(y))
        return rounded(y, output, self._scheme())

    def observed_values(self, y):
        """Returns the values that the range of the output must cover: by default the output."""
        return y

    def integer_forward(self, inputs):
        """Computes the integers of the target's kernels, and returns their real values."""
        neighbours = self._neighbours()
        if neighbours.output is None and not any(neighbours.inputs):
            return self.float_forward(inputs, training=False)
        return in_integers(self.integer, inputs, neighbours)

    def integer(self, *inputs: OffsetInts, output: Any):
        """Computes the operator in integers.

        Args:
            *inputs: The centered integers and the grid of each input.
            output: The grid of the output; None for plain integers or booleans.

        Returns:
            float32 whole numbers `q - zero_point` of the output; or plain integers or booleans.
        """
        raise NotImplementedError

    def integer_rule(self, code: str, dtype: str | None = None) -> Any:
        """Returns the rule by which the target's kernels compute an operator of the layer.

        Args:
            code: Name of the operator.
            dtype: Type of the data; None for that of the scheme.
        """
        scheme = self._scheme()
        takes_delegate = scheme.activation_bits <= BYTE and self.takes_delegate(code)
        return integer_rule(code, self.target, dtype or scheme.dtype, takes_delegate=takes_delegate)

    def takes_delegate(self, code: str) -> bool:
        """Returns whether fast kernels that have an operator take it with these shapes.

        Args:
            code: Name of the operator.
        """
        del code
        return True

    def lower(self, builder, *inputs):
        """Adds the layer's operators to a LiteRT model.

        Args:
            builder: A `keras_qat.lowering.Builder`.
            *inputs: LiteRT tensors.

        Returns:
            The LiteRT tensor of the output.
        """
        raise NotImplementedError

    def inner_tensor(self, name: str, inputs):
        """Computes a tensor between the layer's operators in float.

        Args:
            name: Name of the tensor in `specifications`.
            inputs: The inputs of the layer.
        """
        raise NotImplementedError

    @classmethod
    def from_match(cls, node: Node, scheme: Scheme | None) -> QuantizedLayer:
        """Makes the layer for a chain of Keras operations, without its weights.

        Args:
            node: The chain, as matched by the registered pattern.
            scheme: The scheme, or None for a float layer.

        Returns:
            A layer that is not built yet.
        """
        return layer_of_chain(cls, node.operations, name=node.name, scheme=scheme)

    @classmethod
    def lookup_from_match(cls, node: Node, scheme: Scheme | None) -> QuantizedLayer:
        """Makes the layer, or a lookup that computes the same on targets without its operator.

        Args:
            node: The chain, as matched by the registered pattern.
            scheme: The scheme, or None for a float layer.

        Returns:
            A layer that is not built yet.
        """
        return cls.from_match(node, scheme)

    def to_keras(self) -> list[keras.layers.Layer] | None:
        """Returns the Keras layers that compute the same in float, with this layer's weights.

        Returns:
            New layers, to be called one after the other, built if this layer is; None if no Keras
            layer computes the same.

        Example:
        >>> from keras_qat.layers import QConv2D
        >>> block = QConv2D(4, 3, batch_norm=True, activation="relu", name="conv")
        >>> [layer.name for layer in block.to_keras()]
        ['conv', 'conv_batch_normalization', 'conv_relu']
        """
        return with_settings(self, self.layers_in_keras())

    def layers_in_keras(self) -> list[keras.layers.Layer] | None:
        """Returns the layers of `to_keras`. `to_keras` adds the penalty and `trainable`."""
        return keras_layers_of(self)

    @classmethod
    def from_keras(cls, layers: keras.layers.Layer | Sequence[keras.layers.Layer]) -> Self:
        """Makes the layer that computes a chain of Keras layers, with their weights.

        Args:
            layers: The Keras layer that this class replaces, or a list of that layer and the
                following layers that this class can fuse.

        Returns:
            The layer that `clone_model` would make of them, with the name of the first layer. A
            penalty, and an activation that LiteRT does not fuse, stay part of it: `clone_model`
            makes layers of these. It computes in float32. It is built if the first layer is.

        Raises:
            InvalidModelError: If this class does not replace these layers.

        Example:
        >>> from keras_qat.layers import QDense
        >>> QDense.from_keras([keras.layers.Dense(3, name="head"), keras.layers.ReLU()]).name
        'head'
        """
        return layer_from_keras(cls, layers)

    @classmethod
    def config_of_keras(cls, head: Any, followers: Sequence[Any]) -> dict[str, Any]:
        """Returns the configuration of the layer that replaces a chain of layers or operations.

        Args:
            head: The Keras layer or operation that this class replaces.
            followers: The layers or operations after it.

        Raises:
            InvalidModelError: If this class cannot fuse a follower.
        """
        for follower in followers:
            raise cannot_take_up(cls, follower)
        return quiet_config(head) if isinstance(head, keras.layers.Layer) else {}

    def copy_from_keras(self, chain: Sequence[Any]) -> None:
        """Copies the weights of the chain of Keras layers that this layer replaces."""
        copy_by_path(chain[0], self)

    def carry_weights(self, node: Node) -> None:
        """Copies the weights of the chain of Keras operations that this layer was made for."""

    def assign_params(self, inputs: Sequence[Parameters | None], output: Parameters) -> None:
        """Tells the layer the quantization parameters of the tensors around it."""
        self.neighbours.inputs, self.neighbours.output = tuple(inputs), output

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), **own_config(self)}

    def output_grid(self) -> Grid | None:
        """Returns the grid of the output; None for a float layer, and for plain numbers."""
        output = None if self.scheme is None else self._neighbours().output
        return None if output is None else output.grid()

    def _scheme(self) -> Scheme:
        if self.scheme is None:
            raise NotQuantizedError("The layer has no quantization scheme.", layer=self.name)
        return self.scheme

    def _neighbours(self) -> Any:
        is_float = self.scheme is None and self.neighbours.output is None
        if is_float or not self.neighbours.inputs:
            raise NotQuantizedError(
                "A quantized layer was called outside a quantized model, so that it does not "
                "know the scales of its inputs.",
                layer=self.name,
                fix="Make the model with `keras_qat.quantize_model`.",
            )
        return self.neighbours
