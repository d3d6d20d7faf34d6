"""write_products: products of two tensors become products of batches of matrices."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_qat
from keras_qat.errors import UnsupportedLayerError
from keras_qat.layers import QMatmul
from keras_qat.passes.contracting import Contraction
from tests.passes.customs import assert_exact, normal

Dot = keras.layers.Dot
SHAPES = {"x": (5, 6, 4), "rows": (6, 4), "columns": (4, 6), "vector": (4,), "other": (4,)}
PRODUCTS = {
    "einsum": (("x", "rows"), lambda x, y: ops.einsum("bijc,bjc->bij", x, y)),
    "einsum_of_two_axes": (("x", "rows"), lambda x, y: ops.einsum("bijc,bjc->bi", x, y)),
    "einsum_permuted": (("x", "columns"), lambda x, y: ops.einsum("bijc,bcd->bdij", x, y)),
    "einsum_with_ellipsis": (("rows", "vector"), lambda x, y: ops.einsum("...jc,...c->...j", x, y)),
    "einsum_without_sum": (("rows", "vector"), lambda x, y: ops.einsum("bjc,bc->bjc", x, y)),
    "dot": (("rows", "columns"), lambda x, y: Dot(axes=(2, 1))([x, y])),
    "dot_of_a_negative_axis": (("rows", "vector"), lambda x, y: Dot(axes=-1)([x, y])),
    "dot_of_vectors": (("vector", "other"), lambda x, y: Dot(axes=1)([x, y])),
    "dot_normalized": (("rows", "vector"), lambda x, y: Dot(axes=(2, 1), normalize=True)([x, y])),
    "dot_of_images": (("x", "rows"), lambda x, y: Dot(axes=(3, 2))([x, y])),
}


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", PRODUCTS)
def test_write_products_is_exact(name, tmp_path):
    used, product = PRODUCTS[name]
    inputs = [keras.Input(SHAPES[key]) for key in used]
    model = keras.Model(inputs, product(*inputs))
    data = tuple(normal(SHAPES[key], seed=i) for i, key in enumerate(used))
    quantized = assert_exact(model, data, tmp_path)
    assert sum(isinstance(layer, QMatmul) for layer in quantized.layers) == 1


def test_write_products_leaves_a_batched_product():
    x = keras.Input((5, 5))
    clone = keras_qat.clone_model(keras.Model(x, x @ x))
    assert [type(layer).__name__ for layer in clone.layers[1:]] == ["QMatmul"]


def test_write_products_refuses_a_sum_over_the_batch():
    x = keras.Input((5, 4), batch_size=3)
    with pytest.raises(UnsupportedLayerError, match="einsum"):
        keras_qat.quantize_model(keras.Model(x, ops.einsum("bij,bij->ij", x, x)))


def test_contraction_finds_the_axes():
    found = Contraction("abcd", "aed", "acbe")
    assert (found.summed, found.batch) == ("d", "a")
    assert (found.free(found.a), found.free(found.b)) == ("cb", "e")
    assert found.is_product
    assert not Contraction("aab", "bc", "ac").is_product  # a diagonal
    assert not Contraction("abc", "cd", "ad").is_product  # a sum in one operand only
    assert found.swapped == Contraction("aed", "abcd", "acbe")


def test_write_products_by_hand():
    """[1 2] . [[1 2] [3 4]] is [7 10]."""
    x, y = keras.Input((2,)), keras.Input((2, 2))
    clone = keras_qat.clone_model(keras.Model([x, y], ops.einsum("bi,bij->bj", x, y)))
    data = np.array([[1.0, 2.0]], "float32"), np.array([[[1.0, 2.0], [3.0, 4.0]]], "float32")
    assert np.array(clone(data)).tolist() == [[7.0, 10.0]]
