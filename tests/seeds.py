"""Seeds of random numbers."""

import random

import numpy as np


def seed(number):
    """Seeds the weights and the masks of dropout that Keras draws.

    `keras.utils.set_random_seed` would make TensorFlow forget its kernels. A model takes 0.2 s to
    prepare them again.
    """
    random.seed(number)
    np.random.seed(number)
