"""The command line `keras-qat`.

A package of its own, beside `keras_qat`: importing anything of `keras_qat` imports Keras and
registers its layers, and help and usage errors shall not wait for that. What a command needs is
imported when it runs.
"""
