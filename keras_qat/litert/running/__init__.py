"""Running files with LiteRT's own interpreter."""
