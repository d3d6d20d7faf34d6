"""Reading any file, checked before anything relies on it."""
