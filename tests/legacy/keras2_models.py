"""Writes files with `tf_keras`, which is Keras 2, and what it predicts; a process of its own.

python keras2_models.py FOLDER: makes FOLDER/NAME.h5, FOLDER/NAME_weights.h5 and FOLDER/NAME.npz for
each model below, and FOLDER/classes.json, the classes of the layers in each. With names of
`keras.applications` behind it: these models instead.
"""

import json
import pathlib
import sys

import numpy as np
import tensorflow as tf
import tf_keras as keras
from tf_keras.src.engine.base_layer import TensorFlowOpLayer

L = keras.layers
MODELS = {}


def model(function):
    MODELS[function.__name__] = function
    return function


def sequential(shape, *layers, **arguments):
    return keras.Sequential([keras.Input(shape, **arguments), *layers])


@model
def dense():
    return sequential(
        (6,),
        L.Dense(5, activation="relu", kernel_regularizer="l2", kernel_constraint="max_norm"),
        L.Dropout(0.2),
        L.Dense(4, activation="swish", kernel_initializer=keras.initializers.VarianceScaling()),
        L.ActivityRegularization(l2=0.1),
        L.Dense(3, activation="softmax", use_bias=False),
    )


@model
def deferred_sequential():
    built = keras.Sequential([L.Conv2D(3, 3, input_shape=(6, 6, 2)), L.Flatten(), L.Dense(2)])
    return built


@model
def activations():
    names = ["elu", "exponential", "gelu", "hard_sigmoid", "linear", "mish", "relu", "selu"]
    names += ["sigmoid", "silu", "softmax", "softplus", "softsign", "swish", "tanh"]
    x = keras.Input((4, 3))
    return keras.Model(x, L.Concatenate()([L.Activation(name)(x) for name in names]))


@model
def activation_layers():
    x = keras.Input((4, 3))
    made = [L.LeakyReLU(0.1), L.PReLU(shared_axes=[1]), L.ELU(0.5), L.Softmax(axis=1)]
    made += [L.ReLU(6.0, negative_slope=0.1, threshold=0.2), L.ThresholdedReLU(0.3)]
    made += [L.ReLU(), L.LeakyReLU(), L.PReLU(), L.Softmax()]
    return keras.Model(x, L.Concatenate()([layer(x) for layer in made]))


@model
def activation_objects():
    return sequential(
        (6, 6, 2),
        L.Conv2D(3, 3, activation=L.LeakyReLU(0.1)),
        L.DepthwiseConv2D(3, activation=keras.activations.hard_sigmoid),
        L.Dense(3, activation=keras.activations.gelu),
    )


@model
def convolutions():
    x = keras.Input((12, 12, 4))
    y = L.Conv2D(8, 3, padding="same", activation="relu", groups=2)(x)
    y = L.DepthwiseConv2D(3, depth_multiplier=2, strides=2, padding="same")(y)
    y = L.SeparableConv2D(6, 3, dilation_rate=2, padding="same", depth_multiplier=2)(y)
    y = L.Conv2DTranspose(4, 3, strides=2, padding="same")(y)
    return keras.Model(x, L.Conv2D(3, 1, dilation_rate=1)(y))


@model
def convolutions_1d():
    x = keras.Input((16, 4))
    y = L.Conv1D(6, 3, padding="causal", dilation_rate=2)(x)
    y = L.DepthwiseConv1D(3, padding="same")(y)
    y = L.SeparableConv1D(5, 3)(y)
    return keras.Model(x, L.Conv1DTranspose(4, 3, strides=2)(y))


@model
def convolutions_3d():
    x = keras.Input((6, 6, 6, 2))
    y = L.Conv3D(3, 3, padding="same")(x)
    y = L.MaxPooling3D()(y)
    y = L.Conv3DTranspose(2, 2)(y)
    y = L.ZeroPadding3D(1)(y)
    y = L.Cropping3D(((0, 1), (1, 0), (1, 1)))(y)
    y = L.UpSampling3D(2)(y)
    y = L.AveragePooling3D(2)(y)
    y = L.SpatialDropout3D(0.2)(y)
    return keras.Model(x, [L.GlobalAveragePooling3D()(y), L.GlobalMaxPooling3D(keepdims=True)(y)])


@model
def pooling():
    x = keras.Input((12, 12, 3))
    y = L.MaxPooling2D(3, strides=2, padding="same")(x)
    y = L.AveragePooling2D(2, padding="same")(y)
    y = L.ZeroPadding2D(((1, 0), (2, 1)))(y)
    y = L.UpSampling2D(2, interpolation="bilinear")(y)
    y = L.UpSampling2D((1, 2))(y)
    y = L.Cropping2D(((0, 1), (1, 1)))(y)
    y = L.SpatialDropout2D(0.1)(y)
    pooled = [L.GlobalAveragePooling2D(keepdims=True)(y), L.GlobalMaxPooling2D(keepdims=True)(y)]
    return keras.Model(x, L.Flatten()(L.Concatenate(axis=-1)(pooled)))


