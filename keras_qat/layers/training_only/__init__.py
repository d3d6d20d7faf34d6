"""Layers that act at training only, and make no operator."""
