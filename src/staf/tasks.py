"""Tasks: what an expert trains on, and what a router adapts to and is judged by.

A task is a row: which kind of example from which data sets, its metric, and whether any expert is trained on that kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from staf.data.catalog import DATASETS, locate
from staf.data.example import KNOWLEDGE_TYPES, Example
from staf.data.prepare import load, prepare
from staf.data.splits import without_subjects
from staf.errors import MissingData, TestLeak, UnknownName


@dataclass(frozen=True)
class Task:
    """One downstream task."""

    name: str
    title: str
    kind: str
    """of its examples"""
    datasets: tuple[str, ...]
    fixed_labels: bool
    """every item has the same labels, so macro F1 and AUC are defined"""
    unseen: bool
    """no expert is trained on this kind"""
    metric: str = "accuracy"


TASKS = {
    task.name: task
    for task in (
        Task("medmcqa", "MedMCQA: the right one of four options", "multiple_choice", ("medmcqa",), False, False),
        Task("medqa_usmle", "MedQA (USMLE): the right option", "multiple_choice", ("medqa-usmle",), False, False),
        Task("pubmedqa", "PubMedQA: yes, no or maybe", "question_answering", ("pubmedqa",), True, False),
        Task("hpo_attribute", "HPO: attributes of a phenotype", "entity_attribute", ("hpo",), False, False),
        Task("hpo_synonymy", "HPO: the term that another name means", "entity_synonymy", ("hpo",), False, False),
        Task(
            "icd10_synonymy",
            "ICD-10-CM: the title that another name means",
            "entity_synonymy",
            ("icd-10-cm",),
            False,
            False,
        ),
        Task("hpo_relation", "HPO: the broader concept of a phenotype", "entity_relation", ("hpo",), False, False),
        Task(
            "icd10_relation",
            "ICD-10-CM: the broader concept of a disease",
            "entity_relation",
            ("icd-10-cm",),
            False,
            False,
        ),
        Task("icd10_chapter", "ICD-10-CM: the chapter of a disease title", "icd10_chapter", ("icd-10-cm",), True, True),
    )
}


def find_task(name: str) -> Task:
    """The task of a name.

    Raises:
        UnknownName: with near names and the list.
    """
    if name not in TASKS:
        raise UnknownName.among("task", name, TASKS)
    return TASKS[name]


def expert_datasets(knowledge_type: str) -> tuple[str, ...]:
    """Names of the data sets that feed an expert, in catalogue order.

    Raises:
        UnknownName: it is none of the twelve types, or no data set feeds it yet.
    """
    fed = {kind for dataset in DATASETS.values() for kind in dataset.kinds if kind in KNOWLEDGE_TYPES}
    if knowledge_type not in fed:
        raise UnknownName.among("knowledge type with data", knowledge_type, fed)
    return tuple(name for name, dataset in DATASETS.items() if knowledge_type in dataset.kinds)


def held_out_task(knowledge_type: str) -> Task:
    """An expert's own held-out test: the test split of everything that feeds it."""
    title = f"held-out {knowledge_type.replace('_', ' ')}"
    return Task(f"{knowledge_type}-held-out", title, knowledge_type, expert_datasets(knowledge_type), False, False)


def task_examples(task: Task, split: str, data: Path | None = None, fetch: bool = True) -> list[Example]:
    """Examples of one split of a task, over its data sets.

    Raises:
        MissingData: a data set is not there, or has no such examples.
    """
    found: list[Example] = []
    for name in task.datasets:
        found += load(prepare(name, data, fetch=fetch), task.kind, split)
    if not found:
        raise MissingData(f"task '{task.name}' has no {split} examples in {', '.join(task.datasets)}. See: staf data list")
    return found


def expert_examples(knowledge_type: str, data: Path | None = None, fetch: bool = True) -> tuple[list[Example], int]:
    """Training examples of an expert, without those about anything that a task of the same machine tests.

    Returns:
        the examples, and how many were left out because a test item is about the same thing.
    """
    examples: list[Example] = []
    for name in expert_datasets(knowledge_type):
        if fetch or locate(DATASETS[name], data) is not None:
            examples += load(prepare(name, data, fetch=fetch), knowledge_type, "train")
    return without_subjects(examples, tested_subjects(data))


def tested_subjects(data: Path | None) -> frozenset[str]:
    """Subjects of every test example of every task whose data is already here."""
    subjects: set[str] = set()
    for task in TASKS.values():
        for name in task.datasets:
            if locate(DATASETS[name], data) is not None:
                for example in load(prepare(name, data, fetch=False), task.kind, "test"):
                    subjects.update(example.subjects)
    return frozenset(subjects)


def refuse_leak(task: Task, test: list[Example], trained: frozenset[str]) -> None:
    """See that no test item is about something that an expert was trained on.

    Raises:
        TestLeak: naming the items.
    """
    leaked = [example.id for example in test if not trained.isdisjoint(example.subjects)]
    if leaked:
        raise TestLeak(
            f"{len(leaked)} of {len(test)} test items of '{task.name}' are about something that an expert was trained on: "
            f"{', '.join(leaked[:3])}. Their score would mean nothing. Fetch the task's data first and train the experts "
            "again: staf train leaves out what any task tests."
        )
