"""How commands print: progress to stderr, tables and JSON to stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from staf.log import Bar, Progress

CONTROL = {code: f"\\u{code:04x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}
"""Characters that a terminal acts on, as they are printed; names may come from files of others."""


class Terminal(Progress):
    """Progress bars with time left on stderr; plain lines where stderr is no terminal."""

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Bar]:
        """A bar of `total` units."""
        if not sys.stderr.isatty():
            yield Bar(self.log, title, total)
            return
        from rich import progress
        from rich.console import Console

        columns = (
            "{task.description}", progress.BarColumn(bar_width=24), progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(), "left", progress.TimeRemainingColumn(), "{task.fields[note]}",
        )  # fmt: skip
        with progress.Progress(*columns, console=Console(stderr=True, highlight=False), refresh_per_second=4) as shown:
            yield _RichBar(shown, shown.add_task(title.translate(CONTROL), total=total, note=""))

    def log(self, text: str) -> None:
        """One line."""
        print(text.translate(CONTROL), file=sys.stderr, flush=True)


class _RichBar(Bar):
    def __init__(self, shown: Any, task: Any) -> None:
        self.shown, self.task = shown, task

    def advance(self, done: int, note: str = "") -> None:
        """`done` more units are finished."""
        self.shown.update(self.task, advance=done, note=note.translate(CONTROL))


def say(*lines: str) -> None:
    """Lines on stdout."""
    print("\n".join(lines).translate(CONTROL))


def emit(as_json: bool, value: Any, *lines: str) -> None:
    """A result on stdout: as JSON, else its lines."""
    say(*([json.dumps(value, indent=2, ensure_ascii=False, default=str)] if as_json else lines))


def emit_table(as_json: bool, rows: Sequence[dict[str, Any]], columns: Sequence[str] = (), title: str = "") -> None:
    """Rows on stdout: as JSON, else as a table of all columns or some."""
    if as_json:
        emit(True, rows)
        return
    from rich.console import Console
    from rich.table import Table

    columns = columns or list(rows[0])
    table = Table(title=title.translate(CONTROL) or None, title_justify="left")
    for column in columns:
        table.add_column(column.replace("_", " ").translate(CONTROL), overflow="fold", no_wrap=column == "name")
    for row in rows:
        table.add_row(*(_cell(row.get(column)).translate(CONTROL) for column in columns))
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
