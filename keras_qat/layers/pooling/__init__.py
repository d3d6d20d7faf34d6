"""Pooling over windows and whole axes, and other reductions."""
