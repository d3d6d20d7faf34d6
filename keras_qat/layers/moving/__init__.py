"""Layers that move values and compute none: reshape, transpose, slice, gather, pad, resize."""
