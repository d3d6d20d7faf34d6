"""Keras layers without an integer form, which are not opened into operations."""

import keras

from keras_qat.graph import layer_of
from keras_qat.layers.core.registry import refuse

refuse(
    layer_of(keras.layers.Masking),
    reason="A mask has no counterpart in LiteRT: Keras leaves the padding out, but a file "
    "would compute with it.",
    fix="Remove the layer with `keras_qat.clone_model(model, skip_layers=[...])`, and cut the "
    "sequences to one length or train again.",
)
