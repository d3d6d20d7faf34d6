"""The vocabulary of LiteRT files: models, operators, tensors, types and the schema."""
