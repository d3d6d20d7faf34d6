"""Models of one batch size against hand-computed shapes and the interpreter."""

import numpy as np

from keras_qat.litert import Model, Operator, Runner, Tensor, to_bytes
from keras_qat.litert.writing.fixed_batch import fix_batch, fold_shapes


def constant(name, values):
    return Tensor(name, np.shape(values), "int32", data=np.array(values, "int32"))


def reshape(x, shape, name, sizes):
    options = {"newShape": sizes.data}
    return Operator("RESHAPE", (x, sizes), (Tensor(name, shape, "float32"),), 1, options)


def constant_of(operator):
    """Returns the name and the values of the shape constant of a RESHAPE."""
    _, sizes = operator.inputs
    assert sizes is not None and sizes.data is not None
    return sizes.name, sizes.data.tolist()


def test_fix_batch_splits_a_constant_with_two_shapes():
    x, small = Tensor("x", (None, 2, 3), "float32"), Tensor("small", (None, 1, 3), "float32")
    sizes = constant("sizes", [-1, 3])
    operators = (reshape(x, (None, 3), "many", sizes), reshape(small, (None, 3), "few", sizes))
    outputs = {each.outputs[0].name: each.outputs[0] for each in operators}
    fixed = fix_batch(Model({"x": x, "small": small}, outputs, operators), 5)
    assert [constant_of(each)[1] for each in fixed.operators] == [[10, 3], [5, 3]]
    assert [each.options["newShape"].tolist() for each in fixed.operators] == [[10, 3], [5, 3]]
    assert len({constant_of(each)[0] for each in fixed.operators}) == 2
    arrays = [np.zeros((5, 2, 3), "float32"), np.zeros((5, 1, 3), "float32")]
    assert [y.shape for y in Runner(to_bytes(fixed)).run(arrays)] == [(10, 3), (5, 3)]


def shape_plus(addend):
    """Makes a model that computes a shape for a RESHAPE."""
    x, y = Tensor("x", (2, 6), "float32"), Tensor("y", (4, 3), "float32")
    known, larger = Tensor("known", (2,), "int32"), Tensor("larger", (2,), "int32")
    operators = (
        Operator("SHAPE", (x,), (known,), 1, {"outType": "INT32"}),
        Operator("ADD", (known, addend), (larger,), 1),
        Operator("RESHAPE", (x, larger), (y,)),
    )
    return Model({"x": x}, {"y": y}, operators)


def test_fold_shapes_computes_what_litert_computes():
    model, x = shape_plus(constant("addend", [2, -3])), np.array([range(6), range(6)], "float32")
    folded = fold_shapes(model)
    assert [each.code for each in folded.operators] == ["RESHAPE"]
    assert constant_of(folded.operators[0])[1] == [4, 3]
    results = [Runner(to_bytes(each)).run([x])[0].tolist() for each in (model, folded)]
    assert results[0] == results[1]


def test_fold_shapes_leaves_unknown_shapes():
    addend = Tensor("addend", (2,), "int32")
    model = shape_plus(addend)
    model = Model({**model.inputs, "addend": addend}, model.outputs, model.operators)
    assert [each.code for each in fold_shapes(model).operators] == ["ADD", "RESHAPE"]
