import dataclasses

import keras
import pytest
from keras import layers

from keras_qat.errors import InvalidGraphError
from keras_qat.graph import read_model
from keras_qat.passes import PIPELINE, run_pipeline


def log_of(model):
    return [str(rewrite) for rewrite in run_pipeline(read_model(model), PIPELINE)[1]]


def test_run_pipeline_logs_every_rewrite():
    image = keras.Input((8, 8, 3), name="image")
    block = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(3, 3, padding="same", name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.Dropout(0, name="nothing"),
            layers.ReLU(name="relu"),
        ],
        name="block",
    )
    y = layers.Add(name="sum")([block(image), image, image])
    y = layers.Dense(2, activation="softmax", name="head")(layers.Flatten(name="flat")(y))
    assert log_of(keras.Model(image, y)) == [
        "inline_models: block -> conv + norm + nothing + relu",
        "split_activations: head -> head + head_softmax",
        "remove_identities: nothing -> ",
        "split_merges: sum -> sum + sum_partial",
        "fold_batch_norms: conv + norm -> conv",
        "fuse_activations: conv + relu -> conv",
    ]


def test_run_pipeline_logs_a_residual_block():
    image = keras.Input((8, 8, 3), name="image")
    y = layers.Conv2D(3, 3, padding="same", activation="relu", name="conv")(image)
    y = layers.Activation("relu", name="end")(layers.Add(name="add")([y, image]))
    assert log_of(keras.Model(image, y)) == [
        "split_activations: conv -> conv + conv_relu",
        "fuse_activations: conv + conv_relu -> conv",
        "fuse_activations: add + end -> add",
    ]


def test_run_pipeline_logs_nothing_if_nothing_changes():
    x = keras.Input((3,), name="x")
    graph = read_model(keras.Model(x, layers.Dense(2)(x)))
    rewritten, log = run_pipeline(graph, PIPELINE)
    assert log == () and list(rewritten.nodes) == list(graph.nodes)


def test_run_pipeline_logs_partial_sums_with_their_sum():
    x = [keras.Input((3,), name=f"x{i}") for i in range(4)]
    first = layers.Add(name="sum")(x[:3])
    assert log_of(keras.Model(x, layers.Add(name="total")([*x, first]))) == [
        "split_merges: sum -> sum + sum_partial",
        "split_merges: total -> total + total_partial + total_partial_1 + total_partial_2",
    ]


def test_run_pipeline_logs_each_call_of_a_shared_layer():
    x = keras.Input((3,), name="x")
    dense = layers.Dense(3, activation="relu", name="d")
    assert log_of(keras.Model(x, dense(dense(x)))) == [
        "split_activations: d -> d + d_relu",
        "split_activations: d_1 -> d_1 + d_relu_1",
        "fuse_activations: d + d_relu -> d",
        "fuse_activations: d_1 + d_relu_1 -> d_1",
    ]


def test_run_pipeline_names_a_pass_that_breaks_the_graph():
    def breaking(graph):
        return dataclasses.replace(graph, nodes={})

    x = keras.Input((3,), name="x")
    graph = read_model(keras.Model(x, layers.Dense(2)(x)))
    with pytest.raises(InvalidGraphError, match="After 'breaking'"):
        run_pipeline(graph, [breaking])
