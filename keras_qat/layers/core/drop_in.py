"""Layers that replace Keras layers, have their names, and are converted from and to them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Self

import keras
from keras import ops

from keras_qat.errors import InvalidModelError, KerasQatError, original_error
from keras_qat.layers.core.activation_names import Activation, activation_name, function_name


class DropIn(keras.layers.Layer):
    """Base class of layers that replace a Keras layer, or a chain of them, in a model's definition.

    Without a name the layer gets the name of the Keras layer, such as `conv2d`.

    Args:
        *args: Arguments of the Keras layer.
        keras_layer: The serialized Keras layer that was converted, if it has no weights and this
            class does not inherit from its class.
        output_name: Name of the output of a model that this layer computes, if not the layer's
            name.
        **kwargs: Keyword arguments of the Keras layer.

    Attributes:
        keras_class: The Keras layer that the class replaces; None if it replaces an operation of
            `keras.ops`.
        is_opened: Whether a rewrite replaces the layer by the Keras layers that it stands for.
    """

    keras_class: Any = None
    is_opened = True

    def __init_subclass__(cls, **kwargs):
        """Sets the Keras layer that a class inherits from, unless the class defines it."""
        super().__init_subclass__(**kwargs)
        inherited = next(base for base in cls.__mro__ if not issubclass(base, DropIn))
        is_own = inherited is keras.layers.Layer or not inherited.__module__.startswith("keras.")
        if not is_own:
            cls.keras_class = inherited

    def __init__(
        self,
        *args,
        name: str | None = None,
        keras_layer: dict[str, Any] | None = None,
        output_name: str | None = None,
        **kwargs,
    ):
        if name is None and self.keras_class is not None:
            name = _default_name(self.keras_class)
        super().__init__(*args, name=name, **kwargs)
        self.keras_layer, self.output_name = keras_layer, output_name

    def __call__(self, *args, **kwargs):
        """Calls the layer as Keras does. Raised errors keep their parts, not only their text."""
        try:
            return super().__call__(*args, **kwargs)
        except KerasQatError as error:
            found = original_error(error)
        raise found

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
        if self.keras_layer is not None:
            return [keras.saving.deserialize_keras_object(self.keras_layer)]
        if self.keras_class is None:
            return None
        layer = remade(self.keras_class, self)
        layer.trainable = self.trainable
        if self.built:
            build_like(layer, self)
            copy_by_path(self, layer)
        return [layer]

    @classmethod
    def from_keras(cls, layers: keras.layers.Layer | Sequence[keras.layers.Layer]) -> Self:
        """Makes the layer that computes a chain of Keras layers, with their weights.

        Args:
            layers: The Keras layer that this class replaces, or a list of that layer and the
                following layers that this class can fuse.

        Returns:
            The layer that `clone_model` would make of them, with the name of the first layer. It
            computes in float32. It is built if the first layer is.

        Raises:
            InvalidModelError: If this class does not replace these layers.

        Example:
        >>> from keras_qat.layers import QDense
        >>> QDense.from_keras([keras.layers.Dense(3, name="head"), keras.layers.ReLU()]).name
        'head'
        """
        is_one = isinstance(layers, keras.layers.Layer)
        chain: list[Any] = [layers] if is_one else list(layers)
        if not chain or type(chain[0]) is not cls.keras_class:
            raise InvalidModelError(
                f"{cls.__name__} does not stand for these layers.",
                layer=chain[0].name if chain else None,
                received=f"{[type(layer).__name__ for layer in chain]}",
                expected=f"a {cls.keras_class.__name__} first" if cls.keras_class else None,
                fix="`keras_qat.clone_model` finds the class for each layer of a model.",
            )
        config = cls.config_of_keras(chain[0], chain[1:])
        layer = cls.from_config({**config, "dtype": "float32"})
        if chain[0].built:
            build_like(layer, chain[0])
            layer.copy_from_keras(chain)
        return layer

    def get_config(self):
        """Returns the constructor's arguments."""
        own = {"keras_layer": self.keras_layer, "output_name": self.output_name}
        known = {name: value for name, value in own.items() if value is not None}
        return {**super().get_config(), **known}

    @classmethod
    def config_of_keras(cls, head: Any, followers: Sequence[Any]) -> dict[str, Any]:
        """Returns the configuration of the layer that replaces a chain of Keras layers.

        Args:
            head: The Keras layer that this class replaces.
            followers: The Keras layers after it.

        Raises:
            InvalidModelError: If this class cannot fuse a follower.
        """
        for follower in followers:
            raise cannot_take_up(cls, follower)
        return head.get_config()

    def copy_from_keras(self, chain: Sequence[Any]) -> None:
        """Copies the weights of the chain of Keras layers that this layer replaces."""
        copy_by_path(chain[0], self)