@model
def pooling_1d():
    x = keras.Input((16, 3))
    y = L.MaxPooling1D(2)(L.ZeroPadding1D((1, 2))(x))
    y = L.AveragePooling1D(2, padding="same")(L.UpSampling1D(3)(y))
    y = L.SpatialDropout1D(0.1)(L.Cropping1D((1, 0))(y))
    return keras.Model(x, [L.GlobalAveragePooling1D()(y), L.GlobalMaxPooling1D()(y)])


@model
def normalizations():
    x = keras.Input((6, 6, 4))
    y = L.BatchNormalization(momentum=0.9, epsilon=1e-4)(x)
    y = L.LayerNormalization(axis=[-1], epsilon=1e-3)(y)
    y = L.GroupNormalization(2)(y)
    y = L.BatchNormalization(center=False, scale=False)(y)
    y = L.BatchNormalization(synchronized=True)(y)
    return keras.Model(x, L.UnitNormalization(axis=-1)(y))


@model
def synchronized_normalization():
    return sequential((4, 4, 3), L.experimental.SyncBatchNormalization(), L.Conv2D(2, 2))


@model
def learned_normalization():
    layer = L.Normalization()
    layer.adapt(np.random.default_rng(5).normal(3.0, 2.0, (64, 5)))
    return sequential((5,), layer, L.Dense(3))


@model
def fixed_preprocessing():
    return sequential(
        (10, 10, 3),
        L.Rescaling(1 / 127.5, offset=-1.0),
        L.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 3.0]),
        L.Resizing(8, 8),
        L.CenterCrop(6, 6),
    )


@model
def augmentation():
    return sequential(
        (8, 8, 3),
        L.RandomFlip("horizontal"),
        L.RandomRotation(0.1),
        L.RandomZoom(0.1),
        L.RandomTranslation(0.1, 0.1),
        L.RandomContrast(0.2),
        L.RandomBrightness(0.2),
        L.GaussianNoise(0.1),
        L.GaussianDropout(0.1),
        L.AlphaDropout(0.1),
    )


@model
def merges():
    x, y = keras.Input((5, 4)), keras.Input((5, 4))
    classes = (L.Add, L.Subtract, L.Multiply, L.Average, L.Maximum, L.Minimum)
    made = [merge()([x, y]) for merge in classes]
    dots = [L.Dot(axes=2)([x, y]), L.Dot(axes=(1, 1), normalize=True)([x, y])]
    return keras.Model([x, y], [L.Concatenate(axis=1)(made), *dots])


@model
def reshaping():
    x = keras.Input((4, 6))
    y = L.Permute((2, 1))(L.Reshape((-1, 3))(x))
    y = L.RepeatVector(2)(L.Flatten()(y))
    return keras.Model(x, L.Identity()(y))


@model
def embedding():
    x = keras.Input((7,), dtype="int32")
    y = L.Embedding(20, 5, input_length=7, mask_zero=True)(x)
    return keras.Model(x, L.Dense(3)(L.LSTM(4)(y)))


@model
def recurrent():
    x = keras.Input((6, 3))
    y = L.Masking(0.0)(x)
    y = L.LSTM(4, return_sequences=True, recurrent_activation="hard_sigmoid")(y)
    y = L.GRU(4, return_sequences=True)(y)
    y = L.GRU(3, return_sequences=True, reset_after=False, go_backwards=True)(y)
    y = L.Bidirectional(L.LSTM(2, return_sequences=True))(y)
    y = L.Bidirectional(L.GRU(2), merge_mode="sum")(y)
    return keras.Model(x, y)


@model
def recurrent_cells():
    x = keras.Input((6, 3))
    y, state, _ = L.LSTM(4, return_sequences=True, return_state=True)(x)
    y = L.SimpleRNN(4, return_sequences=True)(y, initial_state=state)
    y = L.RNN(L.GRUCell(3), return_sequences=True)(y)
    cells = L.StackedRNNCells([L.LSTMCell(3), L.LSTMCell(2)])
    y = L.RNN([L.SimpleRNNCell(2), L.SimpleRNNCell(3)], return_sequences=True)(y)
    return keras.Model(x, L.RNN(cells)(y))


@model
def convolutional_recurrent():
    x, y = keras.Input((4, 8, 2)), keras.Input((3, 6, 6, 2))
    one = L.ConvLSTM1D(3, 3, padding="same")(x)
    two = L.ConvLSTM2D(2, 3, return_sequences=True)(y)
    three = L.ConvLSTM3D(1, 2)(L.Reshape((3, 4, 2, 2, 2))(two))
    return keras.Model([x, y], [one, three])


