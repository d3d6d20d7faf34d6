"""Small files by other writers: TensorFlow's converter, or the classes of the schema."""

import contextlib
import io
import warnings
from functools import cache

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema


def packed(table):
    builder = flatbuffers.Builder(1024)
    builder.Finish(table.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def unpacked(content):
    return schema.ModelT.InitFromPackedBuf(content)


def repacked(content, change):
    """Returns the file with a `ModelT` changed by `change`."""
    table = unpacked(content)
    change(table)
    return packed(table)


def tensor(name, shape, dtype=schema.TensorType.FLOAT32, buffer=0, **fields):
    return schema.TensorT(name=name, shape=list(shape), type=dtype, buffer=buffer, **fields)


def one_operator(code, tensors, inputs, outputs, buffers=(), **fields):
    """Makes a file of one operator. `inputs` and `outputs` are indices of tensors.

    Buffers are numbered from 1.
    """
    given = [i for i in inputs if i >= 0 and not tensors[i].buffer]
    graph = schema.SubGraphT(
        tensors=tensors,
        inputs=given,
        outputs=list(outputs),
        operators=[schema.OperatorT(inputs=list(inputs), outputs=list(outputs), **fields)],
    )
    return packed(
        schema.ModelT(
            version=3,
            operatorCodes=[code],
            subgraphs=[graph],
            buffers=[schema.BufferT(), *(schema.BufferT(data=list(data)) for data in buffers)],
        )
    )


def builtin(number, version=1):
    return schema.OperatorCodeT(
        builtinCode=number, deprecatedBuiltinCode=min(number, 127), version=version
    )


DENSE = np.array([[0, 1, 0, 2], [0, 0, 0, 0], [3, 0, 0, 4]], np.float32)


def sparse():
    """Computes x + DENSE. Only the four elements of DENSE that are not zero are stored."""
    rows = schema.DimensionMetadataT(format=schema.DimensionType.DENSE, denseSize=3)
    columns = schema.DimensionMetadataT(
        format=schema.DimensionType.SPARSE_CSR,
        arraySegmentsType=schema.SparseIndexVector.Int32Vector,
        arraySegments=schema.Int32VectorT([0, 2, 2, 4]),
        arrayIndicesType=schema.SparseIndexVector.Int32Vector,
        arrayIndices=schema.Int32VectorT([1, 3, 0, 3]),
    )
    sparsity = schema.SparsityParametersT(traversalOrder=[0, 1], dimMetadata=[rows, columns])
    tensors = [tensor("sparse", (3, 4), buffer=1, sparsity=sparsity), tensor("dense", (3, 4))]
    code = builtin(schema.BuiltinOperator.DENSIFY)
    values = np.array([1, 2, 3, 4], np.float32).tobytes()

    def add_input(table):
        graph = table.subgraphs[0]
        graph.tensors += [tensor("x", (3, 4)), tensor("y", (3, 4))]
        graph.inputs, graph.outputs = [2], [3]
        graph.operators.append(schema.OperatorT(opcodeIndex=1, inputs=[2, 1], outputs=[3]))
        table.operatorCodes.append(builtin(schema.BuiltinOperator.ADD))

    return repacked(one_operator(code, tensors, [0], [1], [values]), add_input)


def custom():
    code = schema.OperatorCodeT(builtinCode=32, deprecatedBuiltinCode=32, customCode="Mine")
    x, y = tensor("x", (1, 2)), tensor("y", (1, 2))
    return one_operator(code, [x, y], [0], [1], customOptions=[1, 2, 3])


def newer_than_the_schema():
    x, y = (tensor(name, (1, 2), schema.TensorType.INT8) for name in "xy")
    return one_operator(builtin(1000), [x, y], [0], [1])


def large():
    """Makes a constant after the tables, as in files over 2 GiB."""
    x, c, y = tensor("x", (2,)), tensor("c", (2,), buffer=1), tensor("y", (2,))
    content = one_operator(builtin(schema.BuiltinOperator.ADD), [x, c, y], [0, 1], [2], [b""])

    def place(table):
        table.buffers[1] = schema.BufferT(offset=end, size=8)

    end = 16  # as wide as the real one, so that the second packing has the same length
    end = -(-len(repacked(content, place)) // 16) * 16
    return repacked(content, place).ljust(end, b"\0") + np.array([10, 20], np.float32).tobytes()


@cache
def converted(kind):
    """Returns a file of TensorFlow's converter."""
    import tensorflow as tf

    converter = _control_flow(tf) if kind == "control flow" else _network(tf)
    if kind not in ("float32", "control flow"):
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if kind == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if kind in ("int8", "int16"):
        converter.representative_dataset = _images
    if kind == "int8":
        converter.inference_input_type = converter.inference_output_type = tf.int8
    if kind == "int16":
        int16 = tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        converter.target_spec.supported_ops = [int16]
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of missing statistics, though there is data
        return converter.convert()


KINDS = ("float32", "float16", "dynamic range", "int8", "int16", "control flow")


def _images():
    rng = np.random.default_rng(0)
    return ([rng.normal(size=(1, 8, 8, 3)).astype("float32")] for _ in range(4))


def _network(tf):
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3), batch_size=1),
            layers.Conv2D(4, 3, padding="same", activation="relu"),
            layers.DepthwiseConv2D(3, strides=2),
            layers.Conv2DTranspose(2, 2, strides=2),
            layers.AveragePooling2D(2),
            layers.Flatten(),
            layers.Dense(80, activation="relu"),
            layers.Dense(80, activation="softmax"),
        ]
    )
    return tf.lite.TFLiteConverter.from_keras_model(model)


def _control_flow(tf):
    weights = tf.constant(np.random.default_rng(0).normal(size=(8, 4)).astype("float32"))

    class Branches(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([1, 8], tf.float32)])
        def __call__(self, x):
            y = tf.matmul(x, weights)
            (y,) = tf.while_loop(lambda y: tf.reduce_sum(y) < 10.0, lambda y: [y * 2 + 1], [y])
            return {"out": tf.cond(tf.reduce_sum(y) > 3.0, lambda: y + 1, lambda: y * 2)}

    module = Branches()
    function = module.__call__.get_concrete_function()  # pyright: ignore
    return tf.lite.TFLiteConverter.from_concrete_functions([function], module)
