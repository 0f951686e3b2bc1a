"""staf tasks: list, validate, show."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from staf.cli.options import App, Base, DataDir, Json, Splits, TaskArgument, open_store

if TYPE_CHECKING:
    from staf.data.store import DataStore
    from staf.data.task import Task
    from staf.log import Progress

app = App("List, check and inspect tasks.\n\nTry:  staf tasks list")


@app.command("list")
def list_command(data_dir: DataDir = None, splits: Splits = "staf-llm", as_json: Json = False) -> None:
    """List the tasks with answer type, primary metric, and where the data is available sizes and label balance.

    Try:  staf tasks list
    """
    from staf.cli.printing import Terminal, print_json, print_table

    store, progress = open_store(data_dir, splits, fetch=False), Terminal()
    columns, rows = ("name", "title", "task_type", "output_type", "metric", "unseen", "proxy_for"), []
    with progress.bar("count examples", len(store.registry.tasks)) as bar:
        for task in store.registry.tasks.values():
            rows.append({column: getattr(task, column) for column in columns} | task_sizes(task, store, progress))
            bar.advance(1, task.name)
    if as_json:
        print_json(rows)
        return
    shown = ("name", "title", "output_type", "metric", "train", "adaptation", "test", "label_balance", "unseen", "proxy_for")
    print_table([row | {"label_balance": balance_text(row["label_balance"])} for row in rows], shown)


def task_sizes(task: Task, store: DataStore, progress: Progress) -> dict[str, Any]:
    """Examples by split and label balance of a task; null and empty where its data is not here or cannot be read."""
    from staf.data.example import SPLITS
    from staf.data.selection import label_balance, task_counts
    from staf.errors import StafError

    try:
        return {**(task_counts(task, store) or dict.fromkeys(SPLITS)), "label_balance": label_balance(task, store)}
    except StafError as error:
        progress.log(f"{task.name}: {error}")
        return {**dict.fromkeys(SPLITS), "label_balance": {}}


def balance_text(balance: dict[str, float]) -> str | None:
    """Each label with its share, or of more than three labels their number and the smallest and largest share."""
    if not balance:
        return None
    shares = list(balance.values())
    if len(shares) > 3:
        return f"{len(shares)} labels, {shares[-1]:.1%} to {shares[0]:.1%}"
    return ", ".join(f"{label} {share:.0%}" for label, share in balance.items())


@app.command()
def validate(
    name: TaskArgument,
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
    name: TaskArgument,
    split: Annotated[str, typer.Option(help="train, adaptation or test.")] = "adaptation",
    count: Annotated[int, typer.Option(help="Number of examples.")] = 1,
    max_length: Annotated[
        int, typer.Option("--max-length", min=16, help="Tokens of prompt and answer, as -o max_length of other commands.")
    ] = 512,
    base: Base = None,
    data_dir: DataDir = None,
    splits: Splits = "staf-llm",
    as_json: Json = False,
) -> None:
    """Print examples of a task exactly as the model reads them: truncated to the limit, with their length in tokens.

    Try:  staf tasks show icd10_chapter --count 3
    """
    from staf.cli.printing import load_tokenizer, print_examples
    from staf.data.selection import task_examples

    task, store = open_store(data_dir, splits).with_task(name)
    examples = task_examples(task, split, store)
    print_examples(examples[:count], load_tokenizer(base), as_json, max_length)
