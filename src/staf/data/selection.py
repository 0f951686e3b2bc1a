"""The examples of tasks and of experts, and the checks that keep them apart."""

from __future__ import annotations

from collections.abc import Iterable

from staf.data.catalog import DATASETS
from staf.data.example import KNOWLEDGE_TYPES, Example
from staf.data.labels import ASKED, frequent_labels, narrowed
from staf.data.splits import without_dedup_keys
from staf.data.store import DataStore
from staf.data.task import TASKS, Task
from staf.errors import MissingData, TestLeak, UnknownName

LABELS_OF_RECORDS = 50
"""Codes or drugs that an expert of clinical records learns."""


def expert_sources(name: str) -> tuple[tuple[str, str], ...]:
    """The (data set, kind) pairs that feed an expert, in catalogue order.

    An expert is named by a knowledge type, and then fed by every medical data set that has it; or by one data set, and then
    fed by all knowledge types of that one (Figure 7 names experts so; the cross-domain expert is of this sort), or by all its
    tasks where it has no knowledge type (the expert of clinical records that Table 5 plugs in).

    Raises:
        UnknownName: it is neither.
    """
    if name in DATASETS:
        task_types = DATASETS[name].task_types
        return tuple((name, task_type) for task_type in task_types if task_type in KNOWLEDGE_TYPES) or tuple(
            (name, task_type) for task_type in task_types
        )
    if name not in KNOWLEDGE_TYPES:
        raise UnknownName.among("expert (a knowledge type or a data set)", name, [*KNOWLEDGE_TYPES, *DATASETS])
    return tuple((row.name, name) for row in DATASETS.values() if row.medical and name in row.task_types)


def held_out_task(name: str) -> Task:
    """An expert's own held-out test: what is test, and has labels to choose from, of everything that feeds it."""
    sources = expert_sources(name)
    title = f"held-out {name.replace('_', ' ')}"
    return Task(f"{name}-held-out", title, sources[0][1], tuple(dataset for dataset, _ in sources))


def task_examples(task: Task, split: str, store: DataStore) -> list[Example]:
    """Examples of one split of a task, over those of its data sets that can be had; labels narrowed where it says so.

    Raises:
        MissingData: a data set is not there, or has no such examples.
    """
    names = [name for name in task.datasets if store.can_have(name)] or list(task.datasets)
    found = [example for name in names for example in store.examples(name, task.task_type, split, task.output_type)]
    if task.top is not None:
        found = narrowed(found, label_set(task, store))
    if not found:
        raise MissingData(
            f"task '{task.name}' has no {split} examples in {', '.join(names)} as split by {store.profile}. See: staf data list"
        )
    return found


def label_set(task: Task, store: DataStore) -> tuple[str, ...]:
    """The most frequent labels of a task with open labels, counted on what is not test; () where it keeps all."""
    if task.top is None:
        return ()
    fitted_on = ("train", "adaptation")
    answers = (a for name in task.datasets for split in fitted_on for a in store.answers(name, task.task_type, split))
    return frequent_labels(answers, task.top)


def expert_examples(name: str, store: DataStore) -> tuple[list[Example], int]:
    """Training examples of an expert, without those about anything that a task tests.

    Data sets that are not here and come in no package are passed over.

    Returns:
        the examples, and how many were left out because a test item is about the same thing.

    Raises:
        UnknownName: there is no such expert. MissingData: none of its data sets can be had.
    """
    sources = [(dataset, task_type) for dataset, task_type in expert_sources(name) if store.can_have(dataset)]
    if not sources:
        names = ", ".join(dict.fromkeys(dataset for dataset, _ in expert_sources(name)))
        raise MissingData(f"expert '{name}' has no data here; it is fed by {names or 'no data set'}. See: staf data list")
    examples = [example for dataset, task_type in sources for example in _training(dataset, task_type, store)]
    return without_dedup_keys(examples, protected_keys(store))


def _training(dataset: str, task_type: str, store: DataStore) -> list[Example]:
    """Training examples of a kind; where labels are many, narrowed to the most frequent, as tasks ask for them."""
    examples = store.examples(dataset, task_type, store.training_split)
    if task_type not in ASKED:
        return examples
    return narrowed(examples, frequent_labels((example.answer for example in examples), LABELS_OF_RECORDS))


def protected_keys(store: DataStore) -> frozenset[str]:
    """Subjects of every test example of every task whose data is already here."""
    pairs = dict.fromkeys((name, task.task_type) for task in TASKS.values() for name in task.datasets)
    here = [store.dedup_keys(name, task_type, "test") for name, task_type in pairs if store.is_here(name)]
    return frozenset().union(*here)


def refuse_leak(task: Task, test: Iterable[Example], trained: frozenset[str]) -> None:
    """See that no test item is about something that an expert was trained on.

    Raises:
        TestLeak: naming the items.
    """
    given = list(test)
    leaked = [example.id for example in given if not trained.isdisjoint(example.dedup_keys)]
    if leaked:
        raise TestLeak(
            f"{len(leaked)} of {len(given)} test items of '{task.name}' are about something that an expert was trained on: "
            f"{', '.join(leaked[:3])}. Their score would mean nothing. Fetch the task's data first and train the experts "
            "again: staf train leaves out what any task tests."
        )


def prepare_task(task: Task, store: DataStore, trained: frozenset[str] = frozenset()) -> dict[str, int]:
    """Examples of a task by split, once no test item occurs in what any expert trains on, or was trained on.

    Args:
        task: any.
        library: where the data sets are.
        trained: subjects of experts that are trained already.

    Raises:
        TestLeak: naming the test items. MissingData: its data is not here.
    """
    test = task_examples(task, "test", store)
    refuse_leak(task, test, trained)
    for name in KNOWLEDGE_TYPES:
        if any(store.is_here(dataset) for dataset, _ in expert_sources(name)):
            training, _ = expert_examples(name, store)
            refuse_leak(task, test, frozenset(s for example in training for s in example.dedup_keys))
    counts = {"test": len(test)}
    for split in ("adaptation", "train"):
        counts[split] = sum(
            store.prepared(name).counts.get(task.task_type, {}).get(split, 0) for name in task.datasets if store.can_have(name)
        )
    return counts