def cannot_take_up(cls: type, follower: Any) -> InvalidModelError:
    """Returns the error for a Keras layer that cannot be part of a layer."""
    return InvalidModelError(
        f"{cls.__name__} cannot absorb this layer.",
        layer=getattr(follower, "name", None),
        received=f"a {type(follower).__name__}",
        fix="Remove it from the list, and call it after the layer.",
    )


def activation_config(cls: type, follower: Any) -> dict[str, Any]:
    """Returns the arguments of a layer that fuses the activation after it.

    Args:
        cls: Class of the layer.
        follower: A Keras layer or operation.

    Raises:
        InvalidModelError: If the follower cannot be written as an `activation` argument.
    """
    name = activation_name(follower)
    function = getattr(follower, "activation", None) if name == "custom" else name
    if function is None:
        raise cannot_take_up(cls, follower)
    # Names of operations contain a counter of the whole process.
    is_layer = isinstance(follower, keras.layers.Layer) and type(follower) is not Activation
    own = follower.name if is_layer else None
    return {"activation": function, "activation_name": own}


def activation_behind(layer: Any) -> list[keras.layers.Layer]:
    """Returns the activation of a layer as a separate layer, or no layer if it is linear.

    Args:
        layer: A layer with an `activation`, and an `activation_name` or None.
    """
    function = keras.activations.get(layer.activation)
    if function_name(function) == "linear":
        return []
    name = layer.activation_name or f"{layer.name}_{function_name(function)}"
    return [keras.layers.Activation(function, name=name, dtype=layer.dtype_policy)]


def quiet_config(layer: Any, kind: Any = None) -> dict[str, Any]:
    """Returns the configuration of a layer, with the layer's own initializer objects.

    A new initializer without a seed would draw a seed from Python's `random`, which is the user's.

    Args:
        layer: The layer.
        kind: The Keras class of the configuration, by default the class of the layer.
    """
    config = (kind or type(layer)).get_config(layer)
    names = [name for name in config if name.endswith("_initializer")]
    return config | {name: getattr(layer, name, config[name]) for name in names}


def remade(kind: Any, source: Any, **changes: Any) -> Any:
    """Makes a layer from the configuration of another layer, without drawing random numbers.

    Args:
        kind: The class to make. If `source` is a layer of this package, its Keras class.
        source: The layer. A seed that it has drawn becomes the seed of the new layer too.
        **changes: Arguments to change.

    Example:
    >>> remade(keras.layers.Dropout, keras.layers.Dropout(0.5), name="drop").get_config()["seed"]
    """
    own = kind if isinstance(source, kind) else type(source)
    config = quiet_config(source, own) | changes
    is_drawn = "seed" in config and config["seed"] is None
    if is_drawn:
        config["seed"] = _drawn_seed(source)
    layer = kind.from_config(config)
    if is_drawn:
        layer.seed = None  # keeps `seed` as configured when the layer is saved
    return layer


def _drawn_seed(layer: Any) -> int:
    """Returns the seed in the state of a layer's random numbers, or 0 without such a state."""
    weights = {id(weight) for weight in layer.weights}
    states = [variable for variable in layer.variables if id(variable) not in weights]
    return int(ops.convert_to_numpy(states[0])[0]) if states else 0


def build_like(layer: keras.layers.Layer, source: keras.layers.Layer) -> None:
    """Builds a layer for the input shapes of another layer."""
    config = source.get_build_config()
    if config:
        layer.build_from_config(config)


def copy_by_path(source: keras.layers.Layer, target: keras.layers.Layer) -> None:
    """Copies the variables that two layers have under the same path after the layer's name."""

    def tail(layer, variable):
        return variable.path.rpartition(f"{layer.name}/")[2]

    values = {tail(source, variable): variable for variable in source.variables}
    for variable in target.variables:
        if tail(target, variable) in values:
            assign_copy(variable, values[tail(target, variable)])


def assign_copy(target, source) -> None:
    """Copies one variable's value.

    On JAX two variables must never have the same buffer. TensorFlow copies a shared buffer when it
    is written. A copy through numpy would be two copies.
    """
    target.assign(ops.copy(source))


def _default_name(cls: type) -> str:
    """Returns the name that Keras would give to a layer of this class, with Keras's counter."""
    words = re.sub("([a-z])([A-Z])", r"\1_\2", re.sub("(.)([A-Z][a-z]+)", r"\1_\2", cls.__name__))
    count = keras.backend.get_uid(words.lower())
    return words.lower() if count == 1 else f"{words.lower()}_{count - 1}"
