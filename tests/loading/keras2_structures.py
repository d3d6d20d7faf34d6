"""Models of Keras 2 with structures, dtype policies, and functions of TensorFlow."""

import numpy as np
import tensorflow as tf
import tf_keras as keras
from tf_keras.src.engine.base_layer import TensorFlowOpLayer

from tests.loading.keras2_models import L, model, sequential


@model
def nested():
    inner = keras.Input((8, 8, 3), name="pixels")
    y = L.BatchNormalization(name="norm", trainable=False)(L.Conv2D(4, 3, name="conv")(inner))
    block = sequential((6, 6, 4), L.SeparableConv2D(4, 3), L.BatchNormalization())
    features = keras.Model(inner, [y, block(y)], name="features")
    x = keras.Input((8, 8, 3))
    first, second = features(x)
    return keras.Model(x, [L.Flatten()(first), L.GlobalMaxPooling2D()(second)])


@model
def frozen_nested():
    block = sequential((6,), L.Dense(5), L.BatchNormalization(), L.Dense(4))
    block.trainable = False
    deep = keras.Sequential([block, L.Dense(4), L.BatchNormalization()])
    return sequential((6,), deep, L.Dense(2))


@model
def shared_layers():
    x, y = keras.Input((5,)), keras.Input((5,))
    layer, block = L.Dense(4), sequential((4,), L.Dense(4, activation="tanh"))
    made = [block(layer(x)), block(layer(y)), layer(x)]
    return keras.Model([x, y], L.Concatenate()(made))


@model
def dict_inputs():
    x, y = keras.Input((3,), name="left"), keras.Input((3,), name="right")
    return keras.Model({"left": x, "right": y}, {"sum": L.Add()([x, y]), "dense": L.Dense(2)(x)})


@model
def slashed_names():
    x = keras.Input((8, 8, 3), name="input/image")
    y = L.BatchNormalization(name="block1/conv/bn")(L.Conv2D(4, 3, name="block1/conv")(x))
    return keras.Model(x, L.ReLU(name="block1/relu")(y), name="dense/net")


@model
def policies():
    policy = keras.mixed_precision.Policy("mixed_float16")
    x = keras.Input((6, 6, 3))
    y = L.Conv2D(4, 3, dtype=keras.mixed_precision.Policy("float32"))(x)
    return keras.Model(x, L.Activation("linear", dtype="float32")(L.ReLU(dtype=policy)(y)))


@model
def compiled():
    built = sequential((4,), L.Dense(3, activation="softmax"))
    optimizer = keras.optimizers.legacy.SGD(learning_rate=0.05, momentum=0.9, decay=1e-4)
    built.compile(optimizer, "categorical_crossentropy", metrics=["accuracy"])
    built.fit(np.ones((4, 4)), np.eye(3)[[0, 1, 2, 0]], verbose=0)
    return built


@model
def functions_of_arithmetic():
    x = keras.Input((6, 6, 4))
    y = 2.0 - tf.nn.relu6(x * 0.5 + 3.0) / 6.0
    y = tf.maximum(y, -x) + tf.minimum(y, 0.3) - tf.square(x)
    y = tf.abs(y) ** 1.5 + tf.exp(-tf.abs(y)) * tf.sqrt(tf.abs(x) + 0.1)
    y = tf.where(y > 0.5, y, tf.sigmoid(x)) + tf.tanh(y) + tf.nn.leaky_relu(x, 0.1)
    y = tf.math.squared_difference(y, x) + tf.math.rsqrt(tf.abs(y) + 1.0) + tf.nn.silu(y)
    y = tf.math.divide_no_nan(y, tf.nn.relu(x)) + tf.nn.elu(x) + tf.nn.selu(x) + tf.nn.softplus(x)
    y = tf.clip_by_value(y, -4.0, 4.0) + tf.nn.gelu(x) + tf.math.log(tf.abs(x) + 1.0)
    y = tf.math.add_n([y, x, tf.nn.softmax(x)]) + tf.sign(x) + tf.round(x) + tf.math.log1p(x * x)
    return keras.Model(x, tf.cast(tf.greater(y, x), "float32") + tf.identity(y))


