"""Tables 1 and 2 of STAF-LLM beside what is here: corpora of the experts, and sizes of the downstream tasks."""

from __future__ import annotations

from typing import Any

from staf.data.answers import read_several
from staf.data.catalog import dataset
from staf.data.example import KNOWLEDGE_TYPES, SPLITS
from staf.data.selection import label_set
from staf.data.store import DataStore
from staf.data.task import TASKS, Task
from staf.errors import MissingData

SHOTS = 32
"""Adaptation examples of the few-shot setting."""

CORPORA = (
    ("MedQuAD", "Question answering", ("multiple_choice", "question_answering"), 47_457, ("medquad",)),
    ("USMLE", "Question answering", ("multiple_choice",), 61_097, ("medqa-usmle", "medmcqa", "mmlu-medical")),
    (
        "HealthCareMagic",
        "Sequence to sequence",
        ("medical_conversation",),
        112_165,
        ("healthcaremagic", "chatdoctor", "mts-dialog", "aci-bench"),
    ),
    (
        "UMLS",
        "Knowledge graph",
        ("entity_attribute", "entity_synonymy", "entity_relation"),
        15_479,
        ("umls", "hpo", "disease-ontology", "icd-10-cm", "pharmacotherapydb", "chatdoctor"),
    ),
    ("WikiMed", "Text classification", ("document_classification",), 393_618, ("wikimed", "hallmarks-of-cancer")),
    ("CliCR", "Sequence labeling", ("reading_comprehension",), 10_500, ("clicr", "covid-qa")),
    (
        "MIMIC-Cause",
        "Sequence labeling",
        ("relation_extraction",),
        2_714,
        ("mimicause", "bc5cdr", "pubmed-causal-language"),
    ),
    ("MeQSum", "Sequence to sequence", ("summarization",), 2_333, ("meqsum", "mts-dialog", "aci-bench")),
    ("EMRQA", "Sequence labeling", ("reading_comprehension",), 5_789, ("emrqa", "covid-qa", "evidence-inference")),
    ("PubMedQA", "Question answering", ("question_answering",), 23_149, ("pubmedqa",)),
    (
        "MedNLI",
        "Text classification",
        ("natural_language_inference",),
        1_422,
        ("mednli", "rqe-amia2016", "evidence-inference"),
    ),
    ("CliNER", "Sequence labeling", ("named_entity_recognition",), 1_327, ("i2b2-2010", "ncbi-disease", "bc5cdr")),
)
"""Table 1: corpus, category, knowledge types, size; and the data sets that are it or stand in for it."""

TASK_SIZES = {
    "emrqa": ("EMRQA", "MRC", 4_629, 580, 580),
    "medquad": ("MedQuAD", "MCQA", 44_911, 1_273, 1_273),
    "pubmedqa": ("PubMedQA", "QA", 21_545, 802, 802),
    "mimicause": ("MIMIC-Cause", "RE", 1_286, 714, 714),
    "mednli": ("MedNLI", "NLI", 1_138, 142, 142),
    "cliner": ("CliNER", "NER", 911, 208, 208),
    "icd_coding": ("ICD coding", "MLDC", 41_315, 1_500, 1_584),
    "medication": ("Medication recommendation", "MLDC", 33_225, 1_200, 1_282),
    "readmission": ("30-day readmission prediction", "DC", 5_108, 580, 575),
}
"""Table 2: title, type, training, adaptation (normal) and test sizes; adaptation (few-shot) is `SHOTS` throughout."""


def corpus_rows(store: DataStore) -> list[dict[str, Any]]:
    """Table 1: one row for each data set that is a corpus of the paper or stands in for it; null counts where not here."""
    rows = []
    for corpus, category, task_types, size, names in CORPORA:
        for name in names:
            own = [task_type for task_type in task_types if task_type in dataset(name).task_types]
            counts = store.prepared(name).counts if store.is_here(name) else None
            found = None if counts is None else {s: sum(counts.get(k, {}).get(s, 0) for k in own) for s in SPLITS}
            rows.append(
                {
                    "table": 1,
                    "paper": corpus,
                    "category": category,
                    "type": "+".join(KNOWLEDGE_TYPES[task_type] for task_type in own),
                    "paper_size": size,
                    "ours": name,
                    "access": dataset(name).access,
                    "examples": None if found is None else sum(found.values()),
                    **(found or dict.fromkeys(SPLITS)),
                }
            )
    return rows


def task_rows(store: DataStore) -> list[dict[str, Any]]:
    """Table 2: one row for each task that is one of the paper's nine or stands in for it; null counts where not here."""
    rows = []
    for task in TASKS.values():
        if task.proxy_for not in TASK_SIZES or task.top not in (None, 50) or task.name.startswith("icd_coding_full"):
            continue
        title, task_type, train, adaptation, test = TASK_SIZES[task.proxy_for]
        found = task_sizes(task, store)
        rows.append(
            {
                "table": 2,
                "paper": title,
                "type": task_type,
                "paper_train": train,
                "paper_adaptation": adaptation,
                "paper_test": test,
                "ours": task.name,
                "metric": task.metric,
                **(found or dict.fromkeys(SPLITS)),
                "few_shot": None if found is None else min(SHOTS, found["adaptation"]),
            }
        )
    return sorted(rows, key=lambda row: [entry[0] for entry in TASK_SIZES.values()].index(row["paper"]))


def task_sizes(task: Task, store: DataStore) -> dict[str, int] | None:
    """Examples of a task by split, narrowed to its label set; None where none of its data is here."""
    here = [name for name in task.datasets if store.is_here(name)]
    if not here:
        return None
    valid = set(label_set(task, store))
    sizes = {}
    for split in SPLITS:
        answers = [a for name in here for a in store.answers(name, task.task_type, split, task.output_type)]
        sizes[split] = sum(1 for a in answers if not valid or not valid.isdisjoint(read_several(a)))
    if not any(sizes.values()):
        raise MissingData(f"task '{task.name}' has no examples in {', '.join(here)}.")
    return sizes
