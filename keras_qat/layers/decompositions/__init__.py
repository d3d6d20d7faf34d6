"""Keras layers that are written in other operations, and operators of several integer steps."""
