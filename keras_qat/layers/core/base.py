"""Base class of all quantized layers: three forwards, linking and lowering."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
from keras import ops, tree

from keras_qat.errors import NotQuantizedError, UnsupportedLayerError
from keras_qat.graph import Node
from keras_qat.layers.core.drop_in import DropIn, remade
from keras_qat.litert.format.operators import with_trait
from keras_qat.quantizers import (
    FixedParameters,
    Grid,
    QuantDelay,
    RangeObserver,
    RangeParameters,
    fake_quantize,
    grids_once,
)
from keras_qat.scheme import Scheme, get_scheme

Parameters = FixedParameters | RangeParameters

_FLOAT_MODE = contextvars.ContextVar("keras_qat_float_mode", default=False)


@contextlib.contextmanager
def float_mode():
    """Makes quantized layers compute in float, for calibration and comparison.

    The layers look at it when they are called or traced, so a compiled function keeps the mode
    it was traced in.
    """
    token = _FLOAT_MODE.set(True)
    try:
        yield
    finally:
        _FLOAT_MODE.reset(token)


def in_float_mode() -> bool:
    """Whether quantized layers compute in float now."""
    return _FLOAT_MODE.get()


# The integers of the tensors that layers made in the call of a model that runs now, by `id`.
_INTEGERS: contextvars.ContextVar[dict[int, tuple[Any, Centered]] | None] = contextvars.ContextVar(
    "keras_qat_integers", default=None
)


@contextlib.contextmanager
def inference() -> Iterator[None]:
    """Shares what layers compute in one call of a model: grids, and the integers of tensors.

    A layer takes the integers that the layer before it computed, instead of dividing the real
    values by their scale and rounding. The integers are kept as long as the real values.

    Returns:
        A context manager. No range may change within it.
    """
    integers: dict[int, tuple[Any, Centered]] = {}
    token = _INTEGERS.set(integers)
    try:
        with grids_once():
            yield
    finally:
        _INTEGERS.reset(token)
        integers.clear()


@dataclasses.dataclass(eq=False)
class Links:
    """The quantization parameters around a layer. A plain object: Keras must not track it.

    Attributes:
        inputs: Parameters of each input tensor; None for a tensor that is not quantized.
        output: Parameters of the output tensor.
    """

    inputs: Sequence[Parameters | None] = ()
    output: Parameters | None = None


class Centered(NamedTuple):
    """A tensor in integers.

    Attributes:
        values: float32 whole numbers `q - zero_point`.
        grid: Its quantization parameters; None for a model input, whose values are real.
    """

    values: Any
    grid: Any


class QuantizedLayer(DropIn):
    """Base class of the layers of a quantized model.

    With `scheme=None` the layer computes what the Keras layer of the same name computes. With a
    scheme, `training=True` computes in float with straight-through fake quantization, and
    inference computes the integers of LiteRT's reference kernels.

    A tensor between two layers holds real values, `(q - zero_point) * scale` in float32.
    Inside `integer` a tensor is `Centered`: the whole numbers `q - zero_point`, in float32.

    Subclasses define `float_forward`, `integer` and `lower`; most also inherit from the Keras
    layer whose arguments they take.

    Args:
        *args: Arguments of the Keras layer.
        scheme: A scheme, its name, or None for a layer that computes in float.
        quant_delay: How many training steps its model computes in float before it quantizes.
            One layer of a model says and counts it, for all of them.
        **kwargs: Keyword arguments of the Keras layer.

    Attributes:
        operators: The LiteRT operators that `lower` adds, each that it may add for some
            arguments; empty where it adds none. Each registered layer says it.
        int8_operators: Those of them that take int8 tensors inside the layer in every scheme.
        shares_range: Whether the output has the quantization parameters of the inputs, because
            the operator moves or selects values.
        fixed_parameters: Parameters of the output if the kernel prescribes them: of the class those
            for int8, of a layer with a scheme those for its type.
        least_input_scale: Scale that inputs have at least; their range is widened to it.
        keeps_calibration: Whether training holds a calibrated range even if no sample fits it.
        activation_bits: Widths of activations that its integer arithmetic is exact for.
        makes_operator: Whether `lower` adds an operator with the layer's name.
        takes_indices: Whether the input is ids instead of quantized values.
        avoids_ties: Whether the scales around it are chosen for the table that its kernel makes.
        takes_activation: Whether the Keras layer has an `activation` argument that has to
            become a separate node before fusing.
    """

    operators: tuple[str, ...]
    int8_operators: tuple[str, ...] = ()
    shares_range = False
    fixed_parameters: FixedParameters | None = None
    least_input_scale = 0.0
    keeps_calibration = False
    takes_activation = False
    takes_indices = False
    avoids_ties = False
    activation_bits: tuple[int, ...] = (8,)
    makes_operator = True

    def __init__(self, *args, scheme: str | Scheme | None = None, quant_delay: int = 0, **kwargs):
        super().__init__(*args, **kwargs)
        self.scheme = None if scheme is None else self.checked_scheme(scheme, self.name)
        self.links = Links()
        self.delay_steps: int = quant_delay
        self.quant_delay: QuantDelay | None = None
        self.observer: Any = None
        if self.scheme is not None and self.fixed_parameters is not None:
            self.fixed_parameters = self.fixed_parameters.of(self.scheme)
        if self.scheme is not None and not self.shares_range and self.fixed_parameters is None:
            self.observer = RangeObserver(keeps_calibration=self.keeps_calibration, name="range")

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
        scheme = get_scheme(scheme)
        if scheme.activation_bits in cls.activation_bits:
            is_narrow = not with_trait("narrow_weights").isdisjoint(getattr(cls, "operators", ()))
            return scheme if is_narrow else scheme.with_wide_weights()
        raise UnsupportedLayerError(
            f"This layer has no exact arithmetic for {scheme.activation_bits}-bit activations.",
            layer=name,
            received=f"a {cls.__name__} with scheme='{scheme.name}'",
            expected=f"activations of {' or '.join(map(str, cls.activation_bits))} bits",
            fix='Pass scheme="int8".',
        )

    @property
    def range_source(self) -> Any:
        """What has the smallest and the largest value of the output: the observer."""
        return self.observer

    def build(self, input_shape):
        """Builds the Keras layer, the range observer and the delay."""
        super().build(input_shape)
        if self.observer is not None and not self.observer.built:
            self.observer.build()
        if self.delay_steps and self.quant_delay is None:
            # Last, so that the order of the weights is the same after loading.
            self.quant_delay = QuantDelay(self.delay_steps, name="quant_delay")
            self.quant_delay.build()

    def call(self, inputs, training=None):
        """Computes in float, with fake quantization (training), or in integers (inference)."""
        if self.scheme is None or in_float_mode():
            return self.float_forward(inputs, training=training)
        if training:
            return self.training_forward(inputs)
        return self.integer_forward(inputs)

    def float_forward(self, inputs, training=None):
        """Computes the output of the Keras layer in float."""
        raise NotImplementedError

    def training_forward(self, inputs):
        """Computes in float, with the output rounded to its grid."""
        return self.quantize_output(self.float_forward(inputs, training=True))

    def quantize_output(self, y):
        """Observes the range of the output and rounds it to its grid, straight through."""
        if self.observer is not None:
            self.observer.track(y)
        grid, scheme = self._linked().output.grid(), self._scheme()
        limits = scheme.activation_low, scheme.activation_high
        return fake_quantize(y, grid.scale, grid.zero_point, *limits)

    def integer_forward(self, inputs):
        """Computes the reference kernels' integers, and returns their real values."""
        links = self._linked()
        tensors = tree.flatten(inputs)
        centered = [center(x, p) for x, p in zip(tensors, links.inputs, strict=True)]
        grid = links.output.grid()
        return real_values(Centered(self.integer(*centered, output=grid), grid))

    def integer(self, *inputs: Centered, output: Grid):
        """Computes the operator in integers.

        Args:
            *inputs: The centered integers and the grid of each input.
            output: The grid of the output.

        Returns:
            float32 whole numbers `q - zero_point` of the output.
        """
        raise NotImplementedError

    def lower(self, builder, *inputs):
        """Adds the layer's operators to a LiteRT model.

        Args:
            builder: A `keras_qat.lowering.Builder`.
            *inputs: LiteRT tensors.

        Returns:
            The LiteRT tensor of the output.
        """
        raise NotImplementedError

    def inner_observations(self) -> Iterator[tuple[RangeObserver, Callable[..., Any]]]:
        """Yields each observer of a tensor between the layer's operators.

        With it comes the function that computes the tensor in float, of what `call` takes.
        """
        yield from ()

    @classmethod
    def from_match(cls, node: Node, scheme: Scheme | None) -> QuantizedLayer:
        """Makes the layer for a chain of Keras operations, without its weights.

        Args:
            node: The chain, as matched by the registered pattern.
            scheme: The scheme, or None for a float layer.

        Returns:
            A layer that is not built yet.
        """
        config = {"name": node.name, "dtype": "float32", "scheme": scheme}
        is_layer = isinstance(node.head, keras.layers.Layer)
        return remade(cls, node.head, **config) if is_layer else cls.from_config(config)

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

    def carry_weights(self, node: Node) -> None:
        """Copies the weights of the chain of Keras operations that this layer was made for."""

    def link(self, inputs: Sequence[Parameters | None], output: Parameters) -> None:
        """Tells the layer the quantization parameters of the tensors around it."""
        self.links.inputs, self.links.output = tuple(inputs), output

    def get_config(self):
        """Returns the constructor's arguments."""
        name = None if self.scheme is None else self.scheme.name
        delay = {"quant_delay": self.delay_steps} if self.delay_steps else {}
        return {**super().get_config(), "scheme": name, **delay}

    def output_grid(self) -> Grid | None:
        """Returns the grid of the output; None for a float layer."""
        return None if self.scheme is None else self._linked().output.grid()

    def _scheme(self) -> Scheme:
        if self.scheme is None:
            raise NotQuantizedError("The layer has no quantization scheme.", layer=self.name)
        return self.scheme

    def _linked(self) -> Any:
        if self.links.output is None:
            raise NotQuantizedError(
                "A quantized layer was called outside a quantized model, so that it does not "
                "know the scales of its inputs.",
                layer=self.name,
                fix="Make the model with `keras_qat.quantize_model`.",
            )
        return self.links


