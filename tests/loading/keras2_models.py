"""Models of Keras 2. Together they have every layer that Keras 3 has, too.

`MODELS` has functions without arguments by name. `keras2_writer` makes files of their models.
"""

import numpy as np
import tf_keras as keras

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
    return keras.Sequential([L.Conv2D(3, 3, input_shape=(6, 6, 2)), L.Flatten(), L.Dense(2)])


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
