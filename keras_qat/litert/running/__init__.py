"""Runs files with LiteRT's own interpreter, TensorFlow Lite Micro, or an emulator."""
