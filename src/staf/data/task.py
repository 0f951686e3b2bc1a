"""Tasks: what is asked of which data, with which labels and output type, how it is split, and by which metric it is judged.

A task is a YAML file with the keys of lm-evaluation-harness where they mean the same (docs/data.md); the built-in ones are
such files too (staf/tasks/*.yaml). Its data is a corpus of the cards, or tables: files, or rows given in Python.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, PrivateAttr, ValidationInfo, model_validator

from staf.config import Settings, load_values, parse
from staf.data.example import KNOWLEDGE_TYPES
from staf.data.row_templates import LABEL_TYPES, RowTemplates
from staf.errors import ConfigError, StafError, UnknownName
from staf.io import write_bytes

METRICS = {
    "multiple_choice": ("accuracy", "macro_f1", "macro_auc"),
    "multi_label": ("micro_f1", "macro_f1", "macro_auc"),
    "span": ("exact_match", "token_f1"),
    "ner": ("entity_f1",),
    "generate_until": ("rouge_l", "rouge_1", "rouge_2"),
}
"""Primary metrics by output type, the default first."""
_HARNESS_METRICS = {
    "acc": "accuracy", "acc_norm": "accuracy", "rougeL": "rouge_l", "rouge1": "rouge_1", "rouge2": "rouge_2", "f1": "macro_f1",
}  # fmt: skip
_OTHER_METRICS = {
    "acc_all", "acc_bytes", "acc_mutual_info", "anls", "aurc", "bertscore", "bits_per_byte", "bleu", "brier_score", "bypass",
    "byte_perplexity", "chrf", "ece", "exact_match_mc", "likelihood", "mcc", "perplexity", "rougeLsum", "ter",
    "word_perplexity",
}  # fmt: skip
"""Of lm-evaluation-harness, or no primary metric here: passed over."""
_UNUSED = {
    "tag", "group", "num_fewshot", "fewshot_split", "fewshot_config", "fewshot_delimiter", "target_delimiter", "repeats",
    "task_alias",
    "generation_kwargs", "should_decontaminate", "doc_to_decontamination_query", "filter_list", "use_prompt", "unsafe_code",
}  # fmt: skip
"""Keys of lm-evaluation-harness that change nothing here."""
LOCAL_FORMATS = ("csv", "json", "parquet", "xlsx", "iob", "brat", "memory")
ANNOTATED = {"iob": ("tokens", "tags"), "brat": ("text", "entities")}
"""Columns of formats that have no header: context and target."""


def _names(value: Any, info: ValidationInfo) -> Any:
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        return items
    found = [_HARNESS_METRICS.get(str(n), n) for n in (i.get("metric") if isinstance(i, dict) else i for i in items)]
    known = sorted({name for names in METRICS.values() for name in names})
    if unknown := [str(name) for name in found if name not in {*known, *_OTHER_METRICS}]:
        near = difflib.get_close_matches(unknown[0], known, n=2)
        raise ValueError(
            f"no metric '{unknown[0]}'{'; did you mean ' * bool(near)}{' or '.join(map(repr, near))}; known: {', '.join(known)}"
        )
    kind = str(info.data.get("output_type"))
    own = METRICS.get(kind, known)
    plain = [name for item, name in zip(items, found, strict=True) if isinstance(item, str)]  # objects are the harness's
    if foreign := [name for name in plain if name in known and name not in own]:
        raise ValueError(f"'{foreign[0]}' is no metric of {kind}, which is judged by {', '.join(own)}")
    return found


def _share(value: Any) -> Any:
    size = value.get("size") if isinstance(value, Mapping) else None
    if value is None or isinstance(value, str | TestSplit) or (isinstance(size, int | float) and 0 < size < 1):
        return value
    raise ValueError("the name of a split, or {size: 0.3} is expected: a share of the rows, a number between 0 and 1")


class DataFiles(Settings):
    """Where local data lies."""

    data_files: str | tuple[str, ...] | dict[str, str | tuple[str, ...]]
    """Paths relative to the task file; by split where there are several."""
    layout: Literal["table", "text", "chat"] = "table"
    """A row of a table is an example; one with a text or a conversation in `column` gives several (`staf.data.corpus_rows`)."""
    column: str = ""


class TestSplit(Settings):
    """A test split that is drawn by group."""

    __test__ = False
    size: Annotated[float, Field(gt=0, lt=1)]


class Task(RowTemplates):
    """One downstream task, or a corpus that an expert trains on."""

    title: str = ""
    dataset_path: Annotated[tuple[str, ...], BeforeValidator(lambda v: (v,) if isinstance(v, str) else v)] = ()
    """Names of data set cards, or csv, json, parquet or xlsx."""
    dataset_name: str | None = None
    dataset_kwargs: DataFiles | None = None
    folder: Path | None = None
    """Where the task file lies."""
    task_type: str = ""
    """Task type of its examples; the task's name where none is given."""
    doc_to_target: str | int | tuple[str, ...] = ""
    """Answer: a column or a Jinja template; with choices, one of them or its index; of multi_label also a column for each."""
    ignore_case: bool = False
    """An answer that is a label in another case is that label; of multiple_choice and multi_label."""
    tag_names: tuple[str, ...] = ()
    """Names of tags that are numbers, in their order."""
    group_column: str | None = None
    """Rows with the same value stay in one split, such as those of a patient."""
    keep_overlap: bool = False
    """Rows whose text, or one almost the same, is in another split too are kept."""
    training_split: str | None = None
    validation_split: str | None = None
    test_split: Annotated[str | TestSplit | None, BeforeValidator(_share)] = None
    """A split's name, or the share that is drawn; without one all rows are for training an expert."""
    metric_list: Annotated[tuple[str, ...], BeforeValidator(_names)] = ()
    """The first one that is defined for the output type is the primary metric."""
    fixed_labels: bool = False
    """Every item has the same labels, so macro F1 and AUC are defined."""
    top_labels: Annotated[int, Field(ge=1)] | None = None
    """Keep the k most frequent labels outside the test split."""
    test_per_label: Annotated[int, Field(ge=1)] | None = None
    """Test items of each label at most, drawn by hash, so that a rare label is judged as surely as a frequent one."""
    reader_options: dict[str, bool] = Field(default_factory=dict)
    """Options of the data set's reader: exclude_planned of MIMIC-III."""
    proxy_for: str = ""
    """The task of Table 2 that it replaces where that one's corpus needs credentials; its own name where it is that task."""
    metadata: Any = None
    rows_digest: str = ""
    """Of rows that were given in Python."""
    _rows: dict[str, list[dict[str, Any]]] = PrivateAttr(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, values: dict[str, Any]) -> dict[str, Any]:
        values = {key: value for key, value in values.items() if key not in _UNUSED}
        values.setdefault("task_type", values.get("task", ""))
        values["title"] = values.get("title") or values.get("task", "")
        if isinstance(columns := values.get("doc_to_target"), list | tuple):
            values = {"output_type": "multi_label", **values, "doc_to_choice": values.get("doc_to_choice") or columns}
        path, labels = values.get("dataset_path"), values.get("doc_to_choice", ())
        kind = str(path[0] if isinstance(path, list | tuple) and path else path)
        if kind in ANNOTATED:
            read = dict(zip(("doc_to_context", "doc_to_target"), ANNOTATED[kind], strict=True))
            values = {**read, "output_type": "ner", "group_column": "document"} | values
        several = kind in LOCAL_FORMATS and values.get("output_type") == "multi_label"
        if isinstance(labels, list | tuple) and (labels or several):
            values.setdefault("fixed_labels", True)
        if kind in LOCAL_FORMATS and values.get("validation_split") and not values.get("test_split"):
            values |= {"test_split": values["validation_split"], "validation_split": None}  # as lm-evaluation-harness does
        return values

    @model_validator(mode="after")
    def _check_local(self) -> Task:
        if not self.is_local:
            return self
        problems = []
        if self.dataset_kwargs is None and not self.rows_digest:
            problems.append(f"dataset_kwargs: {{data_files: FILE}} is needed with {', '.join(LOCAL_FORMATS[:-1])}")
        if not (self.doc_to_text or self.doc_to_context):
            problems.append("doc_to_text or doc_to_context is needed")
        if self.doc_to_target == "":
            problems.append("doc_to_target is needed")
        columns = self.doc_to_target
        if isinstance(columns, tuple) and (self.output_type != "multi_label" or set(self.doc_to_choice) != set(columns)):
            problems.append(
                "doc_to_target lists columns, each of which is a label: output_type is multi_label then, and "
                "doc_to_choice, if it is given, the same columns"
            )
        if self.output_type in ("span", "ner") and not self.doc_to_context:
            problems.append(f"doc_to_context is needed: {self.output_type} answers with its words")
        if self.output_type == "multiple_choice" and not self.doc_to_choice:
            problems.append("doc_to_choice is needed: the labels to choose from")
        if self.reader_options:
            problems.append("reader_options are for a data set of the cards, not for files")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @classmethod
    def from_table(
        cls, source: Any, *, text: str | Sequence[str], label: str | Sequence[str], query: str | None = None,
        labels: Sequence[str] = (), output_type: str | None = None, separator: str = ";", group: str | None = None,
        test_size: float | None = 0.3, keep_overlap: bool = False, name: str | None = None,
        label_descriptions: Mapping[str, str] | None = None, ignore_case: bool | None = None,
    ) -> Task:  # fmt: skip
        """A task on a table: a file, a pandas frame, a `datasets` Dataset or DatasetDict (its splits kept), or rows.

        Args:
            source: what is read; a file is one of CSV, TSV, JSON, JSON lines, Parquet or xlsx, by the ending of its name, or of
                CoNLL columns (`tokens`, `tags`); a folder holds texts with brat's annotations (`text`, `entities`).
            text, label: the columns to read and to answer; several texts are joined as lines 'column: value', and of several
                labels each column is one, 1 where a row has it and else 0.
            output_type: None is multi_label where several labels are named, else multiple_choice.
            query: what is asked; by default made of the labels.
            labels: their order; by default those found, sorted.
            separator: between the labels of one cell, with output_type multi_label.
            group: a column whose rows stay in one split, such as the patient.
            test_size: share of the rows to test on; None makes a corpus for an expert. A split named test is taken as it is.
            keep_overlap: keep rows outside the test split whose text, or one almost the same, is in it.
            name: of the task; by default that of the file.
            label_descriptions: what labels mean, shown before every query.
            ignore_case: labels that differ only in case are one, spelt as most often; None: where there are such labels.

        Raises:
            ConfigError: no such column, or too many labels to choose from. MissingData, BadData: the file cannot be read.
        """
        from staf.data.local import joined_labels
        from staf.data.own_table import QUERIES, check_columns, check_described, check_labels, columns_of, own_table, task_name

        texts, columns = columns_of(text, label)
        table = own_table(source, test_size)
        check_columns(table, (*texts, *columns, *([group] if group else [])))
        labels = labels or (columns if len(columns) > 1 else ())
        output_type = output_type or ("multi_label" if len(columns) > 1 else "multiple_choice")
        keys = {"task": name or task_name(table.name), **table.keys, "output_type": output_type, "group_column": group}
        keys |= {"label_descriptions": dict(label_descriptions or {}), "keep_overlap": keep_overlap}
        read, target = (given[0] if len(given) == 1 else given for given in (texts, columns))
        keys |= {"doc_to_context": read, "doc_to_target": target, "label_separator": separator}
        if output_type in LABEL_TYPES and not labels:
            draft = parse(cls, keys | {"doc_to_choice": "any"}, "Task.from_table")
            rows = [row for part in table.splits.values() for row in part]
            labels, ignore_case = joined_labels(draft, rows, ignore_case)
            check_labels(columns[0], labels, len(rows), output_type)
        check_described(keys["label_descriptions"], labels)
        default = QUERIES.get(output_type, "").format(labels="; ".join(labels), column=columns[0].replace("_", " "))
        keys |= {"doc_to_choice": list(labels), "ignore_case": bool(ignore_case)}
        task = parse(cls, keys | {"doc_to_text": query or default}, "Task.from_table")
        task._rows = table.splits if table.in_memory else {}
        return task

    from_csv = from_pandas = from_dataset = from_table  # type: ignore[pydantic-field]

    def to_yaml(self, folder: Path | None = None) -> str:
        """The text of its task file, for a folder to which its paths are then relative.

        Raises:
            ConfigError: its rows were given in Python, so no file has them.
        """
        if self.rows_digest:
            raise ConfigError(
                f"the rows of task '{self.name}' are in no file. Write the table to one, and make the task from it."
            )
        left_out = {"folder", "fixed_labels"} if self.is_local else {"folder"}
        values = self.model_dump(mode="json", exclude_defaults=True, exclude=left_out)
        values = {key: value for key, value in values.items() if key not in ("title", "task_type") or value != self.task}
        if len(self.dataset_path) == 1:
            values["dataset_path"] = self.dataset_path[0]
        if self.dataset_kwargs is not None and folder is not None:
            values["dataset_kwargs"] |= {"data_files": self._relative_to(folder, self.dataset_kwargs.data_files)}
        order = [key for key in ("task", "title", "dataset_path", "dataset_kwargs") if key in values]
        return yaml.safe_dump({key: values[key] for key in (*order, *values)}, sort_keys=False, allow_unicode=True, width=120)

    def _relative_to(self, folder: Path, files: Any) -> Any:
        if isinstance(files, str):
            return os.path.relpath((self.folder or Path()).absolute() / files, folder.absolute())
        if isinstance(files, dict):
            return {split: self._relative_to(folder, given) for split, given in files.items()}
        return [self._relative_to(folder, file) for file in files]

    def save(self, path: str | Path, overwrite: bool = False) -> None:
        """Write its task file.

        Raises:
            ConfigError: as `to_yaml`. StafError: there is such a file, and `overwrite` is not set.
        """
        text = self.to_yaml(Path(path).parent).encode()
        if Path(path).exists() and not overwrite:
            raise StafError(f"{path} exists already. Name another file, or give overwrite=True; nothing was changed.")
        write_bytes(Path(path), text)

    @property
    def rows(self) -> dict[str, list[dict[str, Any]]]:
        """Rows by split that were given in Python; {} where it reads files."""
        return self._rows

    @property
    def name(self) -> str:
        """The task's name."""
        return self.task

    @property
    def templates(self) -> RowTemplates:
        """What a row without an answer needs."""
        return RowTemplates(**{name: getattr(self, name) for name in RowTemplates.model_fields})

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names of the corpora that its examples come from; none of a task on local files."""
        return () if self.is_local else self.dataset_path

    @property
    def is_local(self) -> bool:
        """True where its data is local files, read by the task's own templates."""
        return bool(self.dataset_path) and self.dataset_path[0] in LOCAL_FORMATS

    @property
    def unseen(self) -> bool:
        """True where no expert is trained on its task type."""
        return self.task_type not in KNOWLEDGE_TYPES

    @property
    def metric(self) -> str:
        """The primary metric."""
        known = METRICS[self.output_type]
        if self.output_type == "multiple_choice" and not self.fixed_labels:
            known = known[:1]  # the others need the same labels in every item
        return next((name for name in self.metric_list if name in known), known[0])


