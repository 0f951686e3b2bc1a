"""Tables of finished runs: one row per method or expert, every cell a text; printed, or written as CSV and Markdown.

Runs are averaged over seeds only where nothing but the seed differs. A method that was run with several settings has a row for
each, named by what differs.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING

from staf.report.formatting import (
    MISSING,
    count_text,
    difference_text,
    memory_text,
    number_text,
    p_text,
    range_text,
    scale,
    score_text,
    time_text,
)
from staf.report.names import METRICS, method_order, method_title, metric_title
from staf.report.results import Evaluation, Finished, Training, evaluations
from staf.report.seed_groups import HELD_OUT, Group, method_groups, task_title

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table, and the run folders that its numbers come from."""

    cells: dict[str, str]
    """text by column, in printed order; all rows of a table have the same columns"""
    runs: tuple[str, ...]
    """run folders relative to `runs/`"""
    sources: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """run folders of a column, where they are not those of the row"""

    def runs_of(self, column: str) -> tuple[str, ...]:
        """The run folders that one cell comes from."""
        return self.sources.get(column, self.runs)


def task_table(results: Sequence[Finished], task: str) -> list[Row]:
    """One row per method on `task`: scores, and what they cost; tokens of a prompt where any run counted them."""
    groups = method_groups(results, task)
    titles = _metric_titles(groups, [*(group.metric for group in groups[:1]), *METRICS])
    tokens = [[n for r in group.results if (n := r.details.get("prompt_tokens_mean")) is not None] for group in groups]
    rows = [Row(_task_cells(group, titles), group.runs) for group in groups]
    if any(tokens):
        for row, own in zip(rows, tokens, strict=True):
            row.cells["Prompt tokens"] = count_text(round(fmean(own))) if own else MISSING
    return rows


def _task_cells(group: Group, titles: dict[str, str]) -> dict[str, str]:
    results = group.results
    return {
        "Method": group.title,
        "Setting": ", ".join(sorted({r.setting for r in results})),
        **{title: score_text(results, metric) for metric, title in titles.items()},
        "Test examples": range_text(r.primary.examples for r in results if r.primary),
        "Adapted on": range_text(r.adaptation_examples for r in results),
        "Tunable parameters": range_text(r.tunable_parameters for r in results),
        "Time": _mean_time(results),
        "Peak memory": memory_text(max((r.peak_memory_bytes for r in results if r.peak_memory_bytes), default=None)),
    }


def overview_table(results: Sequence[Finished], tasks: Sequence[str]) -> list[Row]:
    """One row per method and one column per task with the primary score; "-" where a method was not run."""
    titles = [task_title(results, task) for task in tasks]
    columns = {t: t if titles.count(title) > 1 else title for t, title in zip(tasks, titles, strict=True)}
    found: dict[tuple[str, str], dict[str, Group]] = {}
    for task in tasks:
        for group in method_groups(results, task):
            found.setdefault((group.method, group.title), {})[columns[task]] = group
    rows = []
    for (_, title), groups in sorted(found.items(), key=lambda pair: method_order(pair[0][0])):
        own = {c: score_text(groups[c].results, groups[c].metric) if c in groups else MISSING for c in columns.values()}
        sources = {column: group.runs for column, group in groups.items()}
        rows.append(Row({"Method": title, **own}, tuple(run for runs in sources.values() for run in runs), sources))
    return rows


def comparison_table(results: Sequence[Finished], task: str) -> list[Row]:
    """One row per paired comparison in the runs of `task`; over seeds the widest interval and largest p-value."""
    rows = []
    for group in method_groups(results, task):
        factor = scale(group.results, group.metric)
        for other in sorted({name for r in group.results for name in r.comparisons}, key=method_order):
            found = [c for r in group.results if (c := r.comparisons.get(other)) and c.difference is not None]
            if not found:
                continue
            lows, highs = [c.low for c in found if c.low is not None], [c.high for c in found if c.high is not None]
            p_values = [c.p_value for c in found if c.p_value is not None]
            known = lows and highs
            cells = {
                "Method": group.title,
                "Against": method_title(other),
                "Difference": number_text(fmean(c.difference or 0.0 for c in found), factor, "+"),
                "95 % interval": f"{number_text(min(lows), factor)} to {number_text(max(highs), factor)}" if known else MISSING,
                "Test": p_text(max(p_values)) if p_values else MISSING,
                "Clear": MISSING if not known else "above" if min(lows) > 0 else "below" if max(highs) < 0 else "no",
            }
            rows.append(Row(cells, group.runs))
    return rows


