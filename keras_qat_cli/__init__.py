"""The command line `keras-qat`.

This package is separate from `keras_qat`, because importing `keras_qat` imports Keras, which takes
seconds. Help and usage errors do not need Keras. Each command imports `keras_qat` when it runs.
"""
