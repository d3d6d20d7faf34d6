"""Reads batches of model inputs from arrays, datasets, generators and lists."""
