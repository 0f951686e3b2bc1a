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

from staf.metrics.stats import StandardError
from staf.report import formatting as text
from staf.report.formatting import METRICS, MISSING, method_order, method_title, metric_title, scale
from staf.report.results import Z95, Difference, Evaluation, Finished, Training, evaluations
from staf.report.seed_groups import HELD_OUT, Group, method_groups, task_title

WHERE_KNOWN = ("Calibrated on", "Prompts cut", "Prompt tokens")
"""Columns of a task's table that are left out where no run has them."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table, and the run folders that its numbers come from."""

    cells: dict[str, str]  # text by column, in printed order; all rows of a table have the same columns
    runs: tuple[str, ...]  # relative to `runs/`
    sources: dict[str, tuple[str, ...]] = field(default_factory=dict)  # of a column, where they are not those of the row

    def runs_of(self, column: str) -> tuple[str, ...]:
        """The run folders that one cell comes from."""
        return self.sources.get(column, self.runs)


def task_table(results: Sequence[Finished], task: str) -> list[Row]:
    """One row per method on `task`: scores, and what they cost; columns of `WHERE_KNOWN` where any run has them."""
    groups = method_groups(results, task)
    every = [result for group in groups for result in group.results]
    measured = {name for result in every for name in result.metrics}
    titles = {m: _metric_title(m, every) for m in (*(group.metric for group in groups[:1]), *METRICS) if m in measured}
    rows = [_task_cells(group, titles) for group in groups]
    empty = [name for name in WHERE_KNOWN if all(cells[name] == MISSING for cells in rows)]
    kept = [{name: cell for name, cell in cells.items() if name not in empty} for cells in rows]
    return [Row(cells, group.runs) for cells, group in zip(kept, groups, strict=True)]


def _task_cells(group: Group, titles: dict[str, str]) -> dict[str, str]:
    results = group.results
    seconds = [r.seconds for r in results if r.seconds is not None]
    tokens = [found for r in results if (found := r.details.prompt_tokens_mean) is not None]
    cut = [r.truncated_prompts for r in results if r.truncated_prompts is not None]
    return {
        "Method": group.title,
        "Setting": ", ".join(sorted({r.setting for r in results})),
        **{title: text.score_text(results, metric) for metric, title in titles.items()},
        "Test examples": text.range_text(r.primary.examples for r in results if r.primary),
        "Adapted on": text.range_text(r.adaptation_examples for r in results),
        "Calibrated on": text.range_text(r.calibration_examples or None for r in results),
        "Prompts cut": f"{100 * fmean(cut):.0f} %" if cut else MISSING,
        "Tunable parameters": text.range_text(r.tunable_parameters for r in results),
        "Time": text.time_text(fmean(seconds) if seconds else None),
        "Peak memory": text.memory_text(max((r.peak_memory_bytes for r in results if r.peak_memory_bytes), default=None)),
        "Prompt tokens": text.count_text(round(fmean(tokens)) if tokens else None),
    }


def overview_table(results: Sequence[Finished], tasks: Sequence[str]) -> list[Row]:
    """One row per method and one column per task with the primary score; "-" where a method was not run."""
    titles = [task_title(results, task) for task in tasks]
    columns = {t: t if titles.count(title) > 1 else title for t, title in zip(tasks, titles, strict=True)}
    found: dict[tuple[str, str], dict[str, Group]] = {}
    for task, column in columns.items():
        for group in method_groups(results, task):
            found.setdefault((group.method, group.title), {})[column] = group
    rows = []
    for (_, title), groups in sorted(found.items(), key=lambda pair: method_order(pair[0][0])):
        scores = {column: text.score_text(group.results, group.metric) for column, group in groups.items()}
        sources = {column: group.runs for column, group in groups.items()}
        cells = {"Method": title, **{column: scores.get(column, MISSING) for column in columns.values()}}
        rows.append(Row(cells, tuple(run for runs in sources.values() for run in runs), sources))
    return rows


