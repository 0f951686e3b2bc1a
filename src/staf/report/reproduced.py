"""Rows of a reproduced table: ours with deviation and interval, then the papers' numbers, then the paired tests.

A cell has one or more lines of text; the first is the number. An empty cell names a note, and the notes say why it is empty.
"""

from __future__ import annotations

from collections import Counter

from staf.report.formatting import MISSING, cell_text, count_text, number_text, p_text, papers_text, range_text
from staf.report.names import metric_title
from staf.report.results import Cell, PairedTest, Table
from staf.report.tables import Row

ROUTERS = ("normal", "few_shot", "extra", "beyond")
"""Methods whose paired tests are shown."""


def table_rows(table: Table) -> tuple[list[Row], list[str]]:
    """What is shown of a table, and why cells are empty."""
    notes: list[str] = []
    if table.task == "fig7" and (rows := weight_rows(table, notes)):
        return rows, notes
    return (token_rows if table.prompt_tokens else score_rows)(table, notes), notes


def score_rows(table: Table, notes: list[str]) -> list[Row]:
    """One row per method, one column per task: score, interval, examples that a prompt shows, the papers' numbers."""
    headers = [f"{c.name}\n{c.title}\n{metric_title(c.metric)}, %" for c in table.columns]
    with_setting = len({row.setting for row in table.rows}) > 1
    rows = []
    for row in table.rows:
        cells = {"Method": row.title, **({"Setting": row.setting} if with_setting else {})}
        cells |= {header: _score(cell, notes) for header, cell in zip(headers, row.cells, strict=True)}
        rows.append(_row(cells, dict(zip(headers, row.cells, strict=True))))
    return rows


def token_rows(table: Table, notes: list[str]) -> list[Row]:
    """Tokens of a prompt and its examples for in-context learning, and of the task only, which is what a router reads."""
    rows = []
    for row in table.rows:
        cells, sources = {"Method": row.title}, {}
        for column, cell in zip(table.columns, row.cells, strict=True):
            header = f"{column.name}, tokens"
            tokens = cell.prompt_tokens or (table.prompt_tokens.get(column.name) if cell.mean is not None else None)
            examples = examples_text(cell) or "0 examples shown"
            cells[header] = _empty(cell, notes) if tokens is None else f"{count_text(round(tokens))}\n{examples}"
            sources[header] = cell
        rows.append(_row(cells, sources))
    return rows


def weight_rows(table: Table, notes: list[str]) -> list[Row]:
    """One row per expert, one column per task: its weight in the normal router."""
    found = {f"{column.name}, weight": table.cell("normal", column.name) for column in table.columns}
    weights = {header: cell.mean_weights() for header, cell in found.items()}
    rows = []
    for expert in sorted({name for means, _ in weights.values() for name in means}):
        cells = {"Expert": expert}
        for header, (means, deviations) in weights.items():
            spread = f" ± {deviations[expert]:.3f} ({found[header].seeds} seeds)" if expert in deviations else ""
            cells[header] = f"{means[expert]:.3f}{spread}" if expert in means else _empty(found[header], notes)
        rows.append(_row(cells, found))
    return rows


def _row(cells: dict[str, str], sources: dict[str, Cell]) -> Row:
    runs = tuple(dict.fromkeys(run for cell in sources.values() for run in cell.runs))
    return Row(cells, runs, {header: cell.runs for header, cell in sources.items()})


def _score(cell: Cell, notes: list[str]) -> str:
    if cell.mean is None:
        return _empty(cell, notes)
    ends = f"{number_text(cell.ends[0], 100)} to {number_text(cell.ends[1], 100)}" if cell.ends else ""
    return "\n".join(filter(None, [cell_text(cell), ends, examples_text(cell), papers_text(cell)]))


def _empty(cell: Cell, notes: list[str]) -> str:
    reason = cell.missing or "it was not counted"
    if reason not in notes:
        notes.append(reason)
    return "\n".join(filter(None, [MISSING, f"note {notes.index(reason) + 1}", papers_text(cell)]))


def examples_text(cell: Cell) -> str:
    """How many examples in-context learning shows of how many: "6.5 of 32 examples shown"; "" for any other row."""
    if cell.shots_shown is None:
        return ""
    given = "" if cell.adaptation_examples is None else f" of {cell.adaptation_examples:.0f}"
    return f"{cell.shots_shown:.1f}{given} examples shown"


def sizes_text(table: Table) -> str:
    """Such as "100 test items; 4 to 32 adaptation examples; 1 to 3 seeds"; "" where nothing was measured.

    One seed is that of a method that is deterministic where others have more.
    """
    cells = [cell for row in table.rows for cell in row.cells if cell.mean is not None]
    if not cells:
        return ""
    items = range_text((cell.items for cell in cells), "test item")
    examples = range_text((cell.adaptation_examples for cell in cells), "adaptation example")
    return f"{items}; {examples}; {range_text((cell.seeds for cell in cells), 'seed')}"


def comparison_rows(table: Table) -> list[Row]:
    """One row for each router and each other row: difference, outcome and p-value per task, counts, and the mean.

    Two variants of the same router (Figures 6 and 8) are shown once, the later one against the earlier one.
    """
    methods = {row.name: row.method for row in table.rows}
    order = list(methods)
    found: dict[tuple[str, str], dict[str, PairedTest]] = {}
    for test in table.comparisons:
        found.setdefault((test.ours, test.other), {})[test.column] = test
    pairs = [pair for pair in found if pair[1] in methods and methods.get(pair[0]) in ROUTERS]
    pairs = [(a, b) for a, b in pairs if (b, a) not in found or order.index(a) > order.index(b)]
    return [_comparison_row(table, pair, found[pair]) for pair in pairs]


def _comparison_row(table: Table, pair: tuple[str, str], tests: dict[str, PairedTest]) -> Row:
    count = Counter(test.outcome for test in tests.values())
    means = [test for test in table.over_columns if (test.ours, test.other) == pair]
    ours, other = (next(row.title for row in table.rows if row.name == name) for name in pair)
    cells = {
        "Row": ours,
        "Against": other,
        "Wins / ties / losses": f"{count['win']} / {count['tie']} / {count['loss']}",
        "Mean difference": "\n".join(f"{test.family} {_test_text(test)}".strip() for test in means) or MISSING,
    }
    sources = {}
    for column in table.columns:
        test, header = tests.get(column.name), f"{column.name}, better by"
        cells[header] = _test_text(test) if test else MISSING
        sources[header] = tuple(run for name in pair for run in table.cell(name, column.name).runs)
    return Row(cells, tuple(run for runs in sources.values() for run in runs), sources)


def _test_text(test: PairedTest) -> str:
    ends = f"{number_text(test.low, 100)} to {number_text(test.high, 100)}"
    return f"{number_text(test.difference, 100, '+')} {test.outcome}\n{ends}\n{p_text(test.p_value)}"
