"""Every way to answer a task, compared in Python: a table that prints itself, and its page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from staf.data.task import Task
from staf.model.model import Model
from staf.report.comparison import notes, row_cells, write_comparison
from staf.stages.comparison import LIMIT
from staf.stages.comparison import compare as compare_rows


class Comparison(dict[str, Any]):
    """What `staf.compare` found, printed as a table with its recommendation.

    Its keys: `rows` (name, value, low, high, to_majority, to_simple, seconds, memory_bytes of each), `curve`, `left_out`,
    `reduced`, `recommendation`, ...; scores and differences are between 0 and 1.
    """

    def save(self, file: str | Path) -> Path:
        """Write its page, one HTML file that loads nothing; returns its path."""
        return write_comparison(self, Path(file))

    def __repr__(self) -> str:
        cells = row_cells(self)
        table = [list(cells[0]) if cells else [], *([_in_one_line(text) for text in row.values()] for row in cells)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in table]
        return "\n".join(
            [f"{self['task_title']}: {self['shots']} labelled examples", *lines, *notes(self), self["recommendation"]]
        )


def _in_one_line(text: str) -> str:
    value, _, interval = text.partition("\n")
    return f"{value} ({interval})" if interval else value


def compare(
    model: Model, task: Task | str | Path, shots: int = 32, minutes: float = 10.0, limit: int = LIMIT, seed: int = 0,
    encoder: str | None = None, out: str | Path | None = None,
) -> Comparison:  # fmt: skip
    """Compare every way to answer a task on the same test rows, simple ones included, and recommend one.

    What was done before is read, and an interrupted call resumes.

    Args:
        model: one without experts leaves their rows out.
        shots: labelled examples that every row learns from, drawn by the seed; fewer where the task has fewer.
        minutes: for all rows; what does not fit is lowered or left out, and named.
        limit: maximum test rows.
        encoder: a sentence encoder by hub id or folder; None is the default one.
        out: folder of the result; None is compare/TASK in the folder of runs.

    Raises:
        MissingData: the task has no labelled or no test examples. TestLeak: an expert was trained on a test item.
    """
    with model.using(task) as (context, found):
        folder = None if out is None else Path(out)
        return Comparison(
            compare_rows(
                context, found, model.experts, shots=shots, minutes=minutes, limit=limit, seed=seed, encoder=encoder, out=folder
            )
        )
