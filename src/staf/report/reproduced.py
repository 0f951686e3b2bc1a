"""Rows of a reproduced table: ours with deviation and interval, then the papers' numbers, then the paired tests.

A cell has one or more lines of text; the first is the number. An empty cell names a note, and the notes say why it is empty.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from staf.report import formatting as text
from staf.report.formatting import MISSING, metric_title
from staf.report.results import Cell, Column, PairedTest, Table
from staf.report.tables import Row

ROUTERS = ("normal", "few_shot", "route_then_tune", "extra", "beyond")
"""Methods whose paired tests are shown."""


def table_rows(table: Table) -> tuple[list[Row], list[str]]:
    """What is shown of a table, one row per method and one column per task, and why cells are empty."""
    notes: list[str] = []
    if table.task == "fig7" and (rows := _weight_rows(table, notes)):
        return rows, notes
    cell_of = _tokens if table.prompt_tokens else _score
    with_setting = cell_of is _score and len({row.setting for row in table.rows}) > 1
    rows = []
    for row in table.rows:
        cells, sources = {"Method": row.title, **({"Setting": row.setting} if with_setting else {})}, {}
        for column, cell in zip(table.columns, row.cells, strict=True):
            header, shown = cell_of(table, column, cell)
            cells[header], sources[header] = shown or _empty(cell, notes), cell.runs
        rows.append(_row(cells, sources))
    return rows, notes


def _score(table: Table, column: Column, cell: Cell) -> tuple[str, str]:
    """Header, and score, interval, examples that a prompt shows, what was cut, the papers' numbers."""
    ends, more = text.interval_text(*cell.ends) if cell.ends else "", (examples_text(cell), reading_text(cell))
    lines = [] if cell.mean is None else [text.cell_text(cell), ends, *more, text.papers_text(cell)]
    return f"{column.name}\n{column.title}\n{metric_title(column.metric)}, %", "\n".join(filter(None, lines))


def _tokens(table: Table, column: Column, cell: Cell) -> tuple[str, str]:
    """Header, and tokens of a prompt and its examples: in-context learning's, or of the task only, which a router reads."""
    tokens = cell.prompt_tokens or (None if cell.mean is None else table.prompt_tokens.get(column.name))
    shown = "" if tokens is None else f"{text.count_text(round(tokens))}\n{examples_text(cell) or '0 examples shown'}"
    return f"{column.name}, tokens", shown


def _weight_rows(table: Table, notes: list[str]) -> list[Row]:
    """One row per expert, one column per task: its weight in the normal router."""
    found = {f"{column.name}, weight": table.cell("normal", column.name) for column in table.columns}
    weights = {header: cell.mean_weights() for header, cell in found.items()}
    rows = []
    for expert in sorted({name for means, _ in weights.values() for name in means}):
        cells = {"Expert": expert}
        for header, (means, deviations) in weights.items():
            spread = f" ± {deviations[expert]:.3f} ({found[header].seeds} seeds)" if expert in deviations else ""
            cells[header] = f"{means[expert]:.3f}{spread}" if expert in means else _empty(found[header], notes)
        rows.append(_row(cells, {header: cell.runs for header, cell in found.items()}))
    return rows


def _row(cells: dict[str, str], sources: dict[str, tuple[str, ...]]) -> Row:
    return Row(cells, tuple(dict.fromkeys(run for runs in sources.values() for run in runs)), sources)


def _empty(cell: Cell, notes: list[str]) -> str:
    reason = cell.missing or "it was not counted"
    if reason not in notes:
        notes.append(reason)
    return "\n".join(filter(None, [MISSING, f"note {notes.index(reason) + 1}", text.papers_text(cell)]))


def examples_text(cell: Cell) -> str:
    """How many examples in-context learning shows of how many: "6.5 of 32 examples shown"; "" for any other row."""
    if cell.shots_shown is None:
        return ""
    given = "" if cell.adaptation_examples is None else f" of {cell.adaptation_examples:.0f}"
    return f"{cell.shots_shown:.1f}{given} examples shown"


