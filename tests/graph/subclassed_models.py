"""Subclassed models that cannot be traced. `# here` marks the statement that the error names."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops


class Base(keras.Model):
    """A model with one layer."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.head = layers.Dense(3, name="head")


class BranchesOnValues(Base):
    def call(self, inputs):
        y = self.head(inputs)
        if ops.max(y) > 0:  # here
            y = -y
        return y


class UsesNumpy(Base):
    def call(self, inputs):
        y = self.head(inputs)
        return y + np.mean(np.asarray(inputs))  # here


class UsesTensorFlow(Base):
    def call(self, inputs):
        y = self.head(inputs)
        return tf.math.sinh(y)  # here


class LoopsOverATensor(Base):
    def call(self, inputs):
        total = 0.0
        for row in self.head(inputs):  # here
            total = total + row
        return total


class ReadsValues(Base):
    def call(self, inputs):
        largest = float(ops.max(inputs))  # here
        return self.head(inputs) / largest


class AsksForNumpy(Base):
    def call(self, inputs):
        return self.helper(self.head(inputs))

    def helper(self, y):
        return ops.convert_to_tensor(y.numpy())  # here


class CountsTheBatch(Base):
    def call(self, inputs):
        return self.head(inputs) / (ops.shape(inputs)[0] + 1)  # here


class Inside(keras.Model):
    """A model with an inner model that cannot be traced."""

    def __init__(self, inner, **kwargs):
        super().__init__(**kwargs)
        self.inner = inner

    def call(self, inputs):
        return ops.relu(self.inner(inputs))


UNTRACEABLE = (
    BranchesOnValues,
    UsesNumpy,
    UsesTensorFlow,
    LoopsOverATensor,
    ReadsValues,
    AsksForNumpy,
    CountsTheBatch,
)
