"""Cases of the contract that every rule must satisfy, and builders of their models."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import pytest

import keras_qat
from keras_qat.layers.kernels.weighted import WeightedLayer
from keras_qat.targets import DEFAULT_TARGET


def normal_data(model: keras.Model, rng: np.random.Generator, batch: int) -> list[np.ndarray]:
    """Returns one array for each input, each with its own spread and offset."""
    shapes = [(batch, *tensor.shape[1:]) for tensor in model.inputs]
    return [
        (rng.normal(0.3 * i, 1 + 2 * i, shape)).astype("float32") for i, shape in enumerate(shapes)
    ]


def randomize(model: keras.Model, rng: np.random.Generator) -> None:
    """Sets all weights: channels of different size, zero and negative gammas, random statistics."""
    for weight in model.weights:
        shape, kind = weight.shape, weight.path.rpartition("/")[2]
        value = rng.normal(size=shape)
        if kind == "kernel":
            value = rng.normal(size=shape) * np.exp(rng.normal(size=shape[-1])) / 4
        elif kind == "moving_variance":
            value = np.exp(rng.normal(0, 2, shape))
        elif kind == "gamma":
            value[0] = 0.0
            value[1:2] = -0.7
        if np.issubdtype(weight.dtype, np.floating):
            weight.assign(value)


@dataclasses.dataclass(frozen=True)
class Case:
    """A small Keras model that exercises one rule.

    Attributes:
        name: The name of the case in pytest.
        covers: The quantized layers under test. Each must occur in the quantized model.
        build: Makes the Keras model. Several branches in one model are cheaper than several models.
        steps: The largest difference between the training forward and the integers, in steps
            of the tensor. None if training draws random numbers.
        no_gradient: Suffixes of the paths of weights whose gradient is correctly zero.
        prepare: Sets the weights.
        data: Makes the inputs at a scale of 1.
        least_scale: The smallest factor of the data that the kernels accept.
        greatest_scale: The largest factor of the data that the function accepts.
        activations: The argument `activations` of `quantize_model`.
        target: The target that chooses the form of the layers. The kernels are the default ones.
    """

    name: str
    covers: tuple[type[keras_qat.layers.QuantizedLayer], ...]
    build: Callable[[], keras.Model]
    steps: int | None = 1
    no_gradient: tuple[str, ...] = ()
    prepare: Callable[[keras.Model, np.random.Generator], None] = randomize
    data: Callable[[keras.Model, np.random.Generator, int], list[np.ndarray]] = normal_data
    least_scale: float = 0.0
    greatest_scale: float = np.inf
    activations: str = "exact"
    target: str = DEFAULT_TARGET


def branches(
    shape: Sequence[int], *chains: Sequence[Any], prefix: str = "b"
) -> Callable[[], keras.Model]:
    """Makes a builder of a model with one input and several chains of layers on it.

    Args:
        shape: Shape of the input, without the batch.
        *chains: Sequences of functions that return a layer. The layers are named b0_0, b0_1
            and so on.
        prefix: The first letters of the names, instead of b.
    """

    def build():
        inputs = keras.Input(shape)
        outputs = []
        for i, chain in enumerate(chains):
            x = inputs
            for j, make in enumerate(chain):
                x = make(name=f"{prefix}{i}_{j}")(x)
            outputs.append(x)
        return keras.Model(inputs, outputs)

    return build


def together(*builders: Callable[[], keras.Model]) -> Callable[[], keras.Model]:
    """Makes a builder of one model with the inputs and outputs of several models."""

    def build():
        models = [build() for build in builders]
        inputs = [tensor for model in models for tensor in model.inputs]
        return keras.Model(inputs, [tensor for model in models for tensor in model.outputs])

    return build


def layer(cls: Any, *args: Any, **kwargs: Any) -> Callable[[], Any]:
    """Returns a function that makes a new layer at each call."""
    return functools.partial(cls, *args, **kwargs)


def operation(function: Callable[[Any], Any]) -> Callable[..., Any]:
    """Makes an element of a chain of `branches` from a function of `keras.ops`."""

    def make(name):
        del name
        return function

    return make


def first_of_each(cases: Sequence[Case], kind: type = WeightedLayer) -> list[Any]:
    """Returns the cases as parameters. All cases of a layer class but the first are slow."""
    seen, found = set(), []
    for case in cases:
        new = {cls for cls in case.covers if issubclass(cls, kind)} - seen
        seen |= new
        found.append(pytest.param(case, id=case.name, marks=() if new else pytest.mark.slow))
    return found
