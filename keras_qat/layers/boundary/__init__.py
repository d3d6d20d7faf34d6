"""Where tensors change their type or scale: QUANTIZE and DEQUANTIZE."""
