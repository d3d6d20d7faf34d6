"""Writes a model of operators as the bytes of a file."""
