"""Confusion matrices: which label a router predicts where another is right, counted from saved predictions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from pydantic import Field, ValidationError

from staf.errors import DamagedFile
from staf.report.groups import Group, method_groups
from staf.report.results import Finished, Model
from staf.report.tables import Row

MOST_LABELS = 25
"""More would not be readable."""
ROUTERS = ("few_shot", "normal", "zero_shot")


class Choice(Model):
    """A saved prediction of one of several labels."""

    gold: int = Field(ge=0, strict=True)
    scores: list[float]


def confusion_table(runs: Path, results: Sequence[Finished], task: str) -> tuple[str, list[Row]] | None:
    """The best router of a task with fixed labels, and its counts, all seeds together: right label down, predicted across.

    None where labels differ by item or are more than `MOST_LABELS`, or no router's predictions were kept.

    Raises:
        DamagedFile: predictions that are not as they were written.
    """
    routers = [(_mean_score(g), g) for g in method_groups(results, task) if g.method.startswith(ROUTERS)]
    scored = [(score, group) for score, group in routers if score is not None]
    if not scored or not all(_has_fixed_labels(group) for _, group in scored):
        return None
    best = max(scored, key=lambda pair: pair[0])[1]
    counts = count_answers([item for run in best.runs for item in read_choices(runs / run)])
    if counts is None:
        return None
    kept = best.results[0].labels
    names = kept if len(kept) == len(counts) else [f"label {number}" for number in range(1, len(counts) + 1)]
    corner = "Right \\ predicted"
    rows = [
        Row({corner: name, **dict(zip(names, map(str, own), strict=True))}, ()) for name, own in zip(names, counts, strict=True)
    ]
    return best.title, rows


def read_choices(folder: Path) -> list[Choice]:
    """The saved predictions of a run; [] where none were kept.

    Raises:
        DamagedFile: a line is not an object with the index of the right label and a score for each label.
    """
    path = folder / "predictions.jsonl"
    found = []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    for number, line in enumerate(lines, start=1):
        try:
            item = Choice.model_validate(json.loads(line))
        except (ValidationError, ValueError):
            item = None
        if item is None or item.gold >= len(item.scores):
            raise DamagedFile(
                f"{path}, line {number}: expected an object with 'gold', the index of a label, and 'scores', a number for each "
                f"label. Delete the folder {folder} and rerun the command that made it, or restore the file from a copy."
            )
        found.append(item)
    return found


def count_answers(predictions: Sequence[Choice]) -> list[list[int]] | None:
    """Counts [right label][predicted label]; None for none, for other numbers of labels, or for too many of them."""
    sizes = {len(item.scores) for item in predictions}
    if len(sizes) != 1 or (size := sizes.pop()) > MOST_LABELS:
        return None
    counts = [[0] * size for _ in range(size)]
    for item in predictions:
        counts[item.gold][item.scores.index(max(item.scores))] += 1
    return counts


def _has_fixed_labels(group: Group) -> bool:
    """Macro F1 is defined only where all items have the same labels."""
    return all(r.output_type == "multiple_choice" and r.metrics.get("macro_f1") for r in group.results)


def _mean_score(group: Group) -> float | None:
    values = [r.primary.value for r in group.results if r.primary and r.primary.value is not None]
    return fmean(values) if values else None