def held_out_table(results: Sequence[Finished]) -> list[Row]:
    """One row per expert: its own held-out task with the base model and with the expert."""
    rows = []
    for task in sorted({r.task for r in evaluations(results) if r.task.endswith(HELD_OUT)}):
        groups = method_groups(results, task)
        originals, experts = ([g for g in groups if g.method == method] for method in ("original", "single"))
        name = task.removesuffix(HELD_OUT)
        for expert in experts:
            original = next((group for group in originals if _data_of(group) & _data_of(expert)), None)
            label = expert.title.removeprefix(method_title("single")) if len(experts) > 1 else ""
            rows.append(_held_out_row(name + label, original, expert))
        if originals and not experts:
            rows.append(_held_out_row(name, originals[0], None))
    return rows


def _data_of(group: Group) -> set[str]:
    return {json.dumps([r.base, r.data_fingerprint], sort_keys=True) for r in group.results}


def _held_out_row(label: str, original: Group | None, expert: Group | None) -> Row:
    shown = next(group for group in (expert, original) if group is not None)
    found = [c for r in (expert.results if expert else ()) if (c := r.comparisons.get("original"))]
    cells = {
        "Expert": label,
        "Base model": score_text(original.results, shown.metric) if original else MISSING,
        "With its expert": score_text(expert.results, shown.metric) if expert else MISSING,
        "Difference": difference_text(found, scale(shown.results, shown.metric)),
        "Metric": _metric_title(shown.metric, shown.results),
        "Test examples": range_text(r.primary.examples for r in shown.results if r.primary),
    }
    return Row(cells, shown.runs, {"Base model": original.runs if original else ()})


def training_table(results: Sequence[Finished]) -> list[Row]:
    """One row per trained expert: what it read, how fast, and what is left of its ranks."""
    trained = [r for r in results if isinstance(r, Training)]
    names = [r.task for r in trained]
    return [Row(_training_cells(r, names.count(r.task) > 1), (r.run,)) for r in trained]


def _training_cells(result: Training, repeated: bool) -> dict[str, str]:
    first, last, rank = result.loss_first, result.loss_last, result.final_rank_average
    speed = result.tokens_per_second
    return {
        "Expert": result.task + (f" ({result.run.rsplit('/', 1)[-1]})" if repeated else ""),
        "Steps": count_text(result.steps),
        "Examples": count_text(result.examples),
        "Tokens": count_text(result.tokens),
        "Tokens/s": count_text(None if speed is None else round(speed)),
        "Loss, first to last": MISSING if first is None or last is None else f"{first:.2f} to {last:.2f}",
        "Trainable parameters": count_text(result.trainable_parameters),
        "Average rank": MISSING if rank is None else f"{rank:.1f}",
        "Time": time_text(result.seconds),
        "Peak memory": memory_text(result.peak_memory_bytes),
    }


# ---- writing ---------------------------------------------------------------------------------------------------------


def print_table(console: Console, rows: Sequence[Row], title: str = "", columns: Sequence[str] = ()) -> None:
    """Print rows to a terminal, all columns or some; the first is left-aligned, the others right-aligned."""
    from rich.table import Table
    from rich.text import Text

    if not rows:
        return
    table = Table(title=Text(title) if title else None, title_justify="left")
    shown = columns or list(rows[0].cells)
    for position, column in enumerate(shown):
        table.add_column(Text(column), justify="right" if position else "left")
    for row in rows:
        table.add_row(*(Text(row.cells[column]) for column in shown))  # as Text: a name in [brackets] is not markup
    console.print(table)


def csv_text(rows: Sequence[Row]) -> str:
    """Rows as CSV, with a header."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0].cells), lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.cells for row in rows)
    return buffer.getvalue()


def markdown_text(rows: Sequence[Row]) -> str:
    """Rows as a Markdown table."""
    lines = [rows[0].cells.keys(), ["---"] * len(rows[0].cells), *(row.cells.values() for row in rows)]
    return "".join(f"| {' | '.join(_markdown_cell(text) for text in line)} |\n" for line in lines)


def _markdown_cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", "<br>")


def _metric_titles(groups: Sequence[Group], wanted: Iterable[str]) -> dict[str, str]:
    """Headings of those of the wanted metrics that any of these groups has, the same for all of them."""
    results = [result for group in groups for result in group.results]
    found = {name for result in results for name in result.metrics}
    return {name: _metric_title(name, results) for name in wanted if name in found}


def _metric_title(metric: str, results: Iterable[Evaluation]) -> str:
    return f"{metric_title(metric)}, %" if scale(results, metric) == 100 else f"{metric_title(metric)} (lower is better)"


def _mean_time(results: Sequence[Evaluation]) -> str:
    seconds = [r.seconds for r in results if r.seconds is not None]
    return time_text(fmean(seconds) if seconds else None)
