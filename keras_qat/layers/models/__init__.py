"""Models of quantized layers, and what concerns all their layers together."""