class MovesValues(QuantizedLayer):
    """Base class of layers whose operator copies integers: its float forward is exact."""

    shares_range = True

    def float_forward(self, inputs, training=None):
        """Calls the Keras layer."""
        del training
        return super(QuantizedLayer, self).call(inputs)

    def training_forward(self, inputs):
        """Calls the Keras layer: values from the grid stay on the grid."""
        return self.float_forward(inputs, training=True)

    def integer(self, *inputs: Centered, output: Grid):
        """Moves the integers as the float forward moves values; 0 is the zero point."""
        del output
        return self.float_forward(inputs[0].values, training=False)


def center(x, parameters: Parameters | None) -> Centered:
    """Turns the real values of a tensor into the integers that they stand for.

    Args:
        x: float32 tensor of real values, each a multiple of the scale.
        parameters: Its quantization parameters; None leaves `x` as it is.

    Returns:
        The centered integers.
    """
    if parameters is None:
        return Centered(x, None)
    known = (_INTEGERS.get() or {}).get(id(x))
    if known is not None and known[0]() is x:
        return known[1]
    grid = parameters.grid()
    return Centered(ops.round(x / grid.scale), grid)


def real_values(centered: Centered):
    """Returns the real values of centered integers.

    Args:
        centered: The integers and their grid.

    Returns:
        float32 tensor.
    """
    x = centered.values * centered.grid.scale
    key, known = id(x), _INTEGERS.get()
    if known is not None:
        known[key] = weakref.ref(x, lambda _: known.pop(key, None)), centered
    return x
