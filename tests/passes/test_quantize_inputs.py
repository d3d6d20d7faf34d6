import keras
from keras import layers

from keras_qat.graph import Edge, read_model
from keras_qat.layers import QEmbedding, QuantizeInput
from keras_qat.passes.quantize_inputs import quantize_inputs
from keras_qat.scheme import get_scheme

INT8 = get_scheme("int8")


def test_each_input_is_taken_by_its_quantizer_alone():
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


def test_a_layer_of_that_name_keeps_it():
    x = keras.Input((3,), name="x")
    model = keras.Model(x, layers.Dense(2, name="x_quantize")(x))
    graph = quantize_inputs(read_model(model), INT8).check()
    assert list(graph.nodes) == ["x", "x_quantize_1", "x_quantize"]


def test_ids_are_not_quantized():
    ids, numbers = keras.Input((3,), name="ids"), keras.Input((3, 2), name="numbers")
    y = layers.Add(name="sum")([QEmbedding(4, 2, name="table")(ids), numbers])
    graph = quantize_inputs(read_model(keras.Model([ids, numbers], y)), INT8).check()
    assert graph.nodes["table"].inputs == (Edge("ids"),)
    assert graph.nodes["sum"].inputs == (Edge("table"), Edge("numbers_quantize"))
    assert "ids_quantize" not in graph.nodes
