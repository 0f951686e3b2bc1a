"""What the catalogue knows of a data set: one row of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from staf.data.example import Example
from staf.data.packages import Package
from staf.data.read_report import ReadReport

CATEGORIES = (
    "question answering",
    "text classification",
    "sequence labeling",
    "sequence to sequence",
    "knowledge graph",
    "electronic health records",
)
"""The five categories of section 3.2.1, and the records of the unseen tasks, which feed no expert."""


@dataclass(frozen=True)
class DatasetCard:
    """One row of the catalogue."""

    name: str
    """Also the name of its folder in the user's data folder."""
    task_types: tuple[str, ...]
    """Knowledge types and downstream tasks of its examples."""
    category: str
    """One of `CATEGORIES`."""
    licence: str
    """As stated at the source."""
    access: str
    """open (a file to download), package (fetched by staf) or credentialed (an agreement to sign)."""
    proxy_for: str
    """The papers' data set that it replaces, or the same one."""
    source: str
    """Where it comes from, release included."""
    read: Callable[[Path, ReadReport], Iterator[Example]]
    """Examples of a folder; tells the intake what it finds, leaves out and cannot read."""
    files: Callable[[Path], list[Path]]
    """The source files that `read` reads, in a fixed order; MissingData where they are not there."""
    size: str = ""
    """What there is of it, in the words of its source: '1,000 questions'."""
    package: Package | None = None
    """The package that carries it, where one does."""
    steps: str = ""
    """How to get it where an agreement is needed: exact steps."""
    medical: bool = True
    """False for a data set of another domain: it feeds no knowledge type, only an expert of its own name."""
    own_split: bool = False
    """What the reader calls test stays test under every profile: its authors say so, or the items were built on it."""
    sizes: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    """Table 2 of STAF-LLM: train, adaptation and test examples by kind; only for the papers' own corpora."""
