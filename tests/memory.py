"""The memory of a process that runs tests."""

import resource

import keras

from keras_qat.backend import rules

# The largest memory of this process when it was last freed, in kilobytes.
PEAKS = [0]


def free_memory():
    """Frees rules, kernels and garbage, if the process has grown by 150 MB since the last time.

    A collection of garbage takes 0.3 s. TensorFlow keeps 2 MB for each rule.
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if peak > PEAKS[-1] + 150_000:
        PEAKS.append(peak)
        rules.traced_rule.cache_clear()
        keras.backend.clear_session()  # collects garbage too
