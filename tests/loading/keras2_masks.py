"""Models of Keras 2 with masks. Keras 3 passes masks on by other rules."""

import tensorflow as tf
import tf_keras as keras

from tests.loading.keras2_models import L, model


def inputs():
    """Returns two masked sequences, one sequence without a mask, and a state."""
    ids, others, values = (
        keras.Input((6,), dtype="int32"),
        keras.Input((6,), dtype="int32"),
        keras.Input((6, 4)),
    )
    x, y = (L.Embedding(9, 4, mask_zero=True)(each) for each in (ids, others))
    return [ids, others, values], x, y, L.Dense(4)(L.Flatten()(values))


@model
def masked_states():
    given, x, _, state = inputs()
    sequences = {"return_sequences": True}
    z = L.Dropout(0.1)(L.Dense(4)(x))
    twice = L.LSTM(4, **sequences)
    made = [
        L.LSTM(4, **sequences)(x, initial_state=[state, state]),
        L.LSTM(4)(z, initial_state=[state, state]),
        L.GRU(4)(x, initial_state=state),
        L.SimpleRNN(4)([x, state]),
        L.LSTM(4, go_backwards=True)(x, initial_state=[state, state]),
        L.LSTM(4, return_state=True)(x, initial_state=[state, state])[2],
        L.Bidirectional(L.GRU(4), merge_mode="sum")(x, initial_state=[state, state]),
        L.RNN([L.GRUCell(4), L.GRUCell(4)])(x, initial_state=[state, state]),
        L.RNN(L.LSTMCell(4), zero_output_for_mask=True, **sequences)(
            x, initial_state=[state, state]
        ),
        twice(twice(x, initial_state=[state, state]), initial_state=[state, state]),
    ]
    return keras.Model(given, made)


@model
def masked_merges():
    given, x, y, state = inputs()
    values = given[2]
    merges = [L.Add, L.Average, L.Concatenate, L.Maximum, L.Minimum, L.Multiply, L.Subtract]
    merged = [merge()([x, other]) for merge in merges for other in (y, values)]
    merged.append(L.Concatenate(axis=1)([x, y]))
    made = [L.SimpleRNN(4)(each) for each in merged]
    made.append(L.GRU(4)(L.Dense(4)(merged[0]), initial_state=state))
    return keras.Model(given, [*made, merged[6], merged[10], L.GlobalAveragePooling1D()(merged[1])])


@model
def masked_ends():
    given, x, _, state = inputs()
    ends = [L.Identity()(x), L.Rescaling(2.0)(x), L.Normalization(mean=0.5, variance=2.0)(x)]
    ends += [L.ThresholdedReLU(0.01)(x), tf.identity(x), tf.cast(x, "float32"), x * 2.0]
    made = [L.SimpleRNN(4)(each) for each in ends]
    return keras.Model(given, [*made, *(L.GRU(4)(each, initial_state=state) for each in ends)])


@model
def masked_attention():
    given, x, y, _ = inputs()
    made = [L.Attention()([x, y]), L.AdditiveAttention()([given[2], y])]
    made += [L.MultiHeadAttention(2, 3)(x, y), L.MultiHeadAttention(2, 3)(given[2], x)]
    made.append(L.TimeDistributed(L.Dense(3))(x))
    return keras.Model(given, [*made, *(L.SimpleRNN(4)(each) for each in made)])


@model
def masked_nested():
    """Makes a model with different outputs in Keras 3, which cannot pass the masks."""
    given, x, _, state = inputs()
    inner, inner_state = keras.Input((6, 4)), keras.Input((4,))
    block = keras.Model([inner, inner_state], L.GRU(4)(inner, initial_state=inner_state))
    return keras.Model(given, block([x, state]))
