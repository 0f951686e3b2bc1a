"""The data sets that one command sees: where they are looked for, how they are split, whether packages may be fetched."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from staf.data.example import Example
from staf.data.prepare import Prepared, load, load_answers, load_dedup_keys, prepare
from staf.data.registry import Registry, default_registry
from staf.data.split_schemes import PROFILES
from staf.data.task import Task


@dataclass(frozen=True)
class DataStore:
    """The data sets of a registry, read and split."""

    data: Path | None = None
    """The user's data folder; None uses packages and downloads."""
    profile: str = PROFILES[0]
    """How data sets are split (`staf.data.split_schemes`)."""
    fetch: bool = True
    """Whether a package may be fetched; files at other addresses are fetched only where the user asks for them."""
    registry: Registry = field(default_factory=default_registry)
    """Tasks and cards by name."""
    _local: dict[str, tuple[list[Example], Counter[str]]] = field(default_factory=dict, repr=False, compare=False)

    def with_task(self, name: str) -> tuple[Task, DataStore]:
        """The task of a name or file, and this store with it in the registry, so that its test items are protected.

        Raises:
            UnknownName, MissingData, ConfigError: as `Registry.find_task`.
        """
        task = self.registry.find_task(name)
        return task, replace(self, registry=self.registry.with_task(task))

    @property
    def training_split(self) -> str:
        """What experts train on: in sa-mdkif all that is not test, which is called adaptation there."""
        return "adaptation" if self.profile == "sa-mdkif" else "train"

    def is_here(self, name: str) -> bool:
        """True where a data set can be read without fetching anything."""
        return self.registry.find_card(name).is_available(self.data)

    def can_have(self, name: str) -> bool:
        """True where a data set is here or comes as a package."""
        return self.is_here(name) or (self.fetch and self.registry.find_card(name).package is not None)

    def prepared(self, name: str, skip_rejected: bool = False) -> Prepared:
        """A data set, read and split; raises as `prepare`."""
        return prepare(name, self.data, self.fetch, self.profile, skip_rejected, self.registry)

    def examples(self, name: str, task_type: str, split: str, output_type: str | None = None) -> list[Example]:
        """Examples of a data set; none where it has no such task type."""
        found = self.prepared(name)
        return load(found, task_type, split, output_type) if task_type in found.counts else []

    def dedup_keys(self, name: str, task_type: str, split: str) -> frozenset[str]:
        """Deduplication keys of examples of a data set."""
        found = self.prepared(name)
        return load_dedup_keys(found, task_type, split) if task_type in found.counts else frozenset()

    def answers(self, name: str, task_type: str, split: str, output_type: str | None = None) -> list[str]:
        """Answers of a data set."""
        found = self.prepared(name)
        return load_answers(found, task_type, split, output_type) if task_type in found.counts else []

    def local(self, task: Task) -> tuple[list[Example], Counter[str]]:
        """All examples of a task on local files, and rows left out by reason; read once."""
        from staf.data.local import local_examples

        if task.name not in self._local:
            self._local[task.name] = local_examples(task)
        return self._local[task.name]
