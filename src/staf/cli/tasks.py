"""staf tasks: list, validate, show."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from staf.cli.options import App, Base, DataDir, Json, Splits, open_store

app = App("List, check and inspect tasks.\n\nTry:  staf tasks list")

Name = Annotated[str, typer.Argument(help="Name of a task, as in staf tasks list, or a task's YAML file.")]


@app.command("list")
def list_command(as_json: Json = False) -> None:
    """List the tasks with type, answer type and primary metric.

    Try:  staf tasks list
    """
    from staf.cli.printing import emit_rows
    from staf.data.registry import default_registry

    columns = ("name", "title", "task_type", "output_type", "metric", "unseen", "proxy_for")
    rows = [{column: getattr(task, column) for column in columns} for task in default_registry().tasks.values()]
    emit_rows(as_json, rows)


@app.command()
def validate(
    name: Name,
    experts: Annotated[
        Path | None, typer.Option("--experts", help="Trained experts whose training data must not contain test items.")
    ] = None,
    data_dir: DataDir = None,
    splits: Splits = "staf-llm",
    as_json: Json = False,
) -> None:
    """Prepare a task, count its splits, and check that no test item occurs in the training set of any expert.

    Try:  staf tasks validate icd10_chapter
    """
    from staf.cli.printing import emit
    from staf.data.selection import prepare_task
    from staf.experts.store import load_experts

    trained = frozenset[str]() if experts is None else load_experts(experts).dedup_keys
    task, store = open_store(data_dir, splits).with_task(name)
    counts = prepare_task(task, store, trained)
    sizes = f"{counts['test']} test, {counts['adaptation']} adaptation and {counts['train']} training examples"
    emit(as_json, {"task": task.name, **counts}, f"{task.name}: {sizes}; no test item occurs in the training set of an expert")


@app.command()
def show(
    name: Name,
    split: Annotated[str, typer.Option(help="train, adaptation or test.")] = "adaptation",
    count: Annotated[int, typer.Option(help="Number of examples.")] = 1,
    base: Base = None,
    data_dir: DataDir = None,
    splits: Splits = "staf-llm",
    as_json: Json = False,
) -> None:
    """Print examples of a task exactly as the model reads them, with their length in tokens.

    Try:  staf tasks show icd10_chapter --count 3
    """
    from staf.cli.printing import load_tokenizer, print_examples
    from staf.data.example import SPLITS
    from staf.data.selection import task_examples
    from staf.errors import UnknownName

    if split not in SPLITS:
        raise UnknownName.among("split", split, SPLITS)
    task, store = open_store(data_dir, splits).with_task(name)
    examples = task_examples(task, split, store)
    print_examples(examples[:count], load_tokenizer(base), as_json)
