"""The examples of tasks and of experts, and the checks that keep test items out of training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from staf.data.answers import read_several
from staf.data.example import KNOWLEDGE_TYPES, SPLITS, Example
from staf.data.open_labels import LISTED, frequent_labels, narrowed
from staf.data.privacy import compared_keys
from staf.data.splits import equal_shares, seeded_rng, without_dedup_keys
from staf.data.store import DataStore
from staf.data.task import Task, is_task_file, load_task
from staf.errors import ConfigError, MissingData, TestLeak, UnknownName

LABELS_OF_RECORDS = 50
"""Codes or drugs that an expert of clinical records learns."""


def expert_name(source: str) -> str:
    """The name of the expert that a knowledge type, a data set or a task file gives."""
    return load_task(Path(source)).name if is_task_file(source) else source


def held_out_task(name: str, store: DataStore) -> Task:
    """An expert's own held-out test: the test items with labels to choose from, of everything that feeds it."""
    sources = store.registry.expert_sources(name)
    return Task(
        task=f"{name}-held-out",
        title=f"held-out {name.replace('_', ' ')}",
        task_type=sources[0][1],
        dataset_path=tuple(dataset for dataset, _ in sources),
    )


def task_examples(task: Task, split: str, store: DataStore) -> list[Example]:
    """Examples of one split of a task, over those of its data sets that can be had; labels narrowed where it says so.

    Raises:
        UnknownName: there is no such split. MissingData: a data set is not there, or has no such examples.
    """
    if split not in SPLITS:
        raise UnknownName.among("split", split, SPLITS)
    if task.is_local:
        found = [example for example in store.local(task) if example.split == split]
        origin = "its files"
    else:
        names = [name for name in task.datasets if store.can_have(name)] or list(task.datasets)
        kind, form, options = task.task_type, task.output_type, task.reader_options
        found = [example for name in names for example in store.examples(name, kind, split, form, **options)]
        origin = f"{', '.join(names)} as split by {store.split_scheme}"
    if task.top_labels is not None:
        found = narrowed(found, label_set(task, store))
    if split == "test" and task.test_per_label is not None:
        found = evened(found, task.test_per_label)
    if not found:
        raise MissingData(f"task '{task.name}' has no {split} examples in {origin}. See: staf data list")
    return found


def evened(examples: Sequence[Example], limit: int) -> list[Example]:
    """At most `limit` examples of each answer, drawn by their ids, in their order."""
    kept = set[str]()
    for answer in {example.answer for example in examples}:
        own = sorted(example.id for example in examples if example.answer == answer)
        kept.update(seeded_rng(f"test of {answer}").sample(own, min(limit, len(own))))
    return [example for example in examples if example.id in kept]


def default_shots(task: Task, store: DataStore, wanted: int) -> int:
    """`wanted`, or all adaptation examples of a task where it has fewer."""
    return min(wanted, len(task_examples(task, "adaptation", store)))


def label_set(task: Task, store: DataStore) -> tuple[str, ...]:
    """The most frequent labels of a task with open labels, counted outside the test split; () where it keeps all."""
    if task.top_labels is None:
        return ()
    pairs = [(name, split) for name in task.datasets for split in ("train", "adaptation")]
    answers = (answer for name, split in pairs for answer in store.column(name, "answer", task.task_type, split))
    return frequent_labels(answers, task.top_labels)


def _answers(task: Task, split: str, store: DataStore) -> list[str]:
    """The answers of a task in one split, as far as its data is here."""
    here = [name for name in task.datasets if store.is_here(name)]
    kind, form, options = task.task_type, task.output_type, task.reader_options
    found = [answer for name in here for answer in store.column(name, "answer", kind, split, form, **options)]
    if task.is_local:
        found = [example.answer for example in store.local(task) if example.split == split]
    limit = task.test_per_label if split == "test" else None
    return found if limit is None else [a for answer, count in Counter(found).items() for a in [answer] * min(count, limit)]


def task_counts(task: Task, store: DataStore) -> dict[str, int] | None:
    """Examples of a task by split, narrowed to its label set; None where none of its data is here."""
    if not task.is_local and not any(store.is_here(name) for name in task.datasets):
        return None
    valid = set(label_set(task, store))
    answers = {split: _answers(task, split, store) for split in SPLITS}
    if not any(answers.values()):
        raise MissingData(f"task '{task.name}' has no examples in {', '.join(task.datasets) or 'its files'}.")
    return {
        split: sum(1 for answer in found if not valid or not valid.isdisjoint(read_several(answer)))
        for split, found in answers.items()
    }


def left_out(task: Task, store: DataStore) -> dict[str, int]:
    """How many rows of a task's files, or of its corpora that are here, are left out, by reason."""
    if task.is_local:
        return store.left_out(task)
    found = Counter[str]()
    for name in task.datasets:
        found.update(store.prepared(name).skipped if store.is_here(name) else {})
    return dict(found)


