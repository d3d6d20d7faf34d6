"""Conversion between Keras layers and the layers of this package that replace them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_qat.errors import InvalidModelError
from keras_qat.graph.keras_internals import layers_of
from keras_qat.layers.core.activation_names import Activation, activation_name, function_name


def keras_layers_of(layer: Any) -> list[keras.layers.Layer] | None:
    """Returns the Keras layers that a layer stands for, if these depend on its class alone.

    Args:
        layer: A layer with a `keras_class`, and a `keras_layer` or None.
    """
    if layer.keras_layer is not None:
        return [keras.saving.deserialize_keras_object(layer.keras_layer)]
    if layer.keras_class is None:
        return None
    made = remade(layer.keras_class, layer)
    made.trainable = layer.trainable
    if layer.built:
        build_like(made, layer)
        copy_by_path(layer, made)
    return [made]


def with_settings(
    layer: Any, layers: list[keras.layers.Layer] | None
) -> list[keras.layers.Layer] | None:
    """Gives the Keras layers of a layer its penalty, and freezes the first as the layer is.

    The last layer has the penalty, because it computes the output. Layers with weights have their
    own `trainable` already.

    Args:
        layer: A layer of this package.
        layers: The Keras layers, or None.
    """
    if layers and layer.activity_regularizer is not None:
        layers[-1].activity_regularizer = layer.activity_regularizer
    if layers and not layers[0].weights and not layer.trainable:
        layers[0].trainable = False
    return layers


def layer_of_chain(cls: Any, chain: Sequence[Any], **given: Any) -> Any:
    """Makes the layer that computes a chain of Keras layers or operations, without their weights.

    Both `from_keras` and the rewrites make layers with this function.

    Args:
        cls: The class to make.
        chain: The layer or operation that the class replaces, and its followers.
        **given: Arguments that do not follow from the chain, such as the name and the scheme.

    Raises:
        InvalidModelError: If the class cannot compute the chain in one layer.
    """
    head, *followers = chain
    layer = _made(cls, head, {**cls.config_of_keras(head, followers), "dtype": "float32", **given})
    layer.activity_regularizer = _penalty_of(chain)
    if _is_frozen(head):
        layer.trainable = False  # holds the range
    return layer


def _is_frozen(operation: Any) -> bool:
    """Returns whether a layer without weights was frozen. Others are when their weights are."""
    is_layer = isinstance(operation, keras.layers.Layer)
    return is_layer and not operation.trainable and not operation.weights


def _penalty_of(chain: Sequence[Any]) -> Any:
    """Returns the regularizer of the output of a chain. The tensors inside have no penalty."""
    *inside, own = (getattr(each, "activity_regularizer", None) for each in chain)
    for each, penalty in zip(chain, inside, strict=False):
        if penalty is not None:
            raise InvalidModelError(
                "A penalty on a tensor inside a layer cannot be kept.",
                layer=each.name,
                received=f"activity_regularizer={type(penalty).__name__}",
                expected="a penalty on the last layer of the chain only",
                fix="Pass the `activity_regularizer` to the last layer.",
            )
    return own


def layer_from_keras(cls: Any, layers: keras.layers.Layer | Sequence[keras.layers.Layer]) -> Any:
    """Makes a layer of this package from Keras layers, with their weights.

    Args:
        cls: The class to make.
        layers: The Keras layer that the class replaces, or a list of it and its followers.

    Raises:
        InvalidModelError: If the class does not replace these layers.
    """
    is_one = isinstance(layers, keras.layers.Layer)
    chain: list[Any] = [layers] if is_one else list(layers)
    if not chain or type(chain[0]) is not cls.keras_class:
        expected = f"a {cls.keras_class.__name__} first" if cls.keras_class else None
        raise stands_for_others(cls, chain, expected)
    layer = layer_of_chain(cls, chain)
    if chain[0].built:
        build_like(layer, chain[0])
        layer.copy_from_keras(chain)
    return layer


def stands_for_others(cls: type, chain: Sequence[Any], expected: str | None) -> InvalidModelError:
    """Returns the error for Keras layers that a class does not replace.

    Args:
        cls: The class.
        chain: The Keras layers.
        expected: The layers that the class replaces, in words.
    """
    return InvalidModelError(
        f"{cls.__name__} does not stand for these layers.",
        layer=chain[0].name if chain else None,
        received=f"{[type(layer).__name__ for layer in chain]}",
        expected=expected,
        fix="`keras_qat.clone_model` finds the class for each layer of a model.",
    )


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

    Returns:
        No arguments for the identity.

    Raises:
        InvalidModelError: If the follower cannot be written as an `activation` argument.
    """
    name = activation_name(follower)
    if name == "linear":
        return {}
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
    """Returns the configuration of a layer, with its own initializer objects and function.

    A new initializer without a seed would draw a seed from Python's `random`, which is the user's.
    Keras does not load the functions that a user wrote from a configuration.

    Args:
        layer: The layer.
        kind: The Keras class of the configuration, by default the class of the layer.
    """
    config = (kind or type(layer)).get_config(layer)
    names = [name for name in config if name.endswith("_initializer")]
    config |= {name: getattr(layer, name, config[name]) for name in names}
    function = getattr(layer, "activation", None)
    is_function = "activation" in config and not isinstance(function, keras.layers.Layer)
    return config | ({"activation": function} if is_function else {})


def copy_trainable(source: Any, target: Any) -> None:
    """Copies `trainable` of a layer, and of each layer in it that both have.

    Args:
        source: A layer.
        target: A layer of its class, or of a similar one.
    """
    own = {each.name: each.trainable for each in layers_of(source)}
    own[target.name] = source.trainable
    for layer in layers_of(target):  # a layer comes before those in it, which it sets too
        if own.get(layer.name, layer.trainable) != layer.trainable:
            layer.trainable = own[layer.name]


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
    return _made(kind, source, quiet_config(source, own) | changes)


def _made(kind: Any, source: Any, config: dict[str, Any]) -> Any:
    """Makes a layer. A seed that the source has drawn becomes the seed of the new layer too."""
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
        """Returns the path of a variable inside the layer."""
        return variable.path.rpartition(f"{layer.name}/")[2]

    values = {tail(source, variable): variable for variable in source.variables}
    for variable in target.variables:
        if tail(target, variable) in values:
            assign_copy(variable, values[tail(target, variable)])


def copy_variables(source: Any, target: Any) -> None:
    """Copies the variables of a layer with a kernel or a normalization, and its `trainable`."""
    copy_values(source, target)
    target.trainable = source.trainable


def copy_values(source: Any, target: Any) -> None:
    """Copies the variables that both layers have under the same attribute names."""
    names = ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")
    for name in names:
        value = getattr(source, name, None)
        if value is not None:
            assign_copy(getattr(target, name), value)


def assign_copy(target, source) -> None:
    """Copies one variable's value.

    On JAX two variables must never have the same buffer. TensorFlow copies a shared buffer when it
    is written. A copy through numpy would be two copies.
    """
    target.assign(ops.copy(source))


def default_name(cls: type) -> str:
    """Returns the name that Keras would give to a layer of this class, with Keras's counter."""
    words = re.sub("([a-z])([A-Z])", r"\1_\2", re.sub("(.)([A-Z][a-z]+)", r"\1_\2", cls.__name__))
    count = keras.backend.get_uid(words.lower())
    return words.lower() if count == 1 else f"{words.lower()}_{count - 1}"
