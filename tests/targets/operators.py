"""Operators written by hand, and models of one operator."""

import numpy as np

from keras_qat.litert import Model, Operator, Quantization, Tensor
from keras_qat.litert.writing.static_shapes import unknown_sizes
from keras_qat.targets.measured import Measured


def grid(*scales, zero_point=0, axis=0):
    return Quantization(
        np.array(scales, "float32"), np.full(len(scales), zero_point, "int64"), axis
    )


def tensor(shape, dtype="int8", scales=(0.5,), data=None, name="x"):
    quantization = None if dtype in ("int32", "float32") else grid(*scales)
    return Tensor(name, shape, dtype, quantization, data)


def constant(values, dtype="int32"):
    values = np.array(values, dtype)
    return Tensor("constant", values.shape, dtype, data=values)


def operator(code, inputs, shape, *, version=1, dtype="int8", name="layer", **options):
    inputs = tuple(
        tensor(x, name=f"x{i}") if isinstance(x, tuple) else x for i, x in enumerate(inputs)
    )
    return Operator(code, inputs, (tensor(shape, dtype, name=name),), version, options)


def model_of(*operators):
    """Makes a model of operators. Tensors that no operator computes are inputs."""
    made = {out for each in operators for out in each.outputs}
    inputs = {x for each in operators for x in each.inputs if x is not None and x.data is None}
    fed = {x.name: x for each in operators for x in each.inputs if x in inputs - made}
    return Model(fed, {out.name: out for out in operators[-1].outputs}, tuple(operators))


def measured(each, siblings=()):
    return Measured(each, unknown_sizes(model_of(each)), siblings or [each.code])


def convolution(shape, window, made, *, filters=4, scales=(0.1,), dtype="int8", **options):
    """Makes a CONV_2D of ones with a stride of 1 and without padding."""
    size = (filters, *window, shape[-1])
    weights = Tensor("kernel", size, dtype, grid(*scales), np.ones(size, dtype))
    chosen = {"padding": "VALID", "strideH": 1, "strideW": 1}
    chosen |= {"dilationHFactor": 1, "dilationWFactor": 1, "fusedActivationFunction": "NONE"}
    bias = constant(np.zeros(filters))
    x = tensor(shape)
    return operator("CONV_2D", (x, weights, bias), made, version=3, **{**chosen, **options})
