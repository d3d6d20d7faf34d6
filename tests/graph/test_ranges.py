"""Groups of tensors that share quantization parameters; the oracle is a list by hand."""

import keras
from keras import layers

from keras_qat.graph import Edge, range_groups, read_model


class Computes(layers.Layer):
    shares_range = False
    scheme: str | None = "int8"

    def call(self, inputs):
        return inputs[0] + inputs[1] if isinstance(inputs, list) else inputs * 2


class Moves(Computes):
    shares_range = True


class MovesInFloat(Moves):
    scheme = None


def groups(inputs, outputs):
    """The groups of more than one tensor, as sets of names."""
    found = range_groups(read_model(keras.Model(inputs, outputs)))
    assert all(edge in found[edge].edges for edge in found)
    return {frozenset(map(str, group.edges)) for group in found.values() if len(group.edges) > 1}


def test_tensors_that_are_computed_stand_alone():
    x = keras.Input((4,), name="x")
    assert groups(x, Computes(name="b")(Computes(name="a")(x))) == set()


def test_a_chain_of_moves_shares_one_range():
    x = keras.Input((4,), name="x")
    y = Moves(name="m2")(Moves(name="m1")(Computes(name="a")(x)))
    assert groups(x, Computes(name="b")(y)) == {frozenset({"a", "m1", "m2"})}


def test_branches_behind_one_tensor_share_its_range():
    x = keras.Input((4,), name="x")
    a = Computes(name="a")(x)
    assert groups(x, [Moves(name="m1")(a), Moves(name="m2")(a), Computes(name="b")(a)]) == {
        frozenset({"a", "m1", "m2"})
    }


def test_moving_several_tensors_together_joins_their_ranges():
    x = keras.Input((4,), name="x")
    a, b = Computes(name="a")(x), Computes(name="b")(x)
    assert groups(x, Moves(name="m")([Moves(name="n")(a), b])) == {frozenset("abmn")}


def test_calls_of_a_shared_layer_share_input_and_output_ranges():
    x, y = keras.Input((4,), name="x"), keras.Input((4,), name="y")
    a, b, shared = Computes(name="a"), Computes(name="b"), Computes(name="s")
    assert groups([x, y], [shared(a(x)), shared(b(y))]) == {
        frozenset({"a", "b"}),
        frozenset({"s", "s_1"}),
    }


def test_each_input_of_a_shared_layer_has_a_range_of_its_own():
    x, y = keras.Input((4,), name="x"), keras.Input((4,), name="y")
    a, b, shared = Computes(name="a")(x), Computes(name="b")(y), Computes(name="s")
    assert groups([x, y], [shared([x, a]), shared([y, b])]) == {
        frozenset({"x", "y"}),
        frozenset({"a", "b"}),
        frozenset({"s", "s_1"}),
    }


def test_a_shared_layer_behind_itself_has_one_range_all_through():
    x, shared = keras.Input((4,), name="x"), Computes(name="s")
    assert groups(x, shared(shared(x))) == {frozenset({"x", "s", "s_1"})}


def test_sharing_goes_through_moves_and_shared_layers_alike():
    x = keras.Input((4,), name="x")
    shared = Computes(name="s")
    y = shared(Moves(name="m")(Computes(name="a")(x)))
    z = shared(Computes(name="b")(x))
    assert groups(x, Moves(name="n")([y, z])) == {
        frozenset({"a", "m", "b"}),
        frozenset({"s", "s_1", "n"}),
    }


def test_a_group_lists_its_tensors_in_order():
    x = keras.Input((4,), name="x")
    y = Moves(name="m")(Computes(name="a")(x))
    found = range_groups(read_model(keras.Model(x, y)))
    assert found[Edge("m")] is found[Edge("a")]
    assert found[Edge("m")].edges == (Edge("a"), Edge("m"))


def test_layers_in_float_tie_nothing():
    x = keras.Input((4,), name="x")
    a, b, shared = Computes(name="a")(x), Computes(name="b")(x), MovesInFloat(name="s")
    assert groups(x, [shared(a), shared(b)]) == set()