def comparison_table(results: Sequence[Finished], task: str) -> list[Row]:
    """One row per paired comparison in the runs of `task`; over seeds the mean, with the variance of items and of seeds."""
    rows = []
    for group in method_groups(results, task):
        factor = scale(group.results, group.metric)
        for other in sorted({name for r in group.results for name in r.comparisons}, key=method_order):
            found = [c for r in group.results if (c := r.comparisons.get(other)) and c.difference is not None]
            if not found:
                continue
            mean = _over_seeds(found, max((r.primary.examples or 0.0 for r in group.results if r.primary), default=0.0))
            interval = text.interval_text(mean.low, mean.high, factor)
            clear = "above" if (mean.low or 0) > 0 else "below" if (mean.high or 0) < 0 else "no"
            cells = {
                "Method": group.title,
                "Against": method_title(other),
                "Difference": text.number_text(mean.difference or 0.0, factor, "+"),
                "95 % interval": interval,
                "Test": MISSING if mean.p_value is None else text.p_text(mean.p_value),
                "Clear": MISSING if interval == MISSING else clear,
            }
            rows.append(Row(cells, group.runs))
    return rows


def _over_seeds(found: Sequence[Difference], items: float) -> Difference:
    """The mean of the differences of each seed, paired by item; without an interval where a seed has none."""
    if len(found) == 1:
        return found[0]
    differences = [one.difference or 0.0 for one in found]
    ends = [(one.low, one.high) for one in found if one.low is not None and one.high is not None]
    if len(ends) < len(found):
        return Difference(difference=fmean(differences))
    error = StandardError.of(fmean(((high - low) / 2 / Z95) ** 2 for low, high in ends), int(items), [differences])
    mean = fmean(differences)
    return Difference(difference=mean, low=mean - error.reach, high=mean + error.reach, p_value=error.p_value(mean))


def held_out_table(results: Sequence[Finished]) -> list[Row]:
    """One row per expert: its own held-out task with the base model and with the expert."""
    rows = []
    for task in sorted({r.task for r in evaluations(results) if r.task.endswith(HELD_OUT)}):
        groups = method_groups(results, task)
        originals, experts = ([g for g in groups if g.method == method] for method in ("original", "single"))
        for expert in experts or originals[:1]:
            original = next((group for group in originals if _data_of(group) & _data_of(expert)), None)
            rows.append(_held_out_row(original, expert, len(experts) > 1))
    return rows


def _data_of(group: Group) -> set[str]:
    return {json.dumps([r.base, r.data_fingerprint], sort_keys=True) for r in group.results}


def _held_out_row(original: Group | None, expert: Group, several: bool) -> Row:
    found = [c for r in expert.results if (c := r.comparisons.get("original"))]
    label = expert.title.removeprefix(method_title("single")) if several else ""
    cells = {
        "Expert": expert.results[0].task.removesuffix(HELD_OUT) + label,
        "Base model": text.score_text(original.results, expert.metric) if original else MISSING,
        "With its expert": MISSING if expert is original else text.score_text(expert.results, expert.metric),
        "Difference": text.difference_text(found, scale(expert.results, expert.metric)),
        "Metric": _metric_title(expert.metric, expert.results),
        "Test examples": text.range_text(r.primary.examples for r in expert.results if r.primary),
    }
    return Row(cells, expert.runs, {"Base model": original.runs if original else ()})


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
        "Steps": text.count_text(result.steps),
        "Examples": text.count_text(result.examples),
        "Tokens": text.count_text(result.tokens),
        "Tokens/s": text.count_text(None if speed is None else round(speed)),
        "Loss, first to last": MISSING if first is None or last is None else f"{first:.2f} to {last:.2f}",
        "Trainable parameters": text.count_text(result.trainable_parameters),
        "Average rank": MISSING if rank is None else f"{rank:.1f}",
        "Time": text.time_text(result.seconds),
        "Peak memory": text.memory_text(result.peak_memory_bytes),
    }


def _metric_title(metric: str, results: Iterable[Evaluation]) -> str:
    return f"{metric_title(metric)}, %" if scale(results, metric) == 100 else f"{metric_title(metric)} (lower is better)"


# ---- writing ---------------------------------------------------------------------------------------------------------


def print_table(rows: Sequence[Row], title: str = "", columns: Sequence[str] = ()) -> None:
    """Print rows, all columns or some; the first is left-aligned, the others right-aligned."""
    from rich.console import Console
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
    console = Console()
    (console if console.is_terminal else Console(width=150)).print(table)


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
    escape = str.maketrans({"|": "\\|", "\n": "<br>"})
    return "".join(f"| {' | '.join(cell.translate(escape) for cell in line)} |\n" for line in lines)
