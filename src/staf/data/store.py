"""The data sets that one command sees: where they are looked for, how they are split, whether packages may be fetched."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from staf.data.catalog import dataset, is_available
from staf.data.example import Example
from staf.data.prepare import Prepared, load, load_answers, load_dedup_keys, prepare
from staf.data.profiles import PROFILES


@dataclass(frozen=True)
class DataStore:
    """A view of the catalogue."""

    data: Path | None = None
    """The user's data folder; None uses packages and downloads alone."""
    profile: str = PROFILES[0]
    """How data sets are split (`staf.data.profiles`)."""
    fetch: bool = True
    """Whether a package may be fetched; files at other addresses are fetched only where the user asks for them."""

    @property
    def training_split(self) -> str:
        """What experts train on: in sa-mdkif all that is not test, which is called adaptation there."""
        return "adaptation" if self.profile == "sa-mdkif" else "train"

    def is_here(self, name: str) -> bool:
        """True where a data set can be read without fetching anything."""
        return is_available(dataset(name), self.data)

    def can_have(self, name: str) -> bool:
        """True where a data set is here or comes as a package."""
        return self.is_here(name) or (self.fetch and dataset(name).package is not None)

    def prepared(self, name: str) -> Prepared:
        """A data set, read and split; raises as `prepare`."""
        return prepare(name, self.data, self.fetch, self.profile)

    def examples(self, name: str, task_type: str, split: str, output_type: str | None = None) -> list[Example]:
        """Examples of a data set; none where it has no such kind."""
        found = self.prepared(name)
        return load(found, task_type, split, output_type) if task_type in found.counts else []

    def dedup_keys(self, name: str, task_type: str, split: str) -> frozenset[str]:
        """What examples of a data set are about."""
        found = self.prepared(name)
        return load_dedup_keys(found, task_type, split) if task_type in found.counts else frozenset()

    def answers(self, name: str, task_type: str, split: str, output_type: str | None = None) -> list[str]:
        """Answers of a data set."""
        found = self.prepared(name)
        return load_answers(found, task_type, split, output_type) if task_type in found.counts else []
