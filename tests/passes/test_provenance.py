"""Origins and sources of nodes, and their use in the log and in the rows of `check`."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_qat
from keras_qat.errors import InvalidGraphError, UnsupportedLayerError
from keras_qat.graph import Edge, read_model
from keras_qat.passes import PIPELINE, Rewrite, run_pipeline
from keras_qat.passes.provenance import rewrites_of
from keras_qat.passes.rewriting import Replacement, absorb_nodes, replace_nodes, rewrite_nodes
from keras_qat.passes.running import run_pass


def chain():
    x = keras.Input((3,), name="x")
    y = layers.ReLU(name="b")(layers.Dense(3, name="a")(x))
    return read_model(keras.Model(x, layers.Dense(2, name="c")(y)))


def named(operation, name):
    """Names the operation that made a tensor."""
    operation._keras_history.operation.name = name
    return operation


def origins_of(graph):
    return {name: node.origins for name, node in graph.nodes.items()}


def log_of(rewrite, graph):
    return [
        (each.layers_in, each.layers_out)
        for each in rewrites_of("p", graph, run_pass(rewrite, graph))
    ]


def absorbing(graph):
    made = {"a": dataclasses.replace(graph.nodes["a"], shapes=graph.nodes["b"].shapes)}
    return absorb_nodes(graph, made, {"a": ["b"]}, {Edge("b"): Edge("a")})


def doubling(graph):
    return rewrite_nodes(graph, lambda node: (lambda x: x + x * 2.0) if node.name == "b" else None)


def dropping(graph):
    def write(node, rewriting):
        del rewriting
        return Replacement([], node.inputs) if node.name == "b" else None

    return replace_nodes(graph, write)


def test_read_model_makes_each_call_its_own_origin():
    x, dense = keras.Input((3,), name="x"), layers.Dense(3, name="d")
    graph = read_model(keras.Model(x, dense(dense(x))))
    assert origins_of(graph) == {"x": ("x",), "d": ("d",), "d_1": ("d_1",)}


def test_absorb_nodes_merges_origins():
    graph = chain()
    assert log_of(absorbing, graph) == [(("a", "b"), ("a",))]
    assert origins_of(run_pass(absorbing, graph)) == {"x": ("x",), "a": ("a", "b"), "c": ("c",)}


def test_replace_nodes_gives_all_new_nodes_the_origins():
    graph = chain()
    assert log_of(doubling, graph) == [(("b",), ("b", "b_multiply"))]
    made = origins_of(run_pass(doubling, graph))
    assert made["b"] == made["b_multiply"] == ("b",)


def test_log_of_a_dropped_node_has_no_replacement():
    graph = chain()
    assert log_of(dropping, graph) == [(("b",), ())]
    assert log_of(lambda same: same, graph) == []


def test_origins_survive_two_passes():
    graph, log = run_pipeline(chain(), (doubling, absorbing))
    assert graph.nodes["a"].origins == ("a", "b")
    assert log[1] == Rewrite("absorbing", ("a", "b"), ("a",), "", ("a", "b"))


def test_inlined_operations_are_their_own_origins():
    x = keras.Input((3,), name="x")
    block = keras.Sequential([keras.Input((3,)), layers.Dense(3, name="a")], name="block")
    graph, log = run_pipeline(read_model(keras.Model(x, block(block(x)))), PIPELINE)
    assert origins_of(graph) == {"x": ("x",), "a": ("a",), "a_1": ("a_1",)}
    assert [each.layers_out for each in log] == [("a",), ("a_1",)]


@pytest.mark.parametrize(
    ("sources", "origins"), [((), ("b",)), (("nobody",), ("b",)), (("b",), ("nobody",))]
)
def test_run_pass_refuses_a_node_without_sources(sources, origins):
    def rewriting(graph):
        made = {"operations": (layers.ReLU(6.0),), "sources": sources, "origins": origins}
        node = dataclasses.replace(graph.nodes["b"], **made)
        return graph.replace(
            [node if each.name == "b" else each for each in graph.nodes.values()], {}
        )

    with pytest.raises(InvalidGraphError, match="After 'rewriting'.*name its sources.*'b'"):
        run_pass(rewriting, chain())


def test_graph_check_refuses_a_node_without_origins():
    graph = chain()
    nodes = [dataclasses.replace(node, origins=()) for node in graph.nodes.values()]
    with pytest.raises(InvalidGraphError, match="stands for no operation of the model"):
        graph.replace(nodes, {}).check()


def moved():
    """Makes a bias and an activation after a reshape. The dense layer before it absorbs them."""
    x = keras.Input((6,), name="x")
    y = layers.Dense(8, use_bias=False, name="head")(x)
    y = named(ops.reshape(y, (-1, 2, 4)), "reshape")
    y = named(ops.add(y, np.arange(8, dtype="float32").reshape(2, 4)), "bias")
    y = named(ops.relu(y), "act")
    return keras.Model(x, named(ops.transpose(y, (0, 2, 1)), "turn"))


def test_check_rows_name_the_layer_of_an_operation_that_moved():
    rows = {
        row.name: [made.name for made in row.becomes] for row in keras_qat.check(moved()).layers
    }
    assert rows == {
        "x": ["x_quantize"],
        "head": ["head"],
        "reshape": ["reshape"],
        "bias": ["head"],
        "act": ["head"],
        "turn": ["turn"],
    }


def test_quantized_model_has_the_origins_of_its_layers():
    model = keras_qat.quantize_model(moved())
    assert dict(model.origins) == {
        "x": ("x",),
        "x_quantize": ("x",),
        "head": ("head", "bias", "act"),
        "reshape": ("reshape",),
        "turn": ("turn",),
    }


def test_check_rows_of_merged_operations_name_the_same_layer():
    x = keras.Input((8, 8, 3), name="x")
    y = layers.Conv2D(4, 3, name="conv")(x)
    ends = [layers.Conv2D(2, 1, name=f"end{i}")(layers.ReLU(name=f"relu{i}")(y)) for i in range(2)]
    rows = {row.name: row for row in keras_qat.check(keras.Model(x, ends)).layers}
    for name in ("relu0", "relu1"):
        assert [made.name for made in rows[name].becomes] == ["conv"]
        assert rows[name].rewrites == ("merge_equal_operations", "fuse_activations")


class Summed(layers.Layer):
    """A layer with an operation that has no integer form."""

    def call(self, x):
        return x + ops.cumprod(x, axis=1)


@pytest.mark.parametrize(
    ("make", "options", "operation"),
    [
        (lambda: Summed(name="own"), {}, "own_cumprod"),
        (lambda: Summed(name="own"), {"rewrites": ["open_layers"]}, "own_cumprod"),
        (lambda: layers.Dense(3, activation="sparsemax", name="own"), {}, "own_sparsemax"),
        (
            lambda: layers.Dense(3, activation="softplus", name="own"),
            {"activations": "error"},
            "own_softplus",
        ),
    ],
)
def test_error_of_a_pass_names_the_layer_of_the_user(make, options, operation):
    x = keras.Input((4, 3), name="x")
    model = keras.Model(x, make()(x))
    with pytest.raises(UnsupportedLayerError) as raised:
        keras_qat.quantize_model(model, **options)
    assert raised.value.layer == "own"
    assert "Layer: 'own'." in str(raised.value) and f"its operation '{operation}'" in str(
        raised.value
    )
    assert keras_qat.check(model, **options).errors[0].layer == "own"
