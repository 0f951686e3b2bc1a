"""Tables 1 and 2 of STAF-LLM (paper_tables.yaml) and the data here: corpora of the experts, sizes of the tasks."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

import yaml

from staf.data.example import KNOWLEDGE_TYPES, SPLITS
from staf.data.selection import task_counts
from staf.data.store import DataStore

SHOTS = 32
"""Adaptation examples of the few-shot setting."""


@cache
def paper_tables() -> dict[str, Any]:
    """Table 1 as `corpora` and Table 2 as `tasks`, with the data sets and tasks here that are their rows or replace them."""
    tables: dict[str, Any] = yaml.safe_load((resources.files("staf.data") / "paper_tables.yaml").read_text(encoding="utf-8"))
    return tables


def corpus_rows(store: DataStore) -> list[dict[str, Any]]:
    """Table 1: one row for each data set that is a corpus of the paper or a proxy for it; null counts where not here."""
    rows = []
    for corpus in paper_tables()["corpora"]:
        for name in corpus["datasets"]:
            card = store.registry.find_card(name)
            own = [task_type for task_type in corpus["task_types"] if task_type in card.task_types]
            found = dict[str, int]()
            if store.is_here(name):
                counts = store.prepared(name).counts
                found = {split: sum(counts.get(task_type, {}).get(split, 0) for task_type in own) for split in SPLITS}
            rows.append(
                {
                    "table": 1, "paper": corpus["corpus"], "category": corpus["category"],
                    "type": "+".join(KNOWLEDGE_TYPES[task_type] for task_type in own), "paper_size": corpus["size"],
                    "ours": name, "access": card.access, "examples": sum(found.values()) if found else None,
                    **dict.fromkeys(SPLITS), **found,
                }
            )  # fmt: skip
    return rows


def task_rows(store: DataStore) -> list[dict[str, Any]]:
    """Table 2: one row for each task that is one of the paper's nine or a proxy for it; null counts where not here."""
    rows, papers = [], paper_tables()["tasks"]
    for task in store.registry.tasks.values():
        if task.proxy_for not in papers or task.top_labels not in (None, 50) or task.name.startswith("icd_coding_full"):
            continue
        paper, found = papers[task.proxy_for], task_counts(task, store) or {}
        rows.append(
            {
                "table": 2, "paper": paper["title"], "type": paper["type"],
                **{f"paper_{split}": paper[split] for split in SPLITS}, "ours": task.name, "metric": task.metric,
                **dict.fromkeys(SPLITS), **found,
                "few_shot": min(SHOTS, found["adaptation"]) if found else None,
            }
        )  # fmt: skip
    order = [paper["title"] for paper in papers.values()]
    return sorted(rows, key=lambda row: order.index(row["paper"]))
