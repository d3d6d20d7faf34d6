"""Renames the arguments of Keras 1 to their names in Keras 2."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from keras_qat.errors import InvalidFileError

Config = dict[str, Any]

# Classes of Keras 1 to classes of Keras 2 and 3.
CLASSES = {
    "AtrousConvolution1D": "Conv1D",
    "AtrousConvolution2D": "Conv2D",
    "Convolution1D": "Conv1D",
    "Convolution2D": "Conv2D",
    "Convolution3D": "Conv3D",
    "Deconvolution2D": "Conv2DTranspose",
    "SeparableConvolution2D": "SeparableConv2D",
}
# Old argument to new argument, in all classes.
ARGUMENTS = {
    "atrous_rate": "dilation_rate",
    "b_constraint": "bias_constraint",
    "b_regularizer": "bias_regularizer",
    "beta_init": "beta_initializer",
    "bias": "use_bias",
    "border_mode": "padding",
    "depthwise_init": "depthwise_initializer",
    "dim_ordering": "data_format",
    "filter_length": "kernel_size",
    "gamma_init": "gamma_initializer",
    "nb_filter": "filters",
    "pool_length": "pool_size",
    "subsample": "strides",
    "subsample_length": "strides",
    "W_constraint": "kernel_constraint",
    "W_regularizer": "kernel_regularizer",
}
# Old argument to new argument, by class, if the name has another meaning in other classes.
_OWN_ARGUMENTS: dict[str, dict[str, str]] = {
    "AveragePooling1D": {"stride": "strides"},
    "Dense": {"output_dim": "units", "init": "kernel_initializer"},
    "Dropout": {"p": "rate"},
    "Embedding": {"init": "embeddings_initializer"},
    "GaussianDropout": {"p": "rate"},
    "GaussianNoise": {"sigma": "stddev"},
    "MaxPooling1D": {"stride": "strides"},
    "PReLU": {"init": "alpha_initializer"},
    "SpatialDropout1D": {"p": "rate"},
    "SpatialDropout2D": {"p": "rate"},
    "SpatialDropout3D": {"p": "rate"},
    "UpSampling1D": {"length": "size"},
}
_DROPPED = ("consume_less", "input_dtype", "input_length", "W_learning_rate", "b_learning_rate")
_DATA_FORMATS = {"tf": "channels_last", "th": "channels_first"}
_RECURRENT = ("GRU", "LSTM", "SimpleRNN", "ConvLSTM2D")
_ABSENT = ("Highway", "MaxoutDense", "TimeDistributedDense")


def rename_arguments(class_name: str, config: Config) -> tuple[str, Config]:
    """Converts a layer of Keras 1 to Keras 2. A layer of Keras 2 is not changed.

    Args:
        class_name: Its class.
        config: Its arguments.

    Returns:
        The class and the arguments in Keras 2.

    Raises:
        InvalidFileError: If Keras 2 has no such layer.
    """
    _refuse(class_name, config)
    new_class = CLASSES.get(class_name, class_name)
    own = _OWN_ARGUMENTS.get(new_class, {})
    if new_class.startswith(("Conv", "Separable")):
        own = {"init": "kernel_initializer"}
    renamed = {own.get(key, ARGUMENTS.get(key, key)): value for key, value in config.items()}
    for key in _DROPPED:
        renamed.pop(key, None)
    for write in _REWRITES:
        write(new_class, renamed)
    return new_class, renamed


def _refuse(class_name: str, config: Config) -> None:
    name = config.get("name")
    if class_name in _ABSENT:
        raise InvalidFileError(
            "Keras 3 has no such layer.", layer=name, received=f"a {class_name} of Keras 1"
        )
    if class_name in _RECURRENT and "output_dim" in config:
        raise InvalidFileError(
            "The weights of recurrent layers of Keras 1 have another layout, which cannot be read.",
            layer=name,
            received=f"a {class_name}",
            fix="Load it with Keras 2.2 and save it again.",
        )
    if config.get("dim_ordering") == "th":
        raise InvalidFileError(
            "The kernels of a Theano model are flipped, and its images have channels first.",
            layer=name,
            received="dim_ordering 'th'",
            expected="'tf'",
            fix="Convert it with Keras 1 or 2: `keras.utils.conv_utils.convert_kernel`.",
        )
    if config.get("mode", 0) != 0 and class_name == "BatchNormalization":
        raise InvalidFileError(
            "Keras 3 has no such batch normalization.",
            layer=name,
            received=f"mode {config['mode']}",
            expected="mode 0",
        )


def _write_kernel_size(class_name: str, config: Config) -> None:
    sides = [key for key in ("kernel_dim1", "kernel_dim2", "kernel_dim3") if key in config]
    sides = sides or [key for key in ("nb_row", "nb_col") if key in config]
    if sides:
        config["kernel_size"] = [config.pop(key) for key in sides]


def _write_data_format(class_name: str, config: Config) -> None:
    if config.get("data_format") in _DATA_FORMATS:
        config["data_format"] = _DATA_FORMATS[config["data_format"]]


def _write_objects(class_name: str, config: Config) -> None:
    for key, value in config.items():
        if key.endswith(("_regularizer", "_constraint")) and isinstance(value, dict):
            config[key] = _written_object(value)


def _written_object(value: Config) -> Config:
    """Converts `{"name": "MaxNorm", "m": 2}` to `{"class_name": ..., "config": ...}`."""
    if "name" not in value or "class_name" in value:
        return value
    arguments = {("max_value" if k == "m" else k): v for k, v in value.items() if k != "name"}
    kinds = {"WeightRegularizer": "L1L2", "ActivityRegularizer": "L1L2", "NonNeg": "NonNeg"}
    return {"class_name": kinds.get(value["name"], value["name"]), "config": arguments}


def _drop_mode(class_name: str, config: Config) -> None:
    if class_name == "BatchNormalization":
        config.pop("mode", None)


def _write_output_shape(class_name: str, config: Config) -> None:
    if class_name == "Conv2DTranspose":
        config.pop("output_shape", None)  # Keras 3 computes it


_REWRITES: tuple[Callable[[str, Config], None], ...] = (
    _write_kernel_size,
    _write_data_format,
    _write_objects,
    _drop_mode,
    _write_output_shape,
)

# `mode` of a `Merge` to the equivalent layer.
_MERGES: Mapping[str, str] = {
    "ave": "Average",
    "concat": "Concatenate",
    "dot": "Dot",
    "max": "Maximum",
    "mul": "Multiply",
    "sum": "Add",
}


def merge_layer(config: Config) -> tuple[str, Config]:
    """Converts a `Merge` of Keras 1 to the equivalent layer of Keras 2.

    Args:
        config: Its arguments.

    Raises:
        InvalidFileError: If there is no equivalent layer.
    """
    mode, name = str(config.get("mode")), config.get("name")
    if mode not in _MERGES or config.get("layers"):
        raise InvalidFileError(
            "Keras 3 has no layer for this `Merge`.",
            layer=name,
            received=f"mode {mode!r}" + (" of branches" if config.get("layers") else ""),
            expected=f"one of {list(_MERGES)}, in a model with a graph",
        )
    arguments: Config = {"name": name}
    if mode == "concat":
        arguments["axis"] = config.get("concat_axis", -1)
    if mode == "dot":
        arguments["axes"] = config.get("dot_axes", -1)
    return _MERGES[mode], arguments
