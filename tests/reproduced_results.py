"""Results of `staf reproduce`, made up: a world in which every claim of the papers holds, and one in which none does."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from staf.experiments.reproduce import over_columns
from staf.report.claims import load_claims
from staf.report.results import Cell, Column, PairedTest, Table, parse_result

TABLE3 = ("emrqa", "medquad", "pubmedqa", "mednli", "cliner", "mimicause")
CLINICAL = ("icd_coding", "medication", "readmission")
UNSEEN = ("causal_language", "chemical_disease", "trial_effect", "icd10_chapter", "hallmarks")
SCORES = {
    "original": 0.30, "prompt_tuning": 0.50, "prefix_tuning": 0.50, "p_tuning": 0.50, "lora": 0.45, "ia3": 0.50,
    "single": 0.56, "average": 0.60, "normal": 0.70, "full": 0.55, "in_context": 0.40, "lora_few": 0.50, "lorahub": 0.50,
    "few_shot": 0.65,
}  # fmt: skip
TABLE5 = {
    "tfidf": 0.50, "cnn": 0.50, "text_cnn": 0.52, "rnn": 0.48, "encoder": 0.60, "average": 0.55, "normal": 0.65,
    "new": 0.80, "meditron": 0.60,
}  # fmt: skip
METHODS = {"lora_few": "lora", "new": "normal", "all_medical": "normal", "meditron": "external"}
NEAR = ("question_answering", "named_entity_recognition")
EXPERTS = (*NEAR, "summarization", "document_classification")


def cell(mean: float | None, name: str, column: str, seeds: int = 3, **changes: Any) -> dict[str, Any]:
    if mean is None:
        return {"mean": None, "missing": "its data is not here.", "runs": [], "seeds": 0, "papers": {}, **changes}
    return {
        "mean": mean, "deviation": 0.01 if seeds > 1 else None, "low": mean - 0.02 if seeds > 1 else None,
        "high": mean + 0.02 if seeds > 1 else None, "seeds": seeds, "items": 100,
        "interval_of_one_seed": [mean - 0.01, mean + 0.01], "papers": {"staf-llm": 50.0},
        "runs": [f"evaluate/{column}/{name}/seed{seed}-a1b2" for seed in range(seeds)],
        "tunable_parameters": 12, "adaptation_examples": 32, "seconds": 2.0, "prompt_tokens": None, "shots_shown": None,
        "weights": None, **changes,
    }  # fmt: skip


def compared(column: str, ours: str, other: str, difference: float, p_value: float = 0.001) -> dict[str, Any]:
    outcome = "tie" if p_value >= 0.05 or not difference else "win" if difference > 0 else "loss"
    return {
        "column": column, "ours": ours, "other": other, "difference": difference, "low": difference - 0.01,
        "high": difference + 0.01, "p_value": p_value, "outcome": outcome,
    }  # fmt: skip


def reproduced(name: str, scores: dict[str, dict[str, float | None]], **changes: Any) -> dict[str, Any]:
    """`scores`: by row, then by column; rows of routers are compared with all others."""
    columns = list(next(iter(scores.values())))
    methods = {row: METHODS.get(row, {"fig6": "few_shot", "fig8": "normal"}.get(name, row)) for row in scores}
    methods |= {"original": "original"} if "original" in scores else {}
    comparisons = [
        compared(column, ours, other, scores[ours][column] - scores[other][column])  # type: ignore[operator]
        for ours in scores if methods[ours] in ("few_shot", "normal")
        for other in scores if other != ours
        for column in columns if scores[ours][column] is not None and scores[other][column] is not None
    ]  # fmt: skip
    tasks = [Column(name=column, task=column, title=column, metric="accuracy") for column in columns]
    lines = [
        {
            "name": row, "method": methods[row], "title": row.replace("_", " "),
            "setting": "few-shot" if row in ("few_shot", "in_context", "lora_few") else "normal",
            "cells": [cell(own[column], row, column) for column in columns],
        }
        for row, own in scores.items()
    ]  # fmt: skip
    means = over_columns(tasks, [PairedTest.model_validate(test) for test in comparisons])
    return {
        "stage": "reproduce", "task": name, "method": "cpu", "seed": 0, "metrics": {}, "title": f"A made-up {name}",
        "differs": "all of it", "base": {"name": "tiny", "fingerprint": "3fa1"},
        "columns": [{"name": c, "task": f"{c}_open", "title": f"open {c}", "metric": "accuracy"} for c in columns],
        "rows": lines, "comparisons": comparisons, "over_columns": [test.model_dump() for test in means], "prompt_tokens": None,
        "settings": {"seeds": 3},
        "run": f"reproduce/{name}/cpu/seed0-a1b2", **changes,
    }  # fmt: skip


def alike(scores: dict[str, float], columns: tuple[str, ...], good: bool) -> dict[str, dict[str, float | None]]:
    return {row: dict.fromkeys(columns, score if good else 1 - score) for row, score in scores.items()}


def weighing(result: dict[str, Any], row: str, weights: dict[str, dict[str, float]]) -> dict[str, Any]:
    line = next(line for line in result["rows"] if line["name"] == row)
    for column, own in zip(result["columns"], line["cells"], strict=True):
        own["weights"] = [weights[column["name"]]] * 3
    return result


def curve(heights: dict[str, float], columns: tuple[str, ...]) -> dict[str, dict[str, float | None]]:
    return {row: dict.fromkeys(columns, height) for row, height in heights.items()}


def world(good: bool = True) -> dict[str, dict[str, Any]]:
    """All experiments, by name; in the good one every claim holds, in the other none."""
    nine = {"table3": TABLE3, "table4": CLINICAL, "unseen": UNSEEN}
    tables = {name: reproduced(name, alike(SCORES, columns, good)) for name, columns in nine.items()}
    for table in tables.values():
        for line in table["rows"]:
            for own in line["cells"]:
                own["tunable_parameters"] = {"full": 135_000_000}.get(line["name"], 12 if good else 12_000_000)
    labels = tuple(f"{count} labels" for count in (10, 20, 30, 40, 50))
    falling, flat = (0.80, 0.79, 0.60, 0.50, 0.40), (0.90, 0.88, 0.87, 0.86, 0.85)
    heights = {"original": (0.3,) * 5, "in_context": falling, "few_shot": flat}
    fig5 = {row: {c: h if good else 1 - h for c, h in zip(labels, own, strict=True)} for row, own in heights.items()}
    shots = {"8": 0.5, "16": 0.6, "32": 0.7, "64": 0.71} if good else {"8": 0.5, "16": 0.4, "32": 0.3, "64": 0.1}
    counts = {"original": 0.3, "3": 0.5, "6": 0.6, "9": 0.7, "12": 0.8}
    foreign = {"conll-2003": 0.05 if good else 0.7, "a": 0.5, "b": 0.45}
    cross = reproduced("cross-domain", alike({"original": 0.4, "all_medical": 0.8, "normal": 0.7}, ("cliner",), good))
    weighing(weighing(cross, "normal", {"cliner": foreign}), "all_medical", {"cliner": {"a": 0.6, "b": 0.4}})
    wanted = {"pubmedqa": NEAR[0], "cliner": NEAR[1], "medication": EXPERTS[2]}
    weights = {column: {e: 0.7 if (e == own) == good else 0.1 for e in EXPERTS} for column, own in wanted.items()}
    tokens = reproduced("tokens", {row: dict.fromkeys(TABLE3, 0.5) for row in ("in_context", "few_shot")}, comparisons=[])
    tokens["prompt_tokens"] = dict.fromkeys(TABLE3, 150.0)
    for own in tokens["rows"][0]["cells"]:
        own |= {"prompt_tokens": 1000.0 if good else 200.0, "shots_shown": 6.5}
    return {
        **tables,
        "table5": reproduced("table5", alike(TABLE5, load_claims().columns["table5"], good)),
        "fig5": reproduced("fig5", fig5),
        "fig6": reproduced("fig6", curve(shots, ("pubmedqa", "cliner", "mednli"))),
        "fig7": weighing(reproduced("fig7", alike({"normal": 0.7}, tuple(wanted), good)), "normal", weights),
        "fig8": reproduced("fig8", alike(counts, ("emrqa", "medication", "readmission"), good)),
        "cross-domain": cross,
        "tokens": tokens,
    }


def read(found: dict[str, dict[str, Any]]) -> dict[str, Table]:
    """Tables as the report reads them."""
    tables = {name: parse_result(result) for name, result in found.items()}
    return {name: table for name, table in tables.items() if isinstance(table, Table)}


def read_cell(*args: Any, **changes: Any) -> Cell:
    """A cell as the report reads it."""
    return Cell.model_validate(cell(*args, **changes))


def each_cell(found: dict[str, Any], change: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    changed = copy.deepcopy(found)
    for result in changed.values():
        for line in result["rows"]:
            line["cells"] = [change(one) for one in line["cells"]]
    return changed


def without_cells(found: dict[str, Any]) -> dict[str, Any]:
    emptied = each_cell(found, lambda one: cell(None, "x", "y", weights=None))
    return {name: {**result, "comparisons": [], "over_columns": [], "prompt_tokens": None} for name, result in emptied.items()}
