"""Functions and operators of TensorFlow, as `keras.ops` computes them."""