def label_balance(task: Task, store: DataStore) -> dict[str, float]:
    """Share of a task's adaptation examples that have each label, the most frequent first.

    Empty where each example has labels of its own, or answers are free text, or none of the data is here.
    """
    several = task.output_type == "multi_label"
    answers = _answers(task, "adaptation", store) if several or task.fixed_labels else []
    valid = set(label_set(task, store)) if answers else set()
    labels = [set(read_several(answer) if several else (answer,)) for answer in answers]
    kept = [chosen for found in labels if (chosen := found & valid if valid else found)]
    counts = Counter(label for chosen in kept for label in chosen)
    return {label: counts[label] / len(kept) for label in sorted(counts, key=lambda label: (-counts[label], label))}


def expert_examples(name: str, store: DataStore, most: int | None = None, seed: int = 0) -> tuple[list[Example], int]:
    """Training examples of an expert without those about anything that a task tests, and how many these are.

    Data sets that are not here and come in no package are passed over.

    Args:
        most: examples that are drawn by the seed, of each data set an equal share (`equal_shares`); None takes all.

    Raises:
        UnknownName: there is no such expert. MissingData: none of its data sets can be had.
        ConfigError: `name` is a task file that is no corpus.
    """
    protected = protected_keys(store)
    parts = [without_dedup_keys(examples, protected) for examples in _by_source(name, store).values()]
    kept, left_out = [examples for examples, _ in parts], sum(dropped for _, dropped in parts)
    if most is not None and most < sum(map(len, kept)):
        shares = equal_shares([len(examples) for examples in kept], most)
        ordered = (sorted(examples, key=lambda example: example.id) for examples in kept)
        kept = [seeded_rng(f"training draw {seed}").sample(*draw) for draw in zip(ordered, shares, strict=True)]
    return [example for examples in kept for example in examples], left_out


def _by_source(name: str, store: DataStore) -> dict[str, list[Example]]:
    """Training examples of an expert by data set; raises as `expert_examples`."""
    if is_task_file(name):
        task = load_task(Path(name))
        if task.test_split is not None or not task.is_local:
            raise ConfigError(f"{name} is no corpus for an expert: give local data_files, and leave test_split out.")
        return {name: task_examples(task, "train", store)}
    given = store.registry.expert_sources(name)
    sources = [(dataset, task_type) for dataset, task_type in given if store.can_have(dataset)]
    if not sources:
        names = ", ".join(dict.fromkeys(dataset for dataset, _ in given))
        raise MissingData(f"expert '{name}' has no data here; it is fed by {names or 'no data set'}. See: staf data list")
    found: dict[str, list[Example]] = {}
    for dataset, task_type in sources:
        found.setdefault(dataset, []).extend(_training(dataset, task_type, store))
    return found


def _training(dataset: str, task_type: str, store: DataStore) -> list[Example]:
    """Training examples of a task type; where labels are many, narrowed to the most frequent, as tasks ask for them."""
    examples = store.examples(dataset, task_type, store.training_split)
    if task_type not in LISTED:
        return examples
    return narrowed(examples, frequent_labels((example.answer for example in examples), LABELS_OF_RECORDS))


def protected_keys(store: DataStore) -> frozenset[str]:
    """Dedup keys of every test example of every task in the registry whose data is already here."""
    tasks = store.registry.tasks.values()
    pairs = dict.fromkeys((name, task.task_type) for task in tasks for name in task.datasets if store.is_here(name))
    keys = [about for name, task_type in pairs for about in store.column(name, "dedup_keys", task_type, "test")]
    own = [e.dedup_keys for task in tasks if task.is_local for e in store.local(task) if e.split == "test"]
    return frozenset().union(*keys, *own)


def refuse_leak(task: Task, test: Iterable[Example], trained: frozenset[str]) -> None:
    """Raise TestLeak where a test item is about something that an expert was trained on."""
    given = list(test)
    leaked = [example.id for example in given if not trained.isdisjoint(compared_keys(example))]
    if leaked:
        raise TestLeak(
            f"{len(leaked)} of {len(given)} test items of '{task.name}' are about something that an expert was trained on: "
            f"{', '.join(leaked[:3])}. Their score would mean nothing. Train the experts again "
            "with the task's data at hand (of a task file: staf train --task FILE): what any task tests is then left out."
        )


def prepare_task(task: Task, store: DataStore, trained: frozenset[str] = frozenset()) -> dict[str, int]:
    """Examples of a task by split, after checking that no test item occurs in what any expert trains on or was trained on.

    Raises:
        TestLeak: naming the test items. MissingData: its data is not here.
    """
    test = task_examples(task, "test", store)
    refuse_leak(task, test, trained)
    for name in KNOWLEDGE_TYPES:
        if any(store.is_here(dataset) for dataset, _ in store.registry.expert_sources(name)):
            training, _ = expert_examples(name, store)
            refuse_leak(task, test, frozenset(key for example in training for key in example.dedup_keys))
    return task_counts(task, store) or {}