@model
def functions_of_shapes():
    x = keras.Input((6, 8, 4))
    y = tf.concat([x[:, 1:5, ::2, :3], x[:, :4, 4:, -3:]], axis=-1)
    y = tf.pad(tf.transpose(y, [0, 2, 1, 3]), [[0, 0], [1, 1], [0, 2], [0, 0]])
    left, middle, right = tf.split(y, [1, 2, 3], axis=-1)
    y = tf.concat([tf.tile(left, [1, 1, 1, 2]), middle, right], 3)
    y = tf.nn.depth_to_space(tf.nn.space_to_depth(y[:, :, :, :4], 2), 2)
    y = tf.expand_dims(tf.reduce_mean(y, axis=[1, 2], keepdims=True), 1)
    y = tf.squeeze(y, axis=[1, 2, 3])
    y = tf.stack([y, y * 2.0], axis=1)
    y = tf.reshape(tf.linalg.matmul(y, y, transpose_b=True), (tf.shape(y)[0], 4))
    a, b, c, d = tf.unstack(y, axis=1)
    return keras.Model(x, [tf.stack([a, b + c], axis=-1), tf.reverse(y, [1]), d])


@model
def functions_of_images():
    x = keras.Input((8, 8, 4))
    y = tf.image.resize(x, (12, 12)) + tf.image.resize(x, [12, 12], method="nearest")
    y = tf.nn.max_pool2d(y, 2, 2, "VALID") + tf.nn.avg_pool2d(y, 2, 2, "SAME")
    total = tf.reduce_sum(y, axis=-1) + tf.reduce_max(y, -1) - tf.reduce_min(y, axis=3)
    normal = tf.math.l2_normalize(y, axis=-1)
    one = tf.cast(tf.argmax(y, axis=-1), "float32") + tf.math.reduce_std(y, axis=-1)
    return keras.Model(x, [total + one, normal[..., 0], tf.gather(y, [0, 2], axis=3)])


@model
def functions_of_constants():
    """Subtracts the means of the channels without a `Normalization` layer."""
    x = keras.Input((6, 6, 3))
    y = (x - np.array([0.4, 0.5, 0.6], "float32")) / tf.constant([0.2, 0.3, 0.4])
    y = L.GlobalAveragePooling2D()(tf.constant([1.0, 2.0, 3.0]) * L.Conv2D(3, 3)(y))
    y = tf.clip_by_value(L.Dense(6)(y), [-1.0] * 6, 1.0)
    return keras.Model(x, tf.reshape(y, [tf.shape(y)[0], 3, -1]))


@model
def added_losses():
    x = keras.Input((4,))
    y = L.Dense(3)(x)
    built = keras.Model(x, y)
    built.add_loss(tf.reduce_mean(tf.square(y)))
    built.add_metric(tf.reduce_max(y), name="largest")
    return built


@model
def operators():
    """Makes calls of functions as TensorFlow 2.1 saved them."""
    x = keras.Input((4, 4, 3))

    def operator(name, inputs, constants=None, **attributes):
        node = tf.compat.v1.NodeDef(name=name.lower(), op=name)
        node.input.extend(f"input_{i}" for i in range(len(constants or {}) + len(inputs)))
        for key, value in {"T": tf.float32.as_datatype_enum, **attributes}.items():
            field = {str: "s", bool: "b"}.get(type(value), "type")
            value = value.encode() if isinstance(value, str) else value
            setattr(node.attr[key], field, value)
        layer = TensorFlowOpLayer(node.SerializeToString(), f"{name}_{len(names)}", constants)
        names.append(name)
        return layer(inputs if len(inputs) > 1 else inputs[0])

    names, int32 = [], tf.int32.as_datatype_enum
    y = operator("AddV2", [x], {1: np.float32(3.0)})
    y = operator("Mul", [operator("Relu6", [y]), x])
    y = operator("Sub", [y], {0: np.float32(1.0)})
    y = operator("Mean", [y], {1: np.array([1, 2], "int32")}, keep_dims=True, Tidx=int32)
    y = operator("Maximum", [y, operator("Sigmoid", [y])])
    return keras.Model(x, operator("Reshape", [y], {1: np.array([-1, 3], "int32")}, Tshape=int32))
