"""Batches from all kinds of data that users pass."""

import keras
import numpy as np
import pytest

from keras_qat.data.batches import batches, count_batches, counted_batches, labelled_batches
from keras_qat.errors import InvalidDataError

X = np.arange(40, dtype="float32").reshape(10, 4)
Y = np.arange(10)


def one_input(batch=None):
    x = keras.Input(batch_shape=(batch, 4), name="x")
    return keras.Model(x, keras.layers.Dense(2)(x))


def two_inputs():
    a, b = keras.Input((4,), name="a"), keras.Input((2, 3), name="b")
    return keras.Model([a, b], [keras.layers.Dense(2)(a), b])


def image_input():
    x = keras.Input((2, 2, 1), name="x")
    return keras.Model(x, keras.layers.Flatten()(x))


class Sequence(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return X[index : index + 1], Y[index : index + 1]


def dataset(*arrays, batch=4):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(arrays[0] if len(arrays) == 1 else arrays).batch(
        batch
    )


# The data, and the sizes of the batches made of it.
SINGLE = {
    "array": (lambda: X, [10]),
    "array cut to batches": (lambda: np.tile(X, (7, 1)), [32, 32, 6]),
    "tuple of an array": (lambda: (X,), [10]),
    "dict": (lambda: {"x": X, "other": Y}, [10]),
    "keras tensor": (lambda: keras.ops.convert_to_tensor(X), [10]),
    "list of batches": (lambda: [X[:4], X[4:]], [4, 6]),
    "list of samples": (lambda: list(X), [1] * 10),
    "list of pairs": (lambda: [(X[:4], Y[:4]), (X[4:], Y[4:])], [4, 6]),
    "list of triples": (lambda: [(X[:4], Y[:4], Y[:4])], [4]),
    "list of dicts": (lambda: [{"x": X[:4]}, {"x": X[4:]}], [4, 6]),
    "list of dicts with targets": (lambda: [({"x": X[:4]}, Y[:4])], [4]),
    "generator of batches": (lambda: (X[i : i + 5] for i in (0, 5)), [5, 5]),
    "generator of pairs": (lambda: ((X[i : i + 5], Y[i : i + 5]) for i in (0, 5)), [5, 5]),
    "iterator": (lambda: iter([X]), [10]),
    "dataset": (lambda: dataset(X), [4, 4, 2]),
    "dataset of pairs": (lambda: dataset(X, Y), [4, 4, 2]),
    "dataset of dicts": (lambda: dataset({"x": X}), [4, 4, 2]),
    "dataset of samples": (lambda: dataset(X).unbatch(), [1] * 10),
    "PyDataset": (Sequence, [1, 1, 1]),
}


@pytest.mark.parametrize("name", SINGLE)
def test_batches_of_one_input(name):
    make, sizes = SINGLE[name]
    found = list(batches(make(), one_input()))
    assert all(type(batch) is tuple and len(batch) == 1 for batch in found)
    assert [len(batch[0]) for batch in found] == sizes
    values = np.concatenate([batch[0] for batch in found])
    assert (values == np.resize(X, values.shape)).all()


A, B = X, np.arange(60, dtype="float32").reshape(10, 2, 3)
DOUBLE = {
    "tuple of arrays": (lambda: (A, B), [10]),
    "dict in another order": (lambda: {"b": B, "a": A}, [10]),
    "list of arrays": (lambda: [A, B], [10]),
    "list of tuples": (lambda: [(A[:4], B[:4]), (A[4:], B[4:])], [4, 6]),
    "list of lists": (lambda: [[A[:4], B[:4]]], [4]),
    "list of samples": (lambda: list(zip(A, B, strict=True)), [1] * 10),
    "list of dicts": (lambda: [{"b": B[:4], "a": A[:4]}], [4]),
    "inputs and targets": (lambda: [((A[:4], B[:4]), Y[:4])], [4]),
    "list of inputs and targets": (lambda: [([A[:4], B[:4]], Y[:4], None)], [4]),
    "dict and targets": (lambda: [({"b": B[:4], "a": A[:4]}, Y[:4])], [4]),
    "dataset": (lambda: dataset(A, B), [4, 4, 2]),
    "dataset with targets": (lambda: dataset((A, B), Y), [4, 4, 2]),
    "dataset of dicts with targets": (lambda: dataset({"b": B, "a": A}, Y), [4, 4, 2]),
}


@pytest.mark.parametrize("name", DOUBLE)
def test_batches_of_two_inputs(name):
    make, sizes = DOUBLE[name]
    found = list(batches(make(), two_inputs()))
    assert [len(batch[0]) for batch in found] == sizes
    for i, whole in enumerate((A, B)):
        values = np.concatenate([batch[i] for batch in found])
        assert (values == whole[: len(values)]).all()


def test_labelled_batches_take_a_dict_as_a_batch():
    first, second = keras.Input((2, 3), name="b"), keras.Input((4,), name="a")
    model = keras.Model([first, second], [first, second])
    ((_, targets, _),) = labelled_batches([({"a": A, "b": B}, Y)], model)
    assert targets.tolist() == Y.tolist()
    ((_, targets, weights),) = labelled_batches([({"a": A[0], "b": B[0]}, Y[0], 2.0)], model)
    assert targets.tolist() == [0] and weights.tolist() == [2]


def test_batches_take_no_more_than_steps():
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield X

    assert len(list(batches(endless(), one_input(), steps=3))) == 3
    assert len(taken) == 3


def test_batches_with_more_steps_take_all():
    assert len(list(batches([X, X], one_input(), steps=9))) == 2


def test_batches_keep_the_types_of_arrays():
    pixels = np.zeros((3, 4), "uint8")
    assert next(batches(pixels, one_input()))[0].dtype == "uint8"
    assert next(batches(dataset(pixels), one_input()))[0].dtype == "uint8"


def test_batches_of_a_sequential_model_take_a_dict(tmp_path):
    path = tmp_path / "model.keras"
    keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(2)]).save(path)
    loaded = keras.saving.load_model(path)  # a model that was not called yet
    assert [len(x) for (x,) in batches({"x": X}, loaded)] == [10]


