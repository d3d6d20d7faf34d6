"""The rules of the canonical form: one small function for each."""
