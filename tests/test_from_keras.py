"""from_keras makes the layers that clone_model makes."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_qat
from keras_qat.layers import QuantizedLayer
from keras_qat.targets import DEFAULT_TARGET
from tests.layers.cases import first_of_each
from tests.layers.test_contract import CASES
from tests.models import randomized


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


@pytest.mark.one_in(2)
@pytest.mark.parametrize("case", first_of_each(CASES, QuantizedLayer))
def test_from_keras_makes_what_clone_model_makes(case):
    for layer, chain in layers_to_convert(case):
        made = type(layer).from_keras(chain)
        assert config_of(made) == config_of(layer)
        for mine, other in zip(made.weights, layer.weights, strict=True):
            assert mine.path == other.path
            np.testing.assert_array_equal(np.array(mine), np.array(other))


def test_cases_convert_every_layer_with_a_kernel():
    missing = {"QConv1D", "QConv2D", "QDepthwiseConv1D", "QDepthwiseConv2D", "QDense"}
    missing |= {"QConv1DTranspose", "QConv2DTranspose", "QBatchNormalization", "QEmbedding"}
    for case in CASES:
        if missing & {cls.__name__ for cls in case.covers}:
            missing -= {type(layer).__name__ for layer, _ in layers_to_convert(case)}
    assert not missing


CHAINS = {
    "low_rank": lambda: [layers.Dense(3, lora_rank=2, name="own")],
    "half_precision": lambda: [
        layers.Dense(3, dtype="mixed_bfloat16", name="own"),
        layers.BatchNormalization(dtype="mixed_bfloat16", name="norm"),
        layers.ReLU(name="act"),
    ],
    "frozen_kernel": lambda: [
        layers.Dense(3, trainable=False, name="own"),
        layers.BatchNormalization(name="norm"),
    ],
    "relu": lambda: [layers.Dense(3, activation="relu", name="own")],
    "relu_after": lambda: [layers.Dense(3, name="own"), layers.Activation("relu6", name="act")],
}


@pytest.mark.parametrize("name", CHAINS)
def test_from_keras_makes_the_dense_layer_that_clone_model_makes(name):
    model = randomized(keras.Sequential([keras.Input((4,), name="x"), *CHAINS[name]()]))
    (layer,) = (x for x in keras_qat.clone_model(model).layers if isinstance(x, QuantizedLayer))
    made = type(layer).from_keras(model.layers)
    assert config_of(made) == config_of(layer)
    for mine, other in zip(made.weights, layer.weights, strict=True):
        np.testing.assert_array_equal(np.array(mine), np.array(other))


@pytest.mark.parametrize("arguments", [{"activation": "softplus"}, {"activity_regularizer": "l2"}])
def test_from_keras_makes_a_block_that_clone_model_opens_as_the_keras_layer(arguments):
    """The driver makes two layers of each, which one block cannot be."""
    model = keras.Sequential(
        [keras.Input((4,), name="x"), layers.Dense(3, name="own", **arguments)]
    )
    block = keras_qat.layers.QDense.from_keras(model.layers[0])
    ours = keras.Sequential([keras.Input((4,), name="x"), block])
    clones = [keras_qat.clone_model(each) for each in (model, ours)]
    configs = [[layer.get_config() for layer in clone.layers] for clone in clones]
    assert configs[0] == configs[1]
