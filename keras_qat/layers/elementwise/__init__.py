"""Activations, functions and arithmetic, element by element."""
