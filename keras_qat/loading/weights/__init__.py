"""Saved arrays, and the variables that they belong to."""
