"""Runs files with LiteRT's own interpreter."""
