"""Readers: one module a corpus, and the shapes of example that several share.

A reader is a function `read(folder, intake) -> Iterator[Example]`. It finds its files under `folder`, laid out as in the
package that carries them or as their authors distribute them, and tells the intake what it found, left out and could not read.
"""
