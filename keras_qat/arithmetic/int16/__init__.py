"""The integer rules of kernels for activations of 16 bits, whose zero point is 0."""
