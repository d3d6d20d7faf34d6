"""The base class of all layers, their registry, and parts that several families share."""
