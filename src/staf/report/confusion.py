"""Confusion matrices: which label a router predicts where another is right, counted from saved predictions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from pydantic import ValidationError

from staf.errors import DamagedFile
from staf.metrics.schema import ChoicePrediction
from staf.report.results import Finished
from staf.report.seed_groups import method_groups
from staf.report.tables import Row

MOST_LABELS = 25
"""More would not be readable."""
ROUTERS = ("few_shot", "normal", "zero_shot")


def confusion_table(runs: Path, results: Sequence[Finished], task: str) -> tuple[str, list[Row]] | None:
    """The best router of a task with fixed labels, and its counts, all seeds together: right label down, predicted across.

    None where labels differ by item or are more than `MOST_LABELS`, or no router's predictions were kept.

    Raises:
        DamagedFile: predictions that are not as they were written.
    """
    scored = {}
    for group in method_groups(results, task):
        values = [r.primary.value for r in group.results if r.primary and r.primary.value is not None]
        if group.method.startswith(ROUTERS) and values:
            scored[fmean(values)] = group
    every = [result for group in scored.values() for result in group.results]
    if not every or any(r.output_type != "multiple_choice" or not r.metrics.get("macro_f1") for r in every):
        return None  # macro F1 is defined only where all items have the same labels
    best = scored[max(scored)]
    found = [item for run in best.runs for item in read_choices(runs / run)]
    sizes = {len(item.scores) for item in found}
    if len(sizes) != 1 or (size := sizes.pop()) > MOST_LABELS:
        return None
    count = Counter((item.gold, item.scores.index(max(item.scores))) for item in found)
    kept = best.results[0].labels
    names = kept if len(kept) == size else [f"label {number}" for number in range(1, size + 1)]
    return best.title, [
        Row({"Right \\ predicted": name, **{other: f"{count[right, i]}" for i, other in enumerate(names)}}, ())
        for right, name in enumerate(names)
    ]


def read_choices(folder: Path) -> list[ChoicePrediction]:
    """The saved predictions of a run; [] where none were kept.

    Raises:
        DamagedFile: a line is not a prediction of one of several labels.
    """
    path = folder / "predictions.jsonl"
    found = []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    for number, line in enumerate(lines, start=1):
        try:
            found.append(ChoicePrediction.model_validate_json(line))
        except ValidationError as error:
            raise DamagedFile(
                f"{path}, line {number}: expected an object with 'gold', the index of a label, and 'scores', a number for each "
                f"label. Delete the folder {folder} and rerun the command that made it, or restore the file from a copy."
            ) from error
    return found