@pytest.mark.parametrize("size", [0, -1, None, 2.5])
def test_batches_refuse_an_invalid_batch_size(size):
    with pytest.raises(InvalidDataError, match=f"batch_size={size}"):
        list(batches(X, one_input(), batch_size=size))
    with pytest.raises(InvalidDataError, match=f"batch_size={size}"):
        count_batches(X, one_input(), batch_size=size)


def test_batches_of_a_fixed_size_are_cut_and_filled_up():
    model = keras.Sequential([keras.Input((1,), batch_size=3), keras.layers.Dense(1)])
    rows = np.arange(5.0)[:, None]
    expected = [[0, 1, 2], [3, 4, 4]]
    for data in (rows, [rows], ((part, None) for part in (rows,))):
        found = [batch[0].ravel().tolist() for batch in batches(data, model)]
        assert found == expected
    parts = [batch[0].ravel().tolist() for batch in batches([rows[:2], rows[2:]], model)]
    assert parts == [[0, 1, 1], [2, 3, 4]]
    assert [count for _, count in counted_batches([rows[:2], rows[2:]], model)] == [2, 3]
    with pytest.raises(InvalidDataError, match=r"Expected: shape \(None, 1\)"):
        list(batches(np.zeros((3, 2)), model))


def test_batches_have_the_batch_size_of_the_model():
    assert [len(x) for (x,) in batches(X, one_input(batch=5))] == [5, 5]


WRONG = {
    "None": (lambda: None, "type cannot be read.* Received: NoneType"),
    "number": (lambda: 5, "type cannot be read.* Received: int"),
    "text": (lambda: "abc", "wrong number of inputs"),
    "scalar array": (lambda: np.array(5.0), r"Received: shapes \[\(\)\]"),
    "empty array": (lambda: X[:0], "no batches.* Received: an empty ndarray"),
    "empty list": (list, "no batches.* Received: an empty list"),
    "empty tuple": (tuple, "no batches"),
    "used up generator": (lambda: (x for x in ()), "no batches.* To fix it: .*created again"),
    "empty element": (lambda: [()], "wrong number of inputs.* Received: 0"),
    "batch of no samples": (lambda: [X[:0]], r"Batch 0 .*'x'.* Received: shape \(0, 4\)"),
    "too many inputs": (lambda: [[X, X]], r"wrong number of inputs.* Expected: 1: \['x'\]"),
    "plain lists": (lambda: [[1.0, 2.0, 3.0, 4.0]], "wrong number of inputs"),
    "other width": (
        lambda: X[:, :3],
        r"Batch 0 .*wrong shape.*'x'.* Expected: shape \(None, 4\). Received: .*\(10, 3\)",
    ),
    "other rank": (lambda: X[None, None], "wrong shape"),
    "wrong later batch": (lambda: [X, X[:, :2]], "Batch 1 .*wrong shape"),
    "text array": (lambda: np.array([["a"] * 4]), "not numeric.*'x'.* Received: dtype <U1"),
    "complex numbers": (lambda: X.astype("complex64"), "not numeric.* Expected: real numbers"),
    "objects": (lambda: np.array([[None] * 4]), "not numeric.* Received: dtype object"),
    "missing name": (lambda: {"y": X}, r"lacks inputs.* a dict with \['x'\].* Received: .*'y'"),
    "NaN": (lambda: np.where(X == 3, np.nan, X), "not finite.* Received: 1 NaN or infinite"),
    "infinity": (lambda: np.where(X < 3, np.inf, X), "not finite.* Received: 3 .* To fix it: "),
    "too large for float32": (lambda: X.astype("float64") * 1e300, "Received: 39 NaN or inf"),
}


