import keras
from keras import layers

from keras_qat.graph import Edge, read_model
from keras_qat.layers import ObserveRange, QDense, QEmbedding, Quantize, QuantizeInput
from keras_qat.passes.quantize_inputs import quantize_floats, quantize_inputs
from keras_qat.scheme import get_scheme

INT8 = get_scheme("int8")


def test_quantize_inputs_puts_one_quantizer_after_each_input():
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b", dtype="uint8")
    y = layers.Add(name="sum")([a, layers.Flatten(name="flat")(b)])
    graph = quantize_inputs(read_model(keras.Model({"a": a, "b": b}, [y, a])), INT8).check()
    taken = {node.name: node.inputs for node in graph.nodes.values()}
    assert taken == {
        "a": (),
        "b": (),
        "a_quantize": (Edge("a"),),
        "b_quantize": (Edge("b"),),
        "flat": (Edge("b_quantize"),),
        "sum": (Edge("a_quantize"), Edge("flat")),
    }
    assert graph.outputs == [Edge("sum"), Edge("a_quantize")]
    assert graph.input_structure == {"a": Edge("a"), "b": Edge("b")}
    layer = graph.nodes["b_quantize"].head
    assert type(layer) is QuantizeInput and layer.scheme is INT8
    assert graph.nodes["b_quantize"].dtypes == ("float32",)


def test_quantize_inputs_keeps_the_name_of_an_existing_layer():
    x = keras.Input((3,), name="x")
    model = keras.Model(x, layers.Dense(2, name="x_quantize")(x))
    graph = quantize_inputs(read_model(model), INT8).check()
    assert list(graph.nodes) == ["x", "x_quantize_1", "x_quantize"]


def test_quantize_inputs_leaves_ids():
    ids, numbers = keras.Input((3,), name="ids"), keras.Input((3, 2), name="numbers")
    y = layers.Add(name="sum")([QEmbedding(4, 2, name="table")(ids), numbers])
    graph = quantize_inputs(read_model(keras.Model([ids, numbers], y)), INT8).check()
    assert graph.nodes["table"].inputs == (Edge("ids"),)
    assert graph.nodes["sum"].inputs == (Edge("table"), Edge("numbers_quantize"))
    assert "ids_quantize" not in graph.nodes


def dense(name, scheme):
    return QDense(3, name=name, scheme=scheme)


def taken(graph):
    return {node.name: " ".join(map(str, node.inputs)) for node in graph.nodes.values()}


def test_quantize_inputs_only_observes_an_input_of_float_layers():
    x = keras.Input((3,), name="x")
    model = keras.Model(x, [dense("a", None)(x), dense("b", None)(x)])
    graph = quantize_inputs(read_model(model), INT8).check()
    assert taken(graph) == {"x": "", "x_quantize": "x", "a": "x_quantize", "b": "x_quantize"}
    assert type(graph.nodes["x_quantize"].head) is ObserveRange


def test_quantize_inputs_rounds_an_input_for_quantized_layers_only():
    x, y = keras.Input((3,), name="x"), keras.Input((3,), name="y")
    both = layers.Add(name="sum")([dense("a", None)(x), dense("b", INT8)(x)])
    model = keras.Model([x, y], [both, dense("c", None)(y)])
    graph = quantize_inputs(read_model(model), INT8).check()
    found = taken(graph)
    assert (found["a"], found["b"], found["c"]) == ("x", "x_quantize", "y_quantize")
    kinds = [type(graph.nodes[name].head) for name in ("x_quantize", "y_quantize")]
    assert kinds == [QuantizeInput, ObserveRange]


def test_quantize_floats_quantizes_a_float_tensor_once():
    x = keras.Input((3,), name="x")
    a = dense("a", None)(x)
    outputs = [dense("b", INT8)(a), dense("c", INT8)(a), dense("d", None)(a), a]
    graph = quantize_floats(read_model(keras.Model(x, outputs)), INT8).check()
    found = taken(graph)
    assert (found["a_quantize"], found["b"], found["c"]) == ("a", "a_quantize", "a_quantize")
    assert found["d"] == "a"
    assert type(graph.nodes["a_quantize"].head) is Quantize
    # An output is the layer's float tensor. A tensor without quantized consumers is observed.
    assert list(map(str, graph.outputs)) == ["b", "c", "d_range", "a"]
    assert type(graph.nodes["d_range"].head) is ObserveRange


def test_quantize_floats_leaves_a_graph_without_float_layers():
    x = keras.Input((3,), name="x")
    graph = read_model(keras.Model(x, dense("b", INT8)(dense("a", INT8)(x))))
    assert taken(quantize_floats(graph, INT8)) == taken(graph)
