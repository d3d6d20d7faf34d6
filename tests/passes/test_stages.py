"""The stages: each has existing passes, reasons, and invariants that find violations."""

import dataclasses

import keras
import pytest
from keras import layers, ops

import keras_qat
from keras_qat.errors import InvalidGraphError
from keras_qat.graph import read_model
from keras_qat.passes import STAGES, invariants
from keras_qat.passes.config import Config, Setting
from keras_qat.passes.make_layers import make_layers
from keras_qat.passes.quantize_inputs import quantize_floats, quantize_inputs
from keras_qat.passes.schemes import annotate_schemes
from keras_qat.passes.split_activations import split_activations
from keras_qat.passes.stages import Stage, Step
from keras_qat.scheme import SCHEMES

INT8, UINT8 = SCHEMES["int8"], SCHEMES["uint8"]


def chain(*made, shape=(8, 8, 3)):
    x = y = keras.Input(shape, name="x")
    for layer in made:
        y = layer(y)
    return read_model(keras.Model(x, y))


def sum_of_three():
    x = [keras.Input((3,), name=f"x{i}") for i in range(3)]
    return read_model(keras.Model(x, layers.Add(name="own")(x)))


def split():
    x = keras.Input((4,), name="x")
    return read_model(keras.Model(x, ops.split(x, 2, axis=1)))


def mixed():
    graph = chain(layers.ReLU(name="first"), layers.ReLU(name="own"))
    return annotate_schemes(graph, {id(graph.nodes["own"].head): UINT8}, INT8)


def fused_at_random():
    graph = chain(layers.MaxPooling2D(name="own"))
    own = dataclasses.replace(graph.nodes["own"], operations=(layers.ReLU(), layers.Flatten()))
    return dataclasses.replace(graph, nodes={**graph.nodes, "own": own})


def made(**schemes):
    graph = chain(layers.Dense(2, name="first"), layers.Dense(2, name="own"), shape=(3,))
    schemes = {id(graph.nodes[name].head): scheme for name, scheme in schemes.items()}
    return make_layers(annotate_schemes(graph, schemes, INT8))


def moved():
    return make_layers(annotate_schemes(chain(layers.Flatten(name="own")), {}, INT8))


def joined():
    x = keras.Input((4,), name="x")
    y = layers.Concatenate(name="own")([x, layers.Activation("sigmoid", name="own_sigmoid")(x)])
    graph = make_layers(annotate_schemes(read_model(keras.Model(x, y)), {}, INT8))
    return quantize_inputs(graph, INT8)


# Graphs that violate an invariant, in the node "own" unless another name is given.
BROKEN = [
    (invariants.AS_WRITTEN, fused_at_random, "own"),
    (invariants.ONE_INTEGER_TYPE, mixed, "own"),
    (invariants.NO_NESTED_MODEL, lambda: chain(
        keras.Sequential([keras.Input((8, 8, 3)), layers.ReLU()], name="own")), "own"),
    (invariants.NO_SEPARABLE, lambda: chain(layers.SeparableConv2D(2, 3, name="own")), "own"),
    (invariants.LINEAR_KERNELS, lambda: chain(
        layers.Conv2D(2, 3, activation="softplus", name="own")), "own"),
    (invariants.LAST_AXIS, lambda: chain(layers.BatchNormalization(axis=1, name="own")), "own"),
    (invariants.ONE_OUTPUT, split, "split"),
    (invariants.MERGES_OF_TWO, sum_of_three, "own"),
    (invariants.FUSED_HAVE_SLICES, fused_at_random, "own"),
    (invariants.ONE_LAYER_EACH, lambda: chain(layers.ReLU(name="own")), "own"),
    (invariants.CONVERTED, made, "first"),
    (invariants.CONVERTED, lambda: quantize_inputs(made(first=None), INT8), "own"),
    (invariants.RANGED, moved, "own"),
    (invariants.RANGED, joined, "x_quantize"),
]  # fmt: skip


@pytest.mark.parametrize(("invariant", "make", "name"), BROKEN)
def test_invariant_names_the_node_that_violates_it(invariant, make, name):
    assert list(invariant.violations(make()))[0].startswith(name)


def test_invariants_hold_after_conversions_are_inserted():
    graph = quantize_floats(quantize_inputs(made(first=None), INT8), INT8)
    assert list(invariants.CONVERTED.violations(graph)) == []
    assert list(invariants.RANGED.violations(graph)) == []
    assert list(invariants.ONE_LAYER_EACH.violations(graph)) == []


def test_every_invariant_of_a_stage_is_tested():
    tested = [invariant for invariant, _, _ in BROKEN]
    assert all(invariant in tested for stage in STAGES for invariant in stage.invariants)


def test_stage_with_a_violated_invariant_is_named(monkeypatch):
    stage = Stage("melt", "", (), (invariants.NO_SEPARABLE,))
    monkeypatch.setattr("keras_qat.compiler.REWRITING", (stage,))
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.SeparableConv2D(2, 3, name="own")])
    with pytest.raises(InvalidGraphError, match="The stage 'melt'.*'own'.*separable") as raised:
        keras_qat.clone_model(model)
    assert raised.value.layer == "own"
    assert keras_qat.check(model).errors[0].layer == "own"


def test_invariants_are_not_checked_without_one_of_the_rewrites():
    steps = (Step(split_activations, ""),)
    stage = Stage("open", "", steps, (invariants.LINEAR_KERNELS,))
    assert len(list(stage.passes(Setting(Config(), frozenset({"split_activations"}))))) == 2
    assert list(stage.passes(Setting(Config(), frozenset()))) == []


def test_stages_have_reasons_of_one_sentence_or_two():
    texts = [stage.reason for stage in STAGES]
    texts += [step.reason for stage in STAGES for step in stage.steps]
    assert all(text.endswith(".") and len(text) < 130 for text in texts)
