"""The files that Keras saves, which may be damaged or made to do damage."""