def reading_text(cell: Cell) -> str:
    """Such as "12 % cut, 3 % invented, 24 for calibration": prompts, answered mentions, examples; "" where none is known."""
    shares = ((cell.truncated_prompts, "cut"), (cell.invented_rate, "invented"))
    parts = [f"{100 * share:.0f} % {name}" for share, name in shares if share is not None]
    return ", ".join([*parts, *([f"{cell.calibration_examples:.0f} for calibration"] if cell.calibration_examples else [])])


def sizes_text(table: Table) -> str:
    """Such as "100 test items; 4 to 32 adaptation examples; 1 to 3 seeds"; "" where nothing was measured.

    One seed is that of a method that is deterministic where others have more.
    """
    cells = [cell for row in table.rows for cell in row.cells if cell.mean is not None]
    if not cells:
        return ""
    items = text.range_text((cell.items for cell in cells), "test item")
    examples = text.range_text((cell.adaptation_examples for cell in cells), "adaptation example")
    return f"{items}; {examples}; {text.range_text((cell.seeds for cell in cells), 'seed')}"


def first_columns(columns: Sequence[Column]) -> list[Column]:
    """The first column of each task: several metrics of a task are of the same runs."""
    return [*{column.task: column for column in reversed(columns)}.values()]


def cost_rows(table: Table) -> list[Row]:
    """One row for each method with runs, and one for all: how many, the mean time of one, and of all, as the runs record it.

    A search for a learning rate, which seeds share, counts for each of them.
    """
    shown = [(row.title, [table.cell(row.name, column.name) for column in first_columns(table.columns)]) for row in table.rows]
    ran = [(title, [cell for cell in cells if cell.seconds is not None]) for title, cells in shown]
    ran.append(("All rows", [cell for _, own in ran for cell in own]))
    rows = []
    for title, cells in ((title, own) for title, own in ran if own):
        count, seconds = sum(cell.seeds for cell in cells), sum((cell.seconds or 0.0) * cell.seeds for cell in cells)
        times = {"A run": text.time_text(seconds / max(count, 1)), "All runs": text.time_text(seconds)}
        rows.append(Row({"Method": title, "Runs": str(count), **times}, ()))
    return rows


def comparison_rows(table: Table) -> list[Row]:
    """One row for each router and each other row: difference, outcome and p-value per task, counts, and the mean.

    Two variants of the same router (Figures 6 and 8) are shown once, the later one against the earlier one.
    """
    shown = {row.name: row for row in table.rows}
    found: dict[tuple[str, str], dict[str, PairedTest]] = {}
    for test in table.comparisons:
        if test.other in shown and test.ours in shown and shown[test.ours].method in ROUTERS:
            found.setdefault((test.ours, test.other), {})[test.column] = test
    rows, order = [], list(shown)
    for (ours, other), tests in found.items():
        if (other, ours) in found and order.index(ours) < order.index(other):
            continue
        count = Counter(test.outcome for test in tests.values())
        means = [test for test in table.over_columns if (test.ours, test.other) == (ours, other)]
        cells = {
            "Row": shown[ours].title,
            "Against": shown[other].title,
            "Wins / ties / losses": f"{count['win']} / {count['tie']} / {count['loss']}",
            "Mean difference": "\n".join(f"{test.family} {_test_text(test)}".strip() for test in means) or MISSING,
        }
        sources = {}
        for column in table.columns:
            header = f"{column.name}, better by"
            cells[header] = _test_text(tests[column.name]) if column.name in tests else MISSING
            sources[header] = table.cell(ours, column.name).runs + table.cell(other, column.name).runs
        rows.append(Row(cells, tuple(run for runs in sources.values() for run in runs), sources))
    return rows


def _test_text(test: PairedTest) -> str:
    difference = f"{text.number_text(test.difference, sign='+')} {test.outcome}"
    return "\n".join([difference, text.interval_text(test.low, test.high), *text.p_texts(test)])
