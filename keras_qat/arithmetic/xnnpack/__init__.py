"""The integer rules of XNNPACK, to which LiteRT's default kernels delegate most operators.

The functions have the arguments of the reference kernels' rules in `keras_qat.arithmetic`. XNNPACK
rounds ties to even, and computes most multipliers in float32.
"""
