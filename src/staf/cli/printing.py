"""How commands print: progress to stderr, tables and JSON to stdout."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from staf.log import Bar, Progress


class Terminal(Progress):
    """Progress bars with time left on stderr; plain lines where stderr is no terminal."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(stderr=True, highlight=False)

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Bar]:
        """A bar of `total` units."""
        if not self.console.is_terminal:
            yield Bar(self.log, title, total)
            return
        from rich import progress

        columns = (
            "{task.description}", progress.BarColumn(bar_width=24), progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(), "left", progress.TimeRemainingColumn(), "{task.fields[note]}",
        )  # fmt: skip
        with progress.Progress(*columns, console=self.console, refresh_per_second=4) as shown:
            yield _RichBar(shown, shown.add_task(title, total=total, note=""))

    def log(self, text: str) -> None:
        """One line."""
        self.console.print(text, markup=False, soft_wrap=True)


class _RichBar(Bar):
    def __init__(self, shown: Any, task: Any) -> None:
        self.shown, self.task = shown, task

    def advance(self, done: int, note: str = "") -> None:
        """`done` more units are finished."""
        self.shown.update(self.task, advance=done, note=note)


def emit(as_json: bool, value: Any, *lines: str) -> None:
    """A result on stdout: as JSON, else its lines."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str) if as_json else "\n".join(lines))


def emit_table(as_json: bool, rows: Sequence[dict[str, Any]], columns: Sequence[str] = (), title: str = "") -> None:
    """Rows on stdout: as JSON, else as a table of all columns or some."""
    if as_json:
        emit(True, rows)
        return
    from rich.console import Console
    from rich.table import Table

    columns = columns or list(rows[0])
    table = Table(title=title or None, title_justify="left")
    for column in columns:
        table.add_column(column.replace("_", " "), overflow="fold", no_wrap=column == "name")
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    console.print(table, markup=False)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(str(v) for v in value)
    return "-" if value is None else str(value)