@model
def wrappers():
    x = keras.Input((5, 6, 6, 2))
    y = L.TimeDistributed(L.Conv2D(3, 3, activation="relu"))(x)
    return keras.Model(x, L.TimeDistributed(sequential((4, 4, 3), L.Flatten(), L.Dense(4)))(y))


@model
def attention():
    x, y = keras.Input((5, 8)), keras.Input((7, 8))
    made = [L.MultiHeadAttention(2, 4, value_dim=3)(x, y), L.MultiHeadAttention(1, 2)(x, y, key=y)]
    made += [L.Attention(use_scale=True)([x, y]), L.AdditiveAttention()([x, y, y])]
    return keras.Model([x, y], L.Add()(made))


@model
def einsum():
    layer = L.EinsumDense("abc,cd->abd", (None, 6), bias_axes="d", activation="relu")
    return sequential((5, 4), layer)


@model
def categories():
    x = keras.Input((4,))
    y = L.Discretization(bin_boundaries=[-1.0, 0.0, 1.0])(x)
    return keras.Model(x, L.CategoryEncoding(4, output_mode="multi_hot")(y))


@model
def lookups():
    x = keras.Input((4,), dtype="int64")
    y = L.IntegerLookup(vocabulary=[2, 4, 6, 8])(x)
    return keras.Model(x, [L.Embedding(6, 3)(y), L.Hashing(5)(x)])


@model
def words():
    x, y = keras.Input((1,), dtype="string"), keras.Input((1,), dtype="string")
    made = [L.StringLookup(vocabulary=["a", "b", "c"])(x), L.HashedCrossing(7)((x, y))]
    text = L.TextVectorization(vocabulary=["a", "b", "d"], output_sequence_length=3)(y)
    return keras.Model([x, y], [*made, text])


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
    """The means of the channels are taken off, as before there was a `Normalization`."""
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
    """As TensorFlow 2.1 saved calls of functions."""
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


def inputs_of(built, seed):
    generator = np.random.default_rng(seed)
    made = {}
    for tensor in tf.nest.flatten(built.inputs):
        shape = (3, *(size or 5 for size in tensor.shape[1:]))
        if tensor.dtype == tf.string:
            values = generator.choice(["a", "b", "c", "d"], (3, 1))
            made[tensor.name] = values
            continue
        if tensor.dtype.is_integer:
            values = generator.integers(0, 9, shape)
        else:
            values = generator.normal(0.0, 1.0, shape)
        made[tensor.name] = values.astype(tensor.dtype.as_numpy_dtype)
    return made


def randomize(built, seed):
    """Weights that no two layers share, and statistics that are not the initial ones."""
    generator = np.random.default_rng(seed)
    for weight in built.weights:
        if weight.dtype.is_integer or weight.name in ("mean:0", "variance:0"):
            continue  # of a Normalization, which has computed with them already
        # Through a hundred layers too, signals stay of a size that float32 is exact enough for.
        inputs = np.prod(weight.shape[:-1]) if len(weight.shape) > 1 else 4.0
        values = generator.normal(0.0, 1.0 / np.sqrt(inputs), weight.shape)
        is_positive = "variance" in weight.name or "gamma" in weight.name
        weight.assign(np.abs(values) + 0.5 if is_positive else values)


def all_layers(built):
    for layer in built._flatten_layers(include_self=False):
        yield type(layer).__name__


def application(name):
    """An application of 64 pixels, without weights from the network."""
    return lambda: getattr(keras.applications, name)(
        weights=None, input_shape=(64, 64, 3), classes=7
    )


def main(folder, *applications):
    classes = {}
    models = {name: application(name) for name in applications} or MODELS
    for number, (name, function) in enumerate(models.items()):
        keras.backend.clear_session()
        keras.utils.set_random_seed(number)
        built = function()
        randomize(built, number)
        inputs = inputs_of(built, number)
        arrays = list(inputs.values())
        single = arrays[0] if len(arrays) == 1 else tf.nest.pack_sequence_as(built.input, arrays)
        outputs = built(single, training=False)
        saved: dict = {f"input_{i}": value for i, value in enumerate(arrays)}
        saved |= {f"output_{i}": np.array(y) for i, y in enumerate(tf.nest.flatten(outputs))}
        np.savez(folder / f"{name}.npz", **saved)
        built.save(folder / f"{name}.h5", save_format="h5")
        built.save_weights(folder / f"{name}_weights.h5")
        classes[name] = sorted(set(all_layers(built)))
    members = [getattr(L, name) for name in dir(L)]
    public = {member.__name__ for member in members if isinstance(member, type)}
    result = {"models": classes, "public": sorted(public)}
    (folder / "classes.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), *sys.argv[2:])
