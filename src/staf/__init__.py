"""STAF: medical language models from experts trained once and a few numbers per task."""

__version__ = "0.1.0"
