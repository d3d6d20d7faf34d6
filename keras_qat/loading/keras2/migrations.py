"""Migrations of layer arguments from Keras 2 to Keras 3: one function for each difference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from keras_qat.errors import InvalidFileError
from keras_qat.loading.keras2.keras1 import Config, merge_layer, rename_arguments

# Old classes to the classes of Keras 3 with the same arguments and weights.
RENAMED = {
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
    "Conv2DTransposeV2": "Conv2DTranspose",
    "GRUV1": "GRU",
    "GRUV2": "GRU",
    "LSTMV1": "LSTM",
    "LSTMV2": "LSTM",
    "SyncBatchNormalization": "BatchNormalization",
    "UnifiedGRU": "GRU",
    "UnifiedLSTM": "LSTM",
}
RECURRENT = ("Bidirectional", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D", "GRU", "LSTM", "RNN")
RECURRENT += ("SimpleRNN",)
_NORMALIZATIONS = ("BatchNormalization", "LayerNormalization", "UnitNormalization")
_NORMALIZATIONS += ("GroupNormalization",)
_RANDOM = ("RandomBrightness", "RandomContrast", "RandomFlip", "RandomRotation")
_RANDOM += ("RandomTranslation", "RandomZoom")
_SPATIAL_DROPOUTS = ("SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D")
_TRANSPOSED = ("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
_UNGROUPED = ("DepthwiseConv1D", "DepthwiseConv2D", "SeparableConv1D", "SeparableConv2D")
_UNGROUPED += (*_TRANSPOSED, "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D")
_OWN_KERNELS = ("DepthwiseConv1D", "DepthwiseConv2D", "SeparableConv1D", "SeparableConv2D")


class Migration(NamedTuple):
    """One difference between Keras 2 and Keras 3.

    Attributes:
        classes: The names of the layers in Keras 3. Empty for all layers.
        apply: Changes the arguments of a layer.
        since: Version of Keras that reads the changed arguments.
        reason: The difference.
    """

    classes: tuple[str, ...]
    apply: Callable[[Config], None]
    since: str
    reason: str


def migrate(class_name: str, config: Config) -> tuple[str, Config]:
    """Converts the arguments of a layer of Keras 1 or 2 to Keras 3.

    Args:
        class_name: Class of the layer in the file.
        config: The arguments in the file.

    Returns:
        The class and the arguments in Keras 3.

    Raises:
        InvalidFileError: If Keras 3 cannot compute what the layer does.

    Example:
    >>> migrate("LeakyReLU", {"name": "block/leaky", "alpha": 0.1})
    ('LeakyReLU', {'name': 'block_leaky', 'negative_slope': 0.1})
    """
    if class_name == "Merge":
        class_name, config = merge_layer(config)
    class_name, config = rename_arguments(class_name, config)
    class_name = RENAMED.get(class_name, class_name)
    for migration in MIGRATIONS:
        if not migration.classes or class_name in migration.classes:
            migration.apply(config)
    return class_name, config


def clean_name(name: Any) -> str:
    """Returns a name without "/", which Keras 3 rejects and old `keras.applications` used.

    Raises:
        InvalidFileError: If `name` is not a name.
    """
    if not isinstance(name, str) or not name:
        raise InvalidFileError("A layer has no name.", received=repr(name)[:80])
    return name.replace("/", "_")


def _clean_name(config: Config) -> None:
    if config.get("name") is not None:
        config["name"] = clean_name(config["name"])


def _drop(*keys: str) -> Callable[[Config], None]:
    """Makes a migration that removes arguments."""

    def drop(config: Config) -> None:
        for key in keys:
            config.pop(key, None)

    return drop


def _rename(old: str, new: str) -> Callable[[Config], None]:
    """Makes a migration that renames an argument."""

    def rename(config: Config) -> None:
        if old in config:
            config[new] = config.pop(old)

    return rename


def _refuse(key: str, harmless: tuple[Any, ...], why: str) -> Callable[[Config], None]:
    """Drops an argument if its value has no effect. Raises at other values."""

    def refuse(config: Config) -> None:
        value = config.pop(key, None)
        if value not in harmless:
            raise InvalidFileError(
                f"Keras 3 cannot do what `{key}` asks for: {why}.",
                layer=config.get("name"),
                received=f"{key}={value!r}",
                expected=" or ".join(f"{value!r}" for value in harmless if value is not None),
            )

    return refuse


def _dtype_policy(config: Config) -> None:
    """Writes a dtype as the name of a policy of Keras 3."""
    policy = config.get("dtype")
    if isinstance(policy, dict):
        policy = (policy.get("config") or {}).get("name")
    if isinstance(policy, str):
        policy = policy.removesuffix("_with_float32_vars")
    if policy in ("infer", "_infer", None):
        config.pop("dtype", None)
    else:
        config["dtype"] = policy


def _whole_axis(config: Config) -> None:
    """Writes a list of one axis as a number."""
    axis = config.get("axis")
    if isinstance(axis, list) and len(axis) == 1:
        config["axis"] = axis[0]


def _plain_numbers(config: Config) -> None:
    """Writes serialized arrays as lists of numbers."""
    for key, value in config.items():
        if isinstance(value, dict) and value.get("type") == "ndarray" and "value" in value:
            config[key] = value["value"]


def _synchronized(config: Config) -> None:
    _refuse("renorm", (None, False), "it has no batch renormalization")(config)
    _refuse("virtual_batch_size", (None,), "it has no virtual batches")(config)
    _refuse("adjustment", (None,), "it has no such function")(config)
    _drop("fused", "renorm_clipping", "renorm_momentum")(config)


def _no_random_crop(config: Config) -> None:
    raise InvalidFileError(
        "Keras 3 cannot do what this layer does: at inference its `RandomCrop` does not crop.",
        layer=config.get("name"),
        received="a RandomCrop",
        expected="images of a fixed size",
        fix="Take the layer out of the model, or put `Resizing` or `CenterCrop` in its place.",
    )


MIGRATIONS: tuple[Migration, ...] = (
    Migration((), _clean_name, "3.0", "A name must not have a slash in it."),
    Migration((), _plain_numbers, "2.3", "Numbers were written with their NumPy type."),
    Migration((), _dtype_policy, "3.0", "A policy was an object of another form, or `infer`."),
    Migration(
        (),
        _drop("batch_input_shape", "input_shape", "batch_shape", "expects_training_arg", "dynamic"),
        "3.0",
        "An `InputLayer` has the shape of the input; layers have no such arguments.",
    ),
    Migration(_NORMALIZATIONS, _whole_axis, "3.0", "An axis is a number, not a list of one."),
    Migration(("BatchNormalization",), _synchronized, "3.0", "There is no renormalization."),
    Migration(
        _UNGROUPED,
        _refuse("groups", (None, 1), "this layer has no groups"),
        "3.0",
        "A depthwise, separable or transposed convolution has no `groups`.",
    ),
    Migration(
        _OWN_KERNELS,
        _drop("kernel_initializer", "kernel_regularizer", "kernel_constraint"),
        "3.0",
        "It has no kernel of that name.",
    ),
    Migration(("DepthwiseConv1D", "DepthwiseConv2D"), _drop("filters"), "3.0", "It has none."),
    Migration(("LeakyReLU",), _rename("alpha", "negative_slope"), "3.0", "It was renamed."),
    Migration(_SPATIAL_DROPOUTS, _drop("noise_shape"), "3.0", "It follows from the layer."),
    Migration(
        (*_SPATIAL_DROPOUTS, "Discretization", "HashedCrossing"),
        _drop("trainable"),
        "3.0",
        "It has no weights, and no such argument.",
    ),
    Migration(_RANDOM, _drop("rng_type"), "3.0", "There is one kind of generator."),
    Migration(("RandomCrop",), _no_random_crop, "never", "It does not crop at inference."),
    Migration(("Embedding",), _drop("input_length"), "3.0", "It follows from the input."),
    Migration(
        ("MultiHeadAttention",),
        _drop("query_shape", "key_shape", "value_shape", "softmax_robust_masking"),
        "3.0",
        "The layer is built by its first call.",
    ),
    Migration(
        ("Attention", "AdditiveAttention"),
        _refuse("causal", (None, False), "pass `use_causal_mask` in the call"),
        "3.0",
        "A causal mask is an argument of the call.",
    ),
    Migration(RECURRENT, _drop("implementation"), "3.0", "There is one implementation."),
    Migration(
        RECURRENT,
        _refuse("time_major", (None, False), "time is the second axis"),
        "3.0",
        "The first axis is the batch.",
    ),
    Migration(
        ("GRUCell", "LSTMCell", "SimpleRNNCell"), _drop("implementation"), "3.0", "As above."
    ),
)
