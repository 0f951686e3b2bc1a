"""Readers: one module per family of distribution formats.

A reader is a function `read(folder, skipped) -> Iterator[Example]`. It finds its files under `folder`, laid out as in
the package that carries them or as their authors distribute them, and counts in `skipped` what it left out and why.
"""
