"""Reads and checks files of any origin."""