def load_task(path: Path) -> Task:
    """The task of a YAML file; raises MissingData, or ConfigError that names every unknown key and wrong value."""
    values = load_values(path, "task file", "see the names: staf tasks list")
    if "variants" in values:
        raise ConfigError(f"{path} holds several tasks: give a file with one task.")
    return parse(Task, {"folder": path.parent, **values}, str(path))


@cache
def builtin_tasks() -> dict[str, Task]:
    """The tasks that come with staf, by name; a file may hold several under `variants`."""
    found = {}
    for file in sorted((resources.files("staf") / "tasks").iterdir(), key=lambda file: file.name):
        if file.name.endswith(".yaml"):
            values = load_values(Path(str(file)))
            for variant in values.pop("variants", [{}]):
                task = parse(Task, values | variant, file.name)
                found[task.name] = task
    return found


def is_task_file(name: str) -> bool:
    """True where a path of a task file is given in the place of a name."""
    return Path(name).suffix in (".yaml", ".yml")


def find_task(name: str | Task, known: Mapping[str, Task] | None = None) -> Task:
    """The task of a name or of a file ending in .yaml; a task as it is. None knows the built-in ones.

    Raises:
        UnknownName: with near names and the list. MissingData, ConfigError: as `load_task`, or a known task has its name, or it
            is a table.
    """
    known = builtin_tasks() if known is None else known
    if isinstance(name, Task) or is_task_file(name):
        task = name if isinstance(name, Task) else load_task(Path(name))
        if known.get(task.name, task) != task:
            raise ConfigError(f"there is another task named '{task.name}'. Give yours another name.")
        return task
    if name not in known:
        from staf.data.annotations import annotation_format
        from staf.data.table_files import is_table

        if is_table(Path(name)) or annotation_format(Path(name)):
            raise ConfigError(f"{name} is a table; a task says what is asked of it. Make a task of it first: staf init {name}")
        raise UnknownName.among("task", name, known)
    return known[name]


def task_metrics() -> dict[str, str]:
    """The primary metric of each built-in task."""
    return {name: task.metric for name, task in builtin_tasks().items()}
