"""For tools that still call ``setup.py``; all that there is to say is in ``pyproject.toml``."""

from setuptools import setup

setup()
