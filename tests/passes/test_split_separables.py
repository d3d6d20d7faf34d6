import keras
import numpy as np
import pytest
from keras import layers

import keras_qat
from keras_qat.graph import Edge
from keras_qat.passes.split_separables import split_separables
from tests.layers.cases import Case, branches, layer, randomize
from tests.layers.contract import Prepared, assert_equals_litert
from tests.layers.litert_files import exported, operators_of
from tests.passes.graphs import applied, chains, maximum_difference

SeparableConv1D, SeparableConv2D = layers.SeparableConv1D, layers.SeparableConv2D


def random_model(shape, make):
    model = keras.Sequential([keras.Input(shape, name="input"), make(name="s")])
    randomize(model, np.random.default_rng(0))
    return model


@pytest.mark.parametrize(
    "make",
    [
        layer(SeparableConv2D, 5, 3, activation="relu"),
        layer(SeparableConv2D, 5, 3, strides=2, padding="same", depth_multiplier=2),
        layer(SeparableConv2D, 5, (2, 3), dilation_rate=2, use_bias=False),
        layer(SeparableConv1D, 5, 3, activation="relu"),
        layer(SeparableConv1D, 5, 4, strides=2, padding="same", depth_multiplier=3),
        layer(SeparableConv1D, 5, 2, dilation_rate=2, use_bias=False),
    ],
)
def test_split_separables_makes_two_equal_convolutions(make):
    shape = (7, 6, 3) if make.func is SeparableConv2D else (7, 3)
    model = random_model(shape, make)
    graph = applied(split_separables, model)
    assert chains(graph) == {"s_depthwise": ["s_depthwise"], "s": ["s"]}
    data = np.random.default_rng(1).normal(size=(3, *shape)).astype("float32")
    assert maximum_difference(graph, model, data) < 1e-4
    separable, depthwise, pointwise = (
        model.get_layer("s"),
        graph.nodes["s_depthwise"].head,
        graph.nodes["s"].head,
    )
    assert graph.nodes["s_depthwise"].shapes == (depthwise.compute_output_shape((None, *shape)),)
    assert not depthwise.use_bias and depthwise.activation is keras.activations.linear
    assert pointwise.use_bias == separable.use_bias
    assert pointwise.activation is separable.activation


def test_split_separables_of_a_shared_layer_shares_both_parts():
    x = keras.Input((5, 5, 3), name="x")
    shared = SeparableConv2D(3, 3, padding="same", name="s")
    graph = applied(split_separables, keras.Model(x, shared(shared(x))))
    assert list(graph.nodes) == ["x", "s_depthwise", "s", "s_1_depthwise", "s_1"]
    assert graph.nodes["s_depthwise"].head is graph.nodes["s_1_depthwise"].head
    assert graph.nodes["s"].head is graph.nodes["s_1"].head
    assert graph.nodes["s_1_depthwise"].inputs == (Edge("s"),)
    assert graph.outputs == Edge("s_1")


def test_split_separables_passes_arguments_to_the_right_part():
    separable = SeparableConv2D(
        2,
        3,
        name="s",
        trainable=False,
        depthwise_regularizer=keras.regularizers.L1(0.1),
        pointwise_regularizer=keras.regularizers.L2(0.2),
        pointwise_constraint="non_neg",
        bias_constraint="non_neg",
    )
    graph = applied(split_separables, keras.Sequential([keras.Input((4, 4, 3)), separable]))
    depthwise, pointwise = graph.nodes["s_depthwise"].head, graph.nodes["s"].head
    assert not depthwise.trainable and not pointwise.trainable
    assert float(depthwise.depthwise_regularizer.l1) == pytest.approx(0.1)
    assert float(pointwise.kernel_regularizer.l2) == pytest.approx(0.2)
    assert depthwise.depthwise_constraint is None
    assert isinstance(pointwise.kernel_constraint, keras.constraints.NonNeg)
    assert isinstance(pointwise.bias_constraint, keras.constraints.NonNeg)


def test_split_separables_leaves_other_layers():
    model = keras.Sequential([keras.Input((4, 4, 3)), layers.Conv2D(2, 1, name="c")])
    graph = applied(split_separables, model)
    assert graph.nodes["c"].head is model.get_layer("c")


def test_split_separables_lets_followers_be_fused_into_the_pointwise_part():
    """The layers are those of NASNet and Xception."""
    chain = [
        SeparableConv2D(4, 3, use_bias=False, name="s"),
        layers.BatchNormalization(),
        layers.ReLU(),
    ]
    model = keras.Sequential([keras.Input((6, 6, 3)), *chain])
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype("float32")
    quantized = keras_qat.quantize_model(model, calibration_data=x)
    assert operators_of(exported(quantized)) == ["DEPTHWISE_CONV_2D", "CONV_2D"]
    assert [each.name for each in quantized.layers[2:]] == ["s_depthwise", "s"]
    assert quantized.get_layer("s").batch_normalization is not None
    assert keras_qat.clone_model(model).count_params() == model.count_params()


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("cls", "shape"), [(SeparableConv1D, (9, 4)), (SeparableConv2D, (7, 6, 4))]
)
@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e2])
def test_split_separables_equals_litert_in_every_tensor(cls, shape, scale):
    build = branches(
        shape,
        [layer(cls, 5, 3, activation="relu6")],
        [layer(cls, 4, 3, strides=2, padding="same", depth_multiplier=2)],
        [layer(cls, 4, 3, use_bias=False), layers.BatchNormalization, layers.ReLU],
    )
    assert assert_equals_litert(Prepared(Case(f"{cls.__name__}{scale}", (), build), 1, scale))
