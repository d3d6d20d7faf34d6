"""Groups of tensors that share quantization parameters. The oracle is a list written by hand."""

import keras
from keras import layers

from keras_qat.graph import Edge, read_model
from keras_qat.layers.models.range_groups import range_groups
from keras_qat.quantizers import Free, Shared, Specification


class Computes(layers.Layer):
    output_specification: Specification = Free()
    scheme: str | None = "int8"
    shares_inputs = False
    plain_dtype = None

    def specifications(self):
        return {"output": self.output_specification}

    def call(self, inputs):
        return inputs[0] + inputs[1] if isinstance(inputs, list) else inputs * 2


class Moves(Computes):
    output_specification = Shared()


class MovesInFloat(Moves):
    scheme = None


def groups(inputs, outputs):
    """Returns the groups of more than one tensor as sets of names."""
    found = range_groups(read_model(keras.Model(inputs, outputs)))
    assert all(edge in found[edge].edges for edge in found)
    return {frozenset(map(str, group.edges)) for group in found.values() if len(group.edges) > 1}


def test_range_groups_of_computed_tensors_are_single():
    x = keras.Input((4,), name="x")
    assert groups(x, Computes(name="b")(Computes(name="a")(x))) == set()


def test_range_groups_join_a_chain_of_moves():
    x = keras.Input((4,), name="x")
    y = Moves(name="m2")(Moves(name="m1")(Computes(name="a")(x)))
    assert groups(x, Computes(name="b")(y)) == {frozenset({"a", "m1", "m2"})}


def test_range_groups_join_the_branches_of_one_tensor():
    x = keras.Input((4,), name="x")
    a = Computes(name="a")(x)
    assert groups(x, [Moves(name="m1")(a), Moves(name="m2")(a), Computes(name="b")(a)]) == {
        frozenset({"a", "m1", "m2"})
    }


def test_range_groups_join_tensors_that_one_layer_moves():
    x = keras.Input((4,), name="x")
    a, b = Computes(name="a")(x), Computes(name="b")(x)
    assert groups(x, Moves(name="m")([Moves(name="n")(a), b])) == {frozenset("abmn")}


def test_range_groups_join_inputs_and_outputs_of_a_shared_layer():
    x, y = keras.Input((4,), name="x"), keras.Input((4,), name="y")
    a, b, shared = Computes(name="a"), Computes(name="b"), Computes(name="s")
    assert groups([x, y], [shared(a(x)), shared(b(y))]) == {
        frozenset({"a", "b"}),
        frozenset({"s", "s_1"}),
    }


def test_range_groups_separate_the_inputs_of_a_shared_layer():
    x, y = keras.Input((4,), name="x"), keras.Input((4,), name="y")
    a, b, shared = Computes(name="a")(x), Computes(name="b")(y), Computes(name="s")
    assert groups([x, y], [shared([x, a]), shared([y, b])]) == {
        frozenset({"x", "y"}),
        frozenset({"a", "b"}),
        frozenset({"s", "s_1"}),
    }


def test_range_groups_join_all_tensors_of_a_layer_called_in_a_row():
    x, shared = keras.Input((4,), name="x"), Computes(name="s")
    assert groups(x, shared(shared(x))) == {frozenset({"x", "s", "s_1"})}


def test_range_groups_go_through_moves_and_shared_layers():
    x = keras.Input((4,), name="x")
    shared = Computes(name="s")
    y = shared(Moves(name="m")(Computes(name="a")(x)))
    z = shared(Computes(name="b")(x))
    assert groups(x, Moves(name="n")([y, z])) == {
        frozenset({"a", "m", "b"}),
        frozenset({"s", "s_1", "n"}),
    }


def test_range_groups_list_their_tensors_in_order():
    x = keras.Input((4,), name="x")
    y = Moves(name="m")(Computes(name="a")(x))
    found = range_groups(read_model(keras.Model(x, y)))
    assert found[Edge("m")] is found[Edge("a")]
    assert found[Edge("m")].edges == (Edge("a"), Edge("m"))


def test_range_groups_ignore_layers_in_float():
    x = keras.Input((4,), name="x")
    a, b, shared = Computes(name="a")(x), Computes(name="b")(x), MovesInFloat(name="s")
    assert groups(x, [shared(a), shared(b)]) == set()
