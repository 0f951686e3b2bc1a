"""staf compare."""

from __future__ import annotations

from pathlib import Path

from staf.cli.options import RUNS, SPLITS
from staf.cli.printing import Terminal, emit, emit_table, say


def compare(
    *, task: str, experts: Path | None = None, shots: int = 32, minutes: float = 10.0, limit: int = 500,
    encoder: str | None = None, out: Path | None = None, base: str | None = None, data_dir: Path | None = None,
    splits: str = SPLITS, runs: Path = RUNS, dtype: str | None = None, as_json: bool = False,
) -> None:  # fmt: skip
    """Compare every way to answer a task, constants and classifiers included, and recommend one.

    Without --experts the rows of experts are left out. Re-run the command to resume.
    """
    from staf.experts.store import load_experts
    from staf.report.comparison import curve_cells, notes, row_cells, write_comparison
    from staf.stages.comparison import compare as compare_rows
    from staf.stages.context import Context

    context = Context(base, data_dir, runs, Terminal(), dtype=dtype, split_scheme=splits)
    found = context.find_task(task)
    loaded = None if experts is None else load_experts(experts)
    folder = out or runs / "compare" / found.name
    result = compare_rows(context, found, loaded, shots=shots, minutes=minutes, limit=limit, encoder=encoder, out=folder)
    page = write_comparison(result, folder / "comparison.html")
    if as_json:
        emit(True, {**result, "page": str(page)})
        return
    if rows := row_cells(result):
        emit_table(False, rows, (), f"{result['task_title']}: {result['shots']} labelled examples")
    if curve := curve_cells(result):
        emit_table(False, curve, (), "By number of labelled examples")
    say(*notes(result), "", result["recommendation"], f"page: {page}")
