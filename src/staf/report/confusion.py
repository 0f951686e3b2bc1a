"""Confusion matrices: which label a router answers where another is right, counted from the saved predictions of its runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from staf.errors import DamagedFile
from staf.report.checks import is_number
from staf.report.collect import Result
from staf.report.groups import Group, method_groups, primary

MOST_LABELS = 25
"""More would not be readable."""
ROUTERS = ("few_shot", "normal", "zero_shot")


@dataclass(frozen=True, slots=True)
class Confusion:
    """Answers of one router on one task, all seeds together."""

    title: str
    """of the router"""
    runs: tuple[str, ...]
    labels: list[str]
    counts: list[list[int]]
    """[right label][answered label]"""

    def shade(self, row: int, column: int) -> int:
        """How much of the row's answers a cell holds, in percent."""
        total = sum(self.counts[row])
        return round(100 * self.counts[row][column] / total) if total else 0


def confusion_of(runs: Path, results: Sequence[Result], task: str) -> Confusion | None:
    """The matrix of the best router of a task whose items all have the same labels, at most `MOST_LABELS`.

    None where the task is not of this form, no router was scored on it, or its predictions were not kept.

    Raises:
        DamagedFile: predictions that are not as they were written.
    """
    routers = [group for group in method_groups(results, task) if group.method.startswith(ROUTERS)]
    scored = [(score, group) for group in routers if (score := _mean_score(group)) is not None]
    if not scored or not all(_fixed_labels(result) for _, group in scored for result in group.results):
        return None
    best = max(scored, key=lambda pair: pair[0])[1]
    predictions = [item for run in best.runs for item in read_predictions(runs / run)]
    counts = count_answers(predictions)
    if counts is None:
        return None
    return Confusion(best.title, best.runs, _labels(best.results[0].get("labels"), len(counts)), counts)


def read_predictions(folder: Path) -> list[dict[str, Any]]:
    """The saved predictions of a run with scores for labels; [] where none were kept.

    Raises:
        DamagedFile: a line is no object with the index of the right label and a score for each label.
    """
    path = folder / "predictions.jsonl"
    if not path.is_file():
        return []
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        try:
            item = json.loads(line)
        except ValueError:
            item = None
        if not _is_choice(item):
            raise DamagedFile(
                f"{path}, line {number}: expected an object with 'gold', the index of a label, and 'scores', a number for each "
                f"label. Delete the folder {folder} and run the command that made it, or restore the file from a copy."
            )
        found.append(item)
    return found


def count_answers(predictions: Sequence[dict[str, Any]]) -> list[list[int]] | None:
    """Counts [right label][answered label]; None for none, for other numbers of labels, or for too many of them."""
    sizes = {len(item["scores"]) for item in predictions}
    if len(sizes) != 1 or (size := sizes.pop()) > MOST_LABELS:
        return None
    counts = [[0] * size for _ in range(size)]
    for item in predictions:
        counts[item["gold"]][max(range(size), key=item["scores"].__getitem__)] += 1
    return counts


def _labels(names: Any, count: int) -> list[str]:
    """The labels that a result names, or numbers where it names none."""
    if isinstance(names, list) and len(names) == count and all(isinstance(name, str) for name in names):
        return names
    return [f"label {number}" for number in range(1, count + 1)]


def _fixed_labels(result: Result) -> bool:
    """Macro F1 is there only where all items have the same labels."""
    return result.get("form") == "choice" and bool((result.get("metrics") or {}).get("macro_f1"))


def _is_choice(item: Any) -> bool:
    if not isinstance(item, dict) or not isinstance(item.get("scores"), list) or not all(map(is_number, item["scores"])):
        return False
    gold = item.get("gold")
    return isinstance(gold, int) and not isinstance(gold, bool) and 0 <= gold < len(item["scores"])


def _mean_score(group: Group) -> float | None:
    values = [metric["value"] for result in group.results if (metric := primary(result)) and metric["value"] is not None]
    return sum(values) / len(values) if values else None
