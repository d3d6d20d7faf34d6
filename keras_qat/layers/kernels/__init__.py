"""Layers with a kernel: convolutions, dense, embedding, matrix products, batch normalization."""
