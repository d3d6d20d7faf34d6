import dataclasses

import keras
import pytest

from keras_qat.errors import InvalidGraphError
from keras_qat.graph import Edge, read_model
from keras_qat.graph.graph import flatten_edges, map_edges, unique_name


@pytest.fixture
def graph():
    x = keras.Input((4,), name="x")
    a = keras.layers.Dense(4, name="a")(x)
    b = keras.layers.Add(name="b")([x, a])
    return read_model(keras.Model(x, {"sum": b, "a": a}, name="model"))


def with_node(graph, key, **changes):
    nodes = dict(graph.nodes)
    nodes[key] = dataclasses.replace(nodes[key], **changes)
    return dataclasses.replace(graph, nodes=nodes)


def test_check_accepts_a_graph_as_read(graph):
    assert graph.check() is graph
    assert list(graph.nodes) == ["x", "a", "b"]
    assert graph.output_edges == tuple(flatten_edges({"sum": Edge("b"), "a": Edge("a")}))


def test_graph_and_node_are_immutable(graph):
    with pytest.raises(TypeError):
        graph.nodes["c"] = graph.nodes["a"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        graph.name = "other"
    with pytest.raises(dataclasses.FrozenInstanceError):
        graph.nodes["a"].name = "other"


INCONSISTENT = {
    "name differs from key": (
        lambda g: with_node(g, "a", name="c"),
        "node named 'c' is stored under another name.* Layer: 'a'",
    ),
    "no operation": (
        lambda g: with_node(g, "a", operations=()),
        "node has no operation.* Layer: 'a'",
    ),
    "shapes and dtypes differ in number": (
        lambda g: with_node(g, "a", dtypes=()),
        "as many dtypes as shapes.* Layer: 'a'",
    ),
    "inputs are not those of the arguments": (
        lambda g: with_node(g, "b", inputs=(Edge("a"), Edge("x"))),
        "not the tensors in its arguments.* Layer: 'b'",
    ),
    "input that no node makes": (
        lambda g: with_node(g, "a", inputs=(Edge("z"),), arguments=((Edge("z"),), {})),
        r"takes \['z'\], which no node before it makes.* Layer: 'a'",
    ),
    "input made later": (
        lambda g: dataclasses.replace(g, nodes={n: g.nodes[n] for n in ("x", "b", "a")}),
        r"takes \['a'\], which no node before it makes.* Layer: 'b'",
    ),
    "own output as input": (
        lambda g: with_node(g, "a", inputs=(Edge("a"),), arguments=((Edge("a"),), {})),
        r"takes \['a'\].* Layer: 'a'",
    ),
    "output number that does not exist": (
        lambda g: with_node(g, "a", inputs=(Edge("x", 1),), arguments=((Edge("x", 1),), {})),
        r"takes \['x\[1\]'\].* Layer: 'a'",
    ),
    "output of the graph that no node makes": (
        lambda g: dataclasses.replace(g, outputs=[Edge("b"), Edge("gone")]),
        "input or output that no node makes.* Layer: 'gone'",
    ),
    "input of the graph that no node makes": (
        lambda g: dataclasses.replace(g, input_structure=[Edge("y")]),
        "input or output that no node makes.* Layer: 'y'",
    ),
    "input that is not listed": (
        lambda g: dataclasses.replace(g, inputs=()),
        "nodes without inputs are not the graph's inputs",
    ),
    "listed input that does not exist": (
        lambda g: dataclasses.replace(g, inputs=("x", "y")),
        "nodes without inputs are not the graph's inputs",
    ),
    "node that lost its inputs": (
        lambda g: with_node(g, "a", inputs=(), arguments=((), {})),
        "nodes without inputs are not the graph's inputs",
    ),
}


@pytest.mark.parametrize("name", INCONSISTENT)
def test_check_finds_each_inconsistency_and_names_the_pass(graph, name):
    plant, message = INCONSISTENT[name]
    with pytest.raises(InvalidGraphError, match=f"After 'some_pass'.*{message}"):
        plant(graph).check(after="some_pass")


def test_consumers_lists_each_use_of_a_tensor():
    x = keras.Input((4,), name="x")
    graph = read_model(keras.Model(x, keras.layers.Add(name="twice")([x, x])))
    assert [node.name for node in graph.consumers()[Edge("x")]] == ["twice", "twice"]


def test_node_rewired_replaces_edges_in_inputs_and_arguments(graph):
    node = graph.nodes["b"].rewired({Edge("a"): Edge("new", 1)})
    assert node.inputs == (Edge("x"), Edge("new", 1))
    assert node.arguments == (([Edge("x"), Edge("new", 1)],), {})
    assert graph.nodes["b"].rewired({Edge("z"): Edge("new")}) is graph.nodes["b"]


def test_graph_replace_redirects_all_but_the_unchanged_nodes(graph):
    mapping = {Edge("a"): Edge("x")}
    changed = graph.replace(graph.nodes.values(), mapping)
    assert changed.nodes["b"].inputs == (Edge("x"), Edge("x"))
    assert changed.outputs == {"sum": Edge("b"), "a": Edge("x")}
    kept = graph.replace(graph.nodes.values(), mapping, unchanged={"b"})
    assert kept.nodes["b"].inputs == (Edge("x"), Edge("a"))


def test_edge_has_a_shape_and_a_text(graph):
    assert graph.shape(Edge("a")) == (None, 4)
    assert [str(Edge("a")), str(Edge("a", 2))] == ["a", "a[2]"]


def test_flatten_edges_and_map_edges_handle_nested_structures():
    structure = {"k": [Edge("a"), 3, None], "l": (Edge("b"),)}
    assert flatten_edges(structure) == [Edge("a"), Edge("b")]
    mapped = map_edges(lambda edge: edge.node, structure)
    assert mapped == {"k": ["a", 3, None], "l": ("b",)}


def test_unique_name_counts_until_a_name_is_free():
    assert unique_name("a", []) == "a"
    assert unique_name("a", {"a": 0, "a_1": 0}) == "a_2"
