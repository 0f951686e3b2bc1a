"""Made-up corpora in the distributed formats, one module a corpus or family; every text in them is our own.

A module says in its docstring which document defines its format. `WRITERS` maps the name of a data set to a function that
writes a small corpus of that format into a folder; here they are collected.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path

WRITERS: dict[str, Callable[[Path], None]] = {}
for _module in pkgutil.iter_modules(__path__):
    WRITERS.update(importlib.import_module(f"{__name__}.{_module.name}").WRITERS)
