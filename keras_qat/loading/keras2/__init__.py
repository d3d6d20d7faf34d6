"""Models of Keras 1 and 2, as models of Keras 3."""
