import keras
import pytest
from keras import layers

from keras_qat.graph import Edge
from keras_qat.passes.fold_batch_norms import fold_batch_norms
from keras_qat.passes.fuse_activations import fuse_activations
from keras_qat.passes.split_activations import split_activations
from tests.passes.graphs import applied, chains


def sequence(*sequence_layers, shape=(4, 4, 3)):
    return keras.Sequential([keras.Input(shape), *sequence_layers])


@pytest.mark.parametrize(
    "head",
    [
        layers.Conv2D(2, 3, name="head"),
        layers.DepthwiseConv2D(3, name="head"),
        layers.Dense(2, name="head"),
    ],
)
@pytest.mark.parametrize("axis", [-1, 3])
def test_fold_batch_norms_folds_into_the_previous_layer(head, axis):
    model = sequence(head, layers.BatchNormalization(axis=axis, name="norm"))
    graph = applied(fold_batch_norms, model)
    assert chains(graph) == {"head": ["head", "norm"]}
    assert graph.outputs == Edge("head")


UNTOUCHED = {
    "other axis": lambda: sequence(
        layers.Conv2D(4, 3, name="head"), layers.BatchNormalization(axis=1, name="norm")
    ),
    "after an activation": lambda: sequence(
        layers.ReLU(name="relu"), layers.BatchNormalization(name="norm")
    ),
    "after the activation of a layer": lambda: sequence(
        layers.Conv2D(4, 3, activation="relu", name="head"), layers.BatchNormalization(name="norm")
    ),
    "after a pooling": lambda: sequence(
        layers.MaxPooling2D(name="pool"), layers.BatchNormalization(name="norm")
    ),
    "after the input": lambda: sequence(layers.BatchNormalization(name="norm")),
    "layer normalization": lambda: sequence(
        layers.Conv2D(4, 3, name="head"), layers.LayerNormalization(name="norm")
    ),
}


@pytest.mark.parametrize("name", UNTOUCHED)
def test_fold_batch_norms_leaves_other_layers(name):
    model = UNTOUCHED[name]()
    assert chains(applied(fold_batch_norms, model)) == {
        layer.name: [layer.name] for layer in model.layers
    }


def test_fold_batch_norms_leaves_subclasses():
    class Special(layers.BatchNormalization):
        pass

    model = sequence(layers.Conv2D(4, 3, name="head"), Special(name="norm"))
    assert set(chains(applied(fold_batch_norms, model))) == {"head", "norm"}


def test_fold_batch_norms_leaves_norms_after_an_activation():
    model = sequence(
        layers.Conv2D(4, 3, activation="relu", name="head"), layers.BatchNormalization(name="norm")
    )
    graph = fold_batch_norms(applied(split_activations, model)).check()
    assert set(chains(graph)) == {"head", "head_relu", "norm"}


def test_fold_batch_norms_leaves_norms_of_a_tensor_with_other_uses():
    image = keras.Input((4, 4, 3), name="image")
    head = layers.Conv2D(3, 1, name="head")(image)
    norm = layers.BatchNormalization(name="norm")(head)
    for outputs in (layers.Add(name="sum")([head, norm]), [head, norm]):
        assert {"head", "norm"} <= set(
            chains(applied(fold_batch_norms, keras.Model(image, outputs)))
        )


def test_fold_batch_norms_folds_the_first_of_two():
    norms = layers.BatchNormalization(name="one"), layers.BatchNormalization(name="two")
    graph = applied(fold_batch_norms, sequence(layers.Conv2D(2, 3, name="head"), *norms))
    assert chains(graph) == {"head": ["head", "one"], "two": ["two"]}


def shared(second_norm):
    """Makes a convolution that is called twice, with a normalization after each call."""
    image = keras.Input((4, 4, 3), name="image")
    conv, norm = layers.Conv2D(3, 1, name="conv"), layers.BatchNormalization(name="norm")
    first = norm(conv(image))
    return keras.Model(image, [first, (second_norm or norm)(conv(first))])


def test_fold_batch_norms_folds_into_a_shared_layer_with_equal_followers():
    graph = applied(fold_batch_norms, shared(None))
    assert chains(graph) == {"conv": ["conv", "norm"], "conv_1": ["conv", "norm"]}


def test_fold_batch_norms_leaves_a_shared_layer_with_different_followers():
    graph = applied(fold_batch_norms, shared(layers.BatchNormalization(name="other")))
    assert set(chains(graph)) == {"conv", "norm", "conv_1", "other"}


def test_fold_batch_norms_leaves_a_norm_shared_by_two_layers():
    image = keras.Input((4, 4, 3), name="image")
    norm = layers.BatchNormalization(name="norm")
    y = norm(layers.Conv2D(3, 1, name="a")(image))
    y = norm(layers.Conv2D(3, 1, name="b")(y))
    graph = applied(fold_batch_norms, keras.Model(image, y))
    assert set(chains(graph)) == {"a", "norm", "b", "norm_1"}


def test_fold_batch_norms_then_fuse_activations_joins_both_followers():
    model = sequence(
        layers.Conv2D(2, 3, name="head"), layers.BatchNormalization(name="norm"), layers.ReLU(6.0)
    )
    graph = fuse_activations(applied(fold_batch_norms, model)).check()
    assert [len(chain) for chain in chains(graph).values()] == [3]