@pytest.mark.parametrize("name", WRONG)
def test_batches_refuse_wrong_data_for_one_input(name):
    make, message = WRONG[name]
    with pytest.raises(InvalidDataError, match=message):
        list(batches(make(), one_input()))


@pytest.mark.parametrize("steps", [0, -1])
def test_batches_refuse_steps_that_are_not_positive(steps):
    with pytest.raises(InvalidDataError, match=f"steps={steps}"):
        list(batches(X, one_input(), steps=steps))


def test_batches_refuse_wrong_data_for_two_inputs():
    with pytest.raises(InvalidDataError, match=r"Expected: 2: \['a', 'b'\]"):
        list(batches([A], two_inputs()))
    with pytest.raises(InvalidDataError, match=r"\(10, 4\), \(9, 2, 3\)"):
        list(batches((A, B[:9]), two_inputs()))
    with pytest.raises(InvalidDataError, match="has the wrong shape.*'b'"):
        list(batches((A, A), two_inputs()))


def test_batches_take_one_image_as_a_sample():
    found = list(batches([np.zeros((2, 2, 1))] * 3, image_input()))
    assert [batch[0].shape for batch in found] == [(1, 2, 2, 1)] * 3


@pytest.mark.parametrize(
    ("data", "count"),
    [
        (np.zeros((40, 4)), 2),
        ((np.zeros((64, 4)),), 2),
        ({"x": np.zeros((65, 4))}, 3),
        ([np.zeros((8, 4))] * 5, 5),
        ((np.zeros((1, 4)) for _ in range(3)), None),
        (5, None),
    ],
)
def test_count_batches_counts_where_possible(data, count):
    model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(2)])
    assert count_batches(data, model) == count


def test_batches_prefer_keys_of_the_model_to_names_of_inputs():
    left, right = keras.Input((3,), name="right"), keras.Input((3,), name="other")
    with pytest.warns(UserWarning, match="all keys in the dict must match"):
        model = keras.Model({"left": left, "right": right}, keras.layers.Subtract()([left, right]))
    given = {"left": np.ones((4, 3)), "right": np.zeros((4, 3))}
    (batch,) = batches(given, model)
    np.testing.assert_array_equal(np.array(model(given)), batch[0] - batch[1])
    by_name = {"right": np.ones((4, 3)), "other": np.zeros((4, 3))}
    (batch,) = batches(by_name, model)
    np.testing.assert_array_equal(batch[0], by_name["right"])
    with pytest.raises(InvalidDataError, match=r"a dict with \['left', 'right'\]"):
        list(batches({"left": given["left"]}, model))


@pytest.mark.parametrize("has_targets", [True, False])
def test_batches_of_a_torch_data_loader_have_its_inputs(has_targets):
    torch = pytest.importorskip("torch")
    x, y = torch.from_numpy(X), torch.from_numpy(Y)
    data = torch.utils.data.TensorDataset(*([x, y] if has_targets else [x]))
    loader = torch.utils.data.DataLoader(data, batch_size=4)
    found = [batch[0] for batch in batches(loader, one_input())]
    assert [len(batch) for batch in found] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate(found), X)


def test_batches_of_a_torch_data_loader_of_two_inputs_are_paired():
    torch = pytest.importorskip("torch")
    a, b = torch.from_numpy(X[:6]), torch.arange(36.0).reshape(6, 2, 3)
    pairs = [((a[i], b[i]), i) for i in range(6)]
    loader = torch.utils.data.DataLoader(pairs, batch_size=4)
    first, second = batches(loader, two_inputs())
    np.testing.assert_array_equal(np.concatenate([first[0], second[0]]), a)
    np.testing.assert_array_equal(np.concatenate([first[1], second[1]]), b)
