"""How commands print: progress to stderr, tables and JSON to stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from staf.log import Bar, Progress

if TYPE_CHECKING:
    from staf.data.example import Example
    from staf.routing.recipe import RouterRecipe


class Terminal(Progress):
    """Progress bars with time left on stderr; plain lines where stderr is no terminal."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(stderr=True, highlight=False)

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Bar]:
        """A bar of `total` units."""
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
        )  # fmt: skip
        if not self.console.is_terminal:
            yield Bar(self.log, title, total)
            return
        with Progress(*columns, console=self.console, refresh_per_second=4) as progress:
            yield _RichBar(progress, progress.add_task(title, total=total, note=""))

    def log(self, text: str) -> None:
        """One line."""
        self.console.print(text, markup=False, soft_wrap=True)


class _RichBar(Bar):
    def __init__(self, progress: Any, task: Any) -> None:
        self.progress, self.task = progress, task

    def advance(self, done: int, note: str = "") -> None:
        """`done` more units are finished."""
        self.progress.update(self.task, advance=done, note=note)


def print_json(value: Any) -> None:
    """A value as JSON on stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def emit(as_json: bool, value: Any, *lines: str) -> None:
    """A result on stdout: as JSON, else its lines."""
    print_json(value) if as_json else print("\n".join(lines))


def print_table(rows: Sequence[dict[str, Any]], columns: Sequence[str], title: str = "") -> None:
    """Rows as a table on stdout."""
    from rich.console import Console
    from rich.table import Table

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


def print_settings(option: str, classes: Sequence[str]) -> None:
    """The settings that an option changes, one a line: name, default and documentation. Classes are `module:name`."""
    from importlib import import_module

    for path in classes:
        module, _, name = path.partition(":")
        settings = getattr(import_module(module), name)
        print(f"{option} name=value, of {name}:")
        for field, info in settings.model_fields.items():
            default = "required" if info.is_required() else f"default {info.get_default(call_default_factory=True)}"
            print(f"  {field} ({default}): {info.description or ''}".rstrip(": "))
        print()


def print_estimates(estimates: Sequence[Any]) -> None:
    """The memory and time of trainings as a table, with the base and device that the estimate is for."""
    from staf.report.formatting import count_text, memory_text, time_text

    columns = {}
    for found in estimates:
        columns[found.expert] = {part: memory_text(size) for part, size in vars(found.memory).items()} | {
            "in all": memory_text(found.memory.total), "steps": count_text(found.steps), "tokens": count_text(found.tokens),
            "time": "not measured" if found.seconds is None else time_text(found.seconds),
        }  # fmt: skip
    lines = next(iter(columns.values()))
    rows = [{"": line, **{name: column[line] for name, column in columns.items()}} for line in lines]
    print_table(rows, list(rows[0]), "Memory by part, and time")
    one = estimates[0]
    free = memory_text(one.free_bytes)
    print(f"{one.base}: {count_text(one.parameters)} parameters, {one.dtype} on {one.device}, {free} free.")
    if not one.tokens_counted:
        print("It has no tokenizer here: tokens are a quarter of the characters.")
    print("Time is that of three measured steps." if one.seconds is not None else "Time is measured where the weights are.")


SEARCHES = {"cma": "CMA-ES", "gradient": "gradient"}
"""How the weights of a router were searched for, as it is printed."""


def method_label(result: Mapping[str, Any]) -> str:
    """A scored method and what it had: "Router (gradient), few-shot, 32 examples", "In-context learning (6.2 of 32 shown)"."""
    from staf.report.formatting import method_title

    title, count, details = method_title(result["method"]), result["adaptation_examples"], result.get("details") or {}
    if "shots_shown_mean" in details:
        return f"{title} ({details['shots_shown_mean']:.1f} of {details['shots']} shown)"
    search = ((result.get("settings") or {}).get("router") or {}).get("method")
    if search not in SEARCHES:
        return f"{title}, {count} examples" if count else title
    _, beyond, words = title.partition(" with ")
    return f"Router ({SEARCHES[search]}){beyond}{words}, {result['setting']}, {count} examples"


def draw_weights(
    out: Path, task: str, settings: RouterRecipe, weights: Mapping[str, float], spread: Mapping[str, float] | None
) -> Path:
    """Fig. 7 of one task as an SVG file: a bar for each expert, and its deviation where there is one."""
    from staf.io import write_bytes
    from staf.report.figures import weight_bars
    from staf.report.formatting import method_title

    setting = "Normal" if settings.shots is None else "Few-shot"
    searched = settings.method in SEARCHES
    title = f"{setting} router ({SEARCHES[settings.method]})" if searched else method_title(settings.method)
    drawn = weight_bars({title: (weights, spread or {})}, f"Weights of the experts for {task}")
    write_bytes(out, drawn.svg.encode() if drawn else b"")
    return out


def load_tokenizer(base: str | None) -> Any:
    """The base's tokenizer; None, with a line on stderr, if no base is named and the default one is unavailable.

    Raises:
        MissingData: the named base has no tokenizer here.
    """
    from staf.errors import MissingData
    from staf.lm.base import load_tokenizer

    try:
        return load_tokenizer(base)
    except MissingData as error:
        if base is not None:
            raise
        print(f"lengths in tokens are omitted: {error}", file=sys.stderr)
        return None


def print_examples(examples: Sequence[Example], tokenizer: Any, as_json: bool, max_length: int | None = None) -> None:
    """Print examples as the model reads them, with lengths in tokens where there is a tokenizer.

    Args:
        max_length: tokens of prompt and answer; a longer context is truncated. None shows the prompt in full.

    Raises:
        ConfigError: a query does not fit into `max_length`.
    """
    rows = [_example_row(example, tokenizer, max_length) for example in examples]
    if as_json:
        print_json(rows)
    for row in () if as_json else rows:
        tokens = f"; {row['prompt_tokens']} prompt tokens, {row['answer_tokens']} answer tokens" if tokenizer else ""
        tokens += f"; truncated from {row['full_prompt_tokens']}" if row["truncated"] else ""
        print(f"--- {row['id']} ({row['task_type']}, {row['output_type']}, {row['split']}{tokens})")
        print(f"{row['prompt']} {row['answer']}\n")


def _example_row(example: Example, tokenizer: Any, max_length: int | None) -> dict[str, Any]:
    from staf.data.example import prompt_of
    from staf.evaluate.answer import LABEL_TYPES
    from staf.evaluate.settings import EvaluationSettings
    from staf.lm.batches import encode_answer, encode_prompt

    prompt, full, seen = prompt_of(example.query, example.context), None, None
    if tokenizer:
        full = seen = len(tokenizer(prompt)["input_ids"])
        scored = example.output_type in LABEL_TYPES
        labels = [len(encode_answer(label, tokenizer)) for label in example.labels] if scored else []
        room = (max_length or full) - max(labels, default=EvaluationSettings().max_new_tokens)
        if max_length is not None and full > room:
            tokens = encode_prompt(example, tokenizer, room)
            prompt, seen = tokenizer.decode(tokens, skip_special_tokens=True), len(tokens)
    return {
        "id": example.id,
        "task_type": example.task_type,
        "output_type": example.output_type,
        "split": example.split,
        "prompt": prompt,
        "answer": example.answer,
        "prompt_tokens": seen,
        "full_prompt_tokens": full,
        "truncated": seen != full,
        "answer_tokens": len(encode_answer(example.answer, tokenizer)) if tokenizer else None,
    }
