"""Observes the ranges of activations on data, without training."""
