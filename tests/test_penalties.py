"""Regularizers and constraints of weights, in models with the same weights in other layers."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_qat
from keras_qat.errors import OwnTrainingWarning

KERNEL = {"kernel_regularizer": "l2", "bias_regularizer": "l1"}
MEMORY = {**KERNEL, "recurrent_regularizer": "l2"}
NORM = {"gamma_regularizer": "l2", "beta_regularizer": "l1"}


@keras.saving.register_keras_serializable("keras_qat_tests")
class _Weighted(layers.Layer):
    """A product with a kernel, a vector and a table, each penalized."""

    def build(self, shape):
        """Makes the weights."""
        self.kernel = self.add_weight(shape=(shape[-1], 4), regularizer="l2", name="kernel")
        self.vector = self.add_weight(shape=(4,), regularizer="l1", name="vector")
        self.table = self.add_weight(shape=(shape[1], 4), regularizer="l2", name="table")

    def call(self, x):
        """Multiplies and adds."""
        return (ops.matmul(x, self.kernel) + 1.0 - self.vector) * 0.5 + self.table


@keras.saving.register_keras_serializable("keras_qat_tests")
class _Normalized(layers.Layer):
    """A normalization with penalized factors and offsets."""

    def build(self, shape):
        """Makes the weights."""
        self.gamma = self.add_weight(shape=shape[-1:], regularizer="l2", name="gamma")
        self.beta = self.add_weight(shape=shape[-1:], regularizer="l1", name="beta")

    def call(self, x):
        """Normalizes."""
        return ops.layer_normalization(x, self.gamma, self.beta, axis=-1)


class _Scaled(layers.Layer):
    """A product with one penalized number, or with a function of it."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def build(self, shape):
        """Makes the weight."""
        del shape
        self.factor = self.add_weight(shape=(), regularizer="l2", initializer="ones", name="factor")

    def call(self, x):
        """Multiplies."""
        return x * self.function(self.factor)


# The layer, and the shape of a sample.
KEPT = {
    "dense": (lambda: layers.Dense(4, **KERNEL), (8,)),
    "einsum": (lambda: layers.EinsumDense("abc,bd->adc", (4, 8), bias_axes="d", **KERNEL), (5, 8)),
    "layer_normalization": (lambda: layers.LayerNormalization(**NORM), (5, 8)),
    "group_normalization": (lambda: layers.GroupNormalization(2, **NORM), (5, 8)),
    "lstm": (lambda: layers.LSTM(3, **MEMORY), (3, 4)),
    "gru": (lambda: layers.GRU(3, **MEMORY), (3, 4)),
    "weights_of_a_custom_layer": (_Weighted, (5, 8)),
    "normalization_of_a_custom_layer": (_Normalized, (5, 8)),
}


def _model(layer: keras.layers.Layer, shape: tuple[int, ...]) -> keras.Model:
    model = keras.Sequential([keras.Input(shape), layer])
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(rng.uniform(0.1, 1.0, variable.shape))
    return model


def _penalty(model: keras.Model) -> float:
    return sum(float(ops.convert_to_numpy(each)) for each in model.losses)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", KEPT)
def test_penalties_on_weights_are_kept(name, tmp_path):
    make, shape = KEPT[name]
    model = _model(make(), shape)
    with warnings.catch_warnings():
        warnings.simplefilter("error", OwnTrainingWarning)
        qat = keras_qat.quantize_model(model)
    qat.save(tmp_path / "qat.keras")
    loaded = keras.saving.load_model(tmp_path / "qat.keras")
    expected = pytest.approx(_penalty(model), rel=1e-5)
    assert [_penalty(qat), _penalty(loaded), _penalty(keras_qat.clone_model(model))] == [
        expected
    ] * 3


# One number for all channels becomes one for each, whose penalty would be larger.
@pytest.mark.parametrize("function", [ops.convert_to_tensor, ops.softplus])
def test_lost_penalty_is_said(function):
    model = _model(_Scaled(function), (5, 8))
    with pytest.warns(OwnTrainingWarning, match="lacks a regularizer of .*factor"):
        qat = keras_qat.quantize_model(model)
    assert not qat.losses


def test_lost_constraint_is_said():
    model = _model(layers.LSTM(3, recurrent_constraint="non_neg"), (3, 4))
    with pytest.warns(OwnTrainingWarning, match="lacks a constraint of .*recurrent_kernel"):
        keras_qat.quantize_model(model)


def test_constraint_of_a_kernel_is_kept():
    model = _model(layers.Dense(3, kernel_constraint="non_neg"), (4,))
    with warnings.catch_warnings():
        warnings.simplefilter("error", OwnTrainingWarning)
        qat = keras_qat.quantize_model(model)
    assert [type(each.constraint).__name__ for each in qat.trainable_variables] == [
        "NonNeg",
        "NoneType",
    ]
