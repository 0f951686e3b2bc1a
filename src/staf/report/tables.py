"""Tables of finished runs: one row per method or expert, every cell a text that a person reads.

Runs are averaged over seeds only when nothing but the seed differs. Where a method was run with several settings, each
gets its own row, named by what differs. Knows nothing of models, files or HTML.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from staf.report.collect import Result
from staf.report.groups import HELD_OUT, Group, method_groups, primary, primary_name, task_title
from staf.report.names import METHODS, METRICS, MORE_METRICS, method_title, metric_title
from staf.report.texts import MISSING, count_text, difference_text, memory_text, scale, score_text, time_text

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table, and the run folders that its numbers come from."""

    cells: dict[str, str]
    """Text by column, in printed order; all rows of a table have the same columns."""
    runs: tuple[str, ...]
    """Run folders relative to `runs/`."""
    method: str = ""
    """Identifier of the method, where the row is one."""
    sources: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Run folders of a column, where they are not those of the whole row."""

    def runs_of(self, column: str) -> tuple[str, ...]:
        """The run folders that one cell comes from."""
        return self.sources.get(column, self.runs)


def task_table(results: Sequence[Result], task: str) -> list[Row]:
    """One row per method on `task`: scores, and what they cost; tokens of a prompt where any run counted them."""
    groups = method_groups(results, task)
    titles = _metric_titles(groups, [*(primary_name(g.results) for g in groups[:1]), *METRICS])
    tokens = [_numbers((r.get("details") or {}).get("prompt_tokens_mean") for r in group.results) for group in groups]
    rows = [Row(_task_cells(group, titles), group.runs, group.method) for group in groups]
    if any(tokens):
        for row, own in zip(rows, tokens, strict=True):
            row.cells["Prompt tokens"] = count_text(round(statistics.fmean(own))) if own else MISSING
    return rows


def details_table(results: Sequence[Result], task: str) -> list[Row]:
    """One row per method on `task`: the metrics that its table leaves out; [] where there are none."""
    groups = method_groups(results, task)
    titles = _metric_titles(groups, [name for name in MORE_METRICS if name != primary_name(groups[0].results)])
    rows = [(g, {title: score_text(g.results, metric) for metric, title in titles.items()}) for g in groups]
    return [Row({"Method": g.title, **cells}, g.runs, g.method) for g, cells in rows if cells]


def _task_cells(group: Group, titles: dict[str, str]) -> dict[str, str]:
    results = group.results
    tested = _numbers((primary(r) or {}).get("examples") for r in results)
    settings = sorted({r.get("setting") or MISSING for r in results})
    memory = _numbers(r.get("peak_memory_bytes") for r in results)
    return {
        "Method": group.title,
        "Setting": ", ".join(settings),
        **{title: score_text(results, metric) for metric, title in titles.items()},
        "Test examples": _same(tested),
        "Adapted on": _same(_numbers(r.get("adaptation_examples") for r in results)),
        "Tunable parameters": _same(_numbers(r.get("tunable_parameters") for r in results)),
        "Time": _mean_time(results),
        "Peak memory": memory_text(max(memory, default=None)),
    }


def overview_table(results: Sequence[Result], tasks: Sequence[str]) -> list[Row]:
    """One row per method and one column per task, holding the primary score; "-" where a method was not run."""
    rows: dict[str, Row] = {}
    order = list(METHODS)
    titles = [task_title(results, task) for task in tasks]
    columns = {t: t if titles.count(title) > 1 else title for t, title in zip(tasks, titles, strict=True)}
    for task in tasks:
        for group in method_groups(results, task):
            empty = {"Method": group.title, **dict.fromkeys(columns.values(), MISSING)}
            row = rows.setdefault(group.title, Row(empty, (), group.method))
            cells = {**row.cells, columns[task]: score_text(group.results, primary_name(group.results))}
            sources = {**row.sources, columns[task]: group.runs}
            rows[group.title] = Row(cells, row.runs + group.runs, group.method, sources)
    return sorted(rows.values(), key=lambda r: order.index(r.method) if r.method in METHODS else len(order))


def held_out_table(results: Sequence[Result]) -> list[Row]:
    """One row per expert: its own held-out task with the original model and with the expert."""
    tasks = sorted({r["task"] for r in results if r["stage"] == "evaluate" and r["task"].endswith(HELD_OUT)})
    rows = []
    for task in tasks:
        groups = method_groups(results, task)
        originals = [group for group in groups if group.method == "original"]
        experts = [group for group in groups if group.method == "single"]
        name = task.removesuffix(HELD_OUT)
        for expert in experts:
            original = next((group for group in originals if _same_ground(group, expert)), None)
            rows.append(_held_out_row(name, original, expert, len(experts) > 1))
        if originals and not experts:
            rows.append(_held_out_row(name, originals[0], None, False))
    return rows


def _same_ground(one: Group, other: Group) -> bool:
    grounds = [
        {json.dumps([r.get("base"), r.get("data_fingerprint")], sort_keys=True) for r in g.results} for g in (one, other)
    ]
    return bool(grounds[0] & grounds[1])


def _held_out_row(name: str, original: Group | None, expert: Group | None, several: bool) -> Row:
    shown = [group for group in (original, expert) if group is not None]
    metric = primary_name(shown[-1].results)
    label = f"{name}{expert.title.removeprefix(method_title('single'))}" if several and expert else name
    comparisons = [(r.get("comparisons") or {}).get("original") for r in (expert.results if expert else ())]
    cells = {
        "Expert": label,
        "Original model": score_text(original.results, metric) if original else MISSING,
        "With its expert": score_text(expert.results, metric) if expert else MISSING,
        "Difference": difference_text([c for c in comparisons if c], scale(shown[-1].results, metric)),
        "Metric": _metric_title(metric, shown[-1].results),
        "Test examples": _same(_numbers((primary(r) or {}).get("examples") for r in shown[-1].results)),
    }
    return Row(cells, shown[-1].runs, sources={"Original model": original.runs if original else ()})


def training_table(results: Sequence[Result]) -> list[Row]:
    """One row per trained expert: how much it read, how fast, and what is left of its ranks."""
    trained = [r for r in results if r["stage"] == "train"]
    names = [r["task"] for r in trained]
    return [Row(_training_cells(r, names.count(r["task"]) > 1), (r.get("run", ""),)) for r in trained]


def _training_cells(result: Result, repeated: bool) -> dict[str, str]:
    first, last = result.get("loss_first"), result.get("loss_last")
    speed, rank = result.get("tokens_per_second"), result.get("final_rank_average")
    return {
        "Expert": result["task"] + (f" ({result.get('run', '').rsplit('/', 1)[-1]})" if repeated else ""),
        "Steps": count_text(result.get("steps")),
        "Examples": count_text(result.get("examples")),
        "Tokens": count_text(result.get("tokens")),
        "Tokens/s": count_text(None if speed is None else round(speed)),
        "Loss, first to last": MISSING if first is None or last is None else f"{first:.2f} to {last:.2f}",
        "Trainable parameters": count_text(result.get("trainable_parameters")),
        "Average rank": MISSING if rank is None else f"{rank:.1f}",
        "Time": time_text(result.get("seconds")),
        "Peak memory": memory_text(result.get("peak_memory_bytes")),
    }


def print_table(console: Console, rows: Sequence[Row], title: str = "", without: Sequence[str] = ()) -> None:
    """Print rows to a terminal, some columns left out; the first one is left-aligned, the others to the right."""
    from rich.table import Table
    from rich.text import Text

    if not rows:
        return
    table = Table(title=Text(title) if title else None, title_justify="left")
    columns = [column for column in rows[0].cells if column not in without]
    for position, column in enumerate(columns):
        table.add_column(Text(column), justify="right" if position else "left")
    for row in rows:
        table.add_row(*(Text(row.cells[column]) for column in columns))  # as Text: a name in [brackets] is no markup
    console.print(table)


def _metric_titles(groups: Sequence[Group], wanted: Iterable[str]) -> dict[str, str]:
    """Column headings of those of the wanted metrics that any of these groups has, the same for all of them."""
    results = [result for group in groups for result in group.results]
    found = {name for result in results for name in result.get("metrics") or {}}
    return {name: _metric_title(name, results) for name in wanted if name in found}


def _metric_title(metric: str, results: Iterable[Result]) -> str:
    title = metric_title(metric)
    return f"{title}, %" if scale(results, metric) == 100 else f"{title} (lower is better)"


def _numbers(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _same(values: list[float]) -> str:
    """A count that should be the same for all seeds; its range where it is not."""
    if not values:
        return MISSING
    low, high = min(values), max(values)
    return count_text(low) if low == high else f"{count_text(low)} to {count_text(high)}"


def _mean_time(results: Sequence[Result]) -> str:
    seconds = _numbers(r.get("seconds") for r in results)
    return time_text(statistics.fmean(seconds) if seconds else None)
