"""The integer rules of LiteRT's optimized kernels, where they differ from the reference kernels.

LiteRT's default kernels are XNNPACK where it takes an operator, else the optimized kernels.
"""
