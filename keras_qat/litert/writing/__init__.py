"""From a model of operators to the bytes of a file."""
