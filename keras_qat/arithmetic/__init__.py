"""The integer rules of LiteRT's reference int8 kernels in `keras.ops`, one file per family.

They give the same bits on TensorFlow (eager, graph, XLA), JAX and PyTorch. Two facts about
compilers shape the code. XLA contracts `a * b + c` into one fused operation with one
rounding, so a product whose rounding matters is never added to anything. XLA and TensorFlow's
graph optimizer replace a division by a constant with a multiplication by its reciprocal, so
every quotient whose rounding matters is computed in `exact_float`.

Integers are int32 tensors that hold int8 values, scales are float32 tensors (scalar, or one
per channel on the last axis), zero points are int32 scalars. All of them may be traced.
"""
