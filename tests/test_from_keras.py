"""from_keras and the rewrites make the same layers of the same Keras layers."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import keras_qat
from keras_qat import layers as ours
from keras_qat.errors import InvalidModelError, UnsupportedLayerError
from keras_qat.layers import QuantizedLayer
from keras_qat.targets import DEFAULT_TARGET
from tests.layers.cases import first_of_each
from tests.layers.test_contract import CASES
from tests.models import called, randomized
from tests.quick import some_quick


def config_of(layer):
    """The configuration, except for what another layer or the model gives it."""
    config = layer.get_config()
    function = getattr(layer, "activation", None)
    if config.get("activation_name") == f"{layer.name}_{getattr(function, '__name__', function)}":
        config["activation_name"] = None
    return {name: value for name, value in config.items() if name != "output_name"}


def layers_to_convert(case):
    """The layers of a clone, each with the Keras layers that it stands for."""
    if case.target != DEFAULT_TARGET:
        return  # clones are made for no target
    clone = keras_qat.clone_model(case.build(), activations=case.activations)
    for layer in clone.layers:
        chain = layer.to_keras() if isinstance(layer, QuantizedLayer) else None
        if chain and type(chain[0]) is layer.keras_class and layer.keras_layer is None:
            yield layer, chain


@pytest.mark.one_in(8)
@pytest.mark.parametrize("case", first_of_each(CASES, QuantizedLayer))
def test_from_keras_makes_what_clone_model_makes(case):
    for layer, chain in layers_to_convert(case):
        made = type(layer).from_keras(chain)
        assert config_of(made) == config_of(layer)
        for mine, other in zip(made.weights, layer.weights, strict=True):
            assert mine.path == other.path
            np.testing.assert_array_equal(np.array(mine), np.array(other))


def doubled(x):
    """An activation that a user wrote."""
    return 2.0 * keras.ops.relu(x)


# Arguments of the first layer of a chain, and functions that make its followers.
Chain = tuple[Mapping[str, Any], Sequence[Callable[..., Any]]]
PENALTY = {"activity_regularizer": "l2"}
HALF = {"dtype": "mixed_bfloat16"}
with_arguments = functools.partial
NORM, RELU = layers.BatchNormalization, layers.ReLU

NAMES = (
    "relu",
    "relu6",
    "swish",
    "softplus",
    "gelu",
    "leaky_relu",
    "hard_swish",
    "sigmoid",
    "tanh",
)
ACTIVATIONS: dict[str, Any] = {
    name: ({"activation": name}, []) for name in (*NAMES, "softmax", "linear")
} | {
    "function": ({"activation": keras.activations.relu}, []),
    "own_function": ({"activation": doubled}, []),
    "layer": ({"activation": RELU(6.0, name="six")}, []),
    "layer_with_slope": ({"activation": layers.LeakyReLU(0.2, name="sloped")}, []),
}
OF_ALL: dict[str, Chain] = {
    "plain": ({}, []),
    "penalty": (PENALTY, []),
    "frozen": ({"trainable": False}, []),
    "half": (HALF, []),
}
FOLLOWERS: dict[str, Chain] = {
    "then_relu": ({}, [RELU]),
    "then_relu6": ({}, [with_arguments(RELU, 6.0)]),
    "then_activation": ({}, [with_arguments(layers.Activation, "relu")]),
    "then_softplus": ({}, [with_arguments(layers.Activation, "softplus")]),
    "then_layer": ({}, [with_arguments(layers.Activation, RELU(6.0, name="inner"))]),
    "then_penalty": ({}, [with_arguments(layers.Activation, "relu", **PENALTY)]),
    "then_linear": ({}, [with_arguments(layers.Activation, "linear")]),
    "then_identity": ({}, [layers.Identity]),
}
NORMS: dict[str, Chain] = {
    "norm": ({}, [NORM]),
    "norm_relu": ({}, [NORM, RELU]),
    "norm_swish": ({}, [NORM, with_arguments(layers.Activation, "swish")]),
    "norm_penalty": ({}, [with_arguments(NORM, **PENALTY)]),
    "norm_relu_penalty": ({}, [NORM, with_arguments(RELU, **PENALTY)]),
    "norm_frozen": ({}, [with_arguments(NORM, trainable=False)]),
    "frozen_norm": ({"trainable": False}, [NORM, RELU]),
    "all_frozen": ({"trainable": False}, [with_arguments(NORM, trainable=False)]),
    "norm_half": (HALF, [with_arguments(NORM, **HALF)]),
    "norm_arguments": (
        {},
        [with_arguments(NORM, momentum=0.5, epsilon=0.1, center=False, gamma_regularizer="l2")],
    ),
}
OPERATORS = OF_ALL | FOLLOWERS


def of_kernels(*kernels: str, bias: Any = None, lora: bool = False) -> dict[str, Chain]:
    """The chains of a layer with kernels of these names."""
    no_bias = {"use_bias": False} if bias is None else {"bias_axes": None}
    weights: dict[str, Any] = {"bias_regularizer": "l1", "bias_initializer": "ones"}
    for kernel in kernels:
        weights |= {f"{kernel}_regularizer": "l2", f"{kernel}_initializer": "he_normal"}
        if bias is None:  # a kernel for any axes is reshaped, and loses its constraint
            weights[f"{kernel}_constraint"] = keras.constraints.MaxNorm(0.5)
    found = OPERATORS | ACTIVATIONS | NORMS
    found |= {"weights": (weights, []), "no_bias": (no_bias, []), "no_bias_norm": (no_bias, [NORM])}
    found["penalty_relu"] = {**PENALTY, "activation": "relu"}, []
    if lora:
        found["lora"] = {"lora_rank": 2, "lora_alpha": 3}, []
    return found


@dataclasses.dataclass(frozen=True)
class Kind:
    """A drop-in class, the Keras layer that it replaces, and the chains of the test.

    Attributes:
        theirs: Makes the Keras layer from `name` and other arguments.
        shapes: Shape of each input.
        chains: The chains by name.
    """

    theirs: Callable[..., Any]
    shapes: Sequence[tuple[int, ...]]
    chains: Mapping[str, Chain]
    dtype: str = "float32"


def kind(theirs: Any, shape: tuple[int, ...], *args: Any, chains: Any = None) -> Kind:
    """A kind of one input. The layer has a kernel unless the chains are given."""
    return Kind(functools.partial(theirs, *args), [shape], chains or of_kernels("kernel"))


def merging(theirs: Any) -> Kind:
    return Kind(theirs, [(4, 3), (4, 3)], OPERATORS)


IMAGE, STEPS = (5, 4, 3), (5, 3)
SEPARABLE, DEPTHWISE = of_kernels("depthwise", "pointwise"), of_kernels("depthwise")
DENSE, EINSUM = of_kernels("kernel", lora=True), of_kernels("kernel", bias="d", lora=True)
KINDS = {
    ours.QDense: kind(layers.Dense, (4,), 3, chains=DENSE),
    ours.QAdd: merging(layers.Add),
    ours.QConv2D: kind(layers.Conv2D, IMAGE, 3, 2),
    ours.QSeparableConv1D: kind(layers.SeparableConv1D, STEPS, 3, 2, chains=SEPARABLE),
    ours.QConv1D: kind(layers.Conv1D, STEPS, 3, 2),
    ours.QBatchNormalization: kind(NORM, STEPS, chains=OPERATORS),
    ours.QEinsumDense: Kind(
        lambda **kwargs: layers.EinsumDense(
            "abc,cd->abd", (None, 3), **{"bias_axes": "d", **kwargs}
        ),
        [STEPS],
        EINSUM,
    ),
    ours.QDepthwiseConv2D: kind(layers.DepthwiseConv2D, IMAGE, 2, chains=DEPTHWISE),
    ours.QConv2DTranspose: kind(layers.Conv2DTranspose, IMAGE, 3, 2),
    ours.QMultiply: merging(layers.Multiply),
    ours.QSeparableConv2D: kind(layers.SeparableConv2D, IMAGE, 3, 2, chains=SEPARABLE),
    ours.QDepthwiseConv1D: kind(layers.DepthwiseConv1D, STEPS, 2, chains=DEPTHWISE),
    ours.QConv1DTranspose: kind(layers.Conv1DTranspose, STEPS, 3, 2),
    ours.QSubtract: merging(layers.Subtract),
    ours.QMaximum: Kind(layers.Maximum, [(4, 3), (4, 3)], OF_ALL),
    ours.QPReLU: kind(layers.PReLU, STEPS, chains=OF_ALL),
    ours.QReLU: kind(RELU, STEPS, chains=OF_ALL | {"six": ({"max_value": 6.0}, [])}),
    ours.QSoftmax: kind(layers.Softmax, STEPS, chains=OF_ALL),
    ours.QConcatenate: Kind(layers.Concatenate, [(4, 3), (4, 3)], OF_ALL),
    ours.QMaxPooling2D: kind(layers.MaxPooling2D, IMAGE, chains=OF_ALL),
    ours.QGlobalAveragePooling1D: kind(layers.GlobalAveragePooling1D, STEPS, chains=OF_ALL),
    ours.QDropout: kind(layers.Dropout, STEPS, 0.5, chains=OF_ALL),
    ours.QEmbedding: Kind(
        functools.partial(layers.Embedding, 5, 3),
        [(4,)],
        OF_ALL
        | {"lora": ({"lora_rank": 2}, []), "weights": ({"embeddings_regularizer": "l2"}, [])},
        "int32",
    ),
}
# The places of classes whose models are small, or that stand for others.
QUICK = 0, 1, *range(14, len(KINDS))


def layers_of(theirs: Callable[..., Any], name: str, chain: Chain) -> list[Any]:
    """Makes the Keras layers of a chain."""
    arguments, followers = chain
    behind = [make(name=f"{name}_{i}") for i, make in enumerate(followers)]
    return [theirs(name=name, **arguments), *behind]


def model_of(kind: Kind, chains: Mapping[str, list[Any]]) -> keras.Model:
    """Makes a model with a branch for each chain."""
    inputs, outputs = [], []
    for name, chain in chains.items():
        own = [
            keras.Input(shape, dtype=kind.dtype, name=f"{name}_x{i}")
            for i, shape in enumerate(kind.shapes)
        ]
        y = own if len(own) > 1 else own[0]
        for layer in chain:
            y = layer(y)
        inputs += own
        outputs.append(y)
    return keras.Model(inputs, outputs)


def facts_of(layer: QuantizedLayer, left_out: Sequence[str] = ()) -> dict[str, Any]:
    """The configuration, and the properties and values of each weight but those of ranges."""
    left_out = ("output_name", "keras_layer", "activation_name", *left_out)
    facts = {name: value for name, value in layer.get_config().items() if name not in left_out}
    ranges = {id(each) for observer in layer.observers().values() for each in observer.weights}
    for weight in layer.weights:
        if id(weight) in ranges:
            continue
        *_, owner, name = weight.path.split("/")
        rules = [
            rule and (type(rule), rule.get_config())
            for rule in (weight.regularizer, weight.constraint)
        ]
        value = keras.ops.convert_to_numpy(weight)
        facts[f"{owner}/{name}"] = weight.trainable, *rules, value.tolist()
    return facts


def layers_by_name(model: keras.Model) -> dict[str, dict[str, Any]]:
    return {each.name: facts_of(each) for each in model.layers if isinstance(each, QuantizedLayer)}


# What only the model knows.
OF_MODELS = ("scheme", "target", "range_rule", "weight_range_rule", "fixed_batch")


@pytest.mark.parametrize("cls", some_quick(KINDS, *QUICK))
def test_from_keras_and_quantize_model_make_the_same_layers(cls):
    kind = KINDS[cls]
    chains = {name: layers_of(kind.theirs, name, chain) for name, chain in kind.chains.items()}
    plain = randomized(model_of(kind, chains))
    made = {name: cls.from_keras(chain) for name, chain in chains.items()}
    blocks = model_of(kind, {name: [layer] for name, layer in made.items()})
    data = [np.random.default_rng(0).integers(0, 5, (2, *x.shape[1:])) for x in plain.inputs]
    for mine, other, name in zip(called(blocks, data), called(plain, data), chains, strict=True):
        tolerance = 0.1 if "half" in name else 1e-5
        np.testing.assert_allclose(
            mine, other.astype("float32"), tolerance, tolerance, err_msg=name
        )
    quantized, again = keras_qat.quantize_model(plain), keras_qat.quantize_model(blocks)
    assert layers_by_name(again) == layers_by_name(quantized)
    alone = set()
    for name, chain in chains.items():
        names = {layer.name for layer in chain}
        own = [x for x in quantized.layers if names & {*quantized.origins.get(x.name, ())}]
        if list(map(type, own)) == [cls]:
            alone.add(name)
            assert facts_of(made[name], OF_MODELS) == facts_of(own[0], OF_MODELS), name
    assert bool(alone) == bool(cls.activation_bits)


@pytest.mark.parametrize(
    "arguments",
    [
        {"activation": "sparsemax"},
        {"activity_regularizer": keras.regularizers.OrthogonalRegularizer()},
    ],
)
def test_block_of_from_keras_raises_the_error_of_the_keras_layer(arguments):
    layer = layers.Dense(3, name="own", **arguments)
    inputs = keras.Input((4,), name="x")
    plain = keras.Model(inputs, layer(inputs))
    blocks = keras.Model(inputs, ours.QDense.from_keras(layer)(inputs))
    with pytest.raises(UnsupportedLayerError, match="Layer: 'own'") as expected:
        keras_qat.quantize_model(plain)
    with pytest.raises(UnsupportedLayerError) as found:
        keras_qat.quantize_model(blocks)
    assert str(found.value) == str(expected.value)


@pytest.mark.parametrize(
    ("cls", "layer"), [(ours.QReLU, RELU(3.0)), (ours.QSoftmax, layers.Softmax(1))]
)
def test_from_keras_refuses_arguments_that_the_class_does_not_have(cls, layer):
    with pytest.raises(InvalidModelError, match=f"Layer: '{layer.name}'.*clone_model"):
        cls.from_keras(layer)
