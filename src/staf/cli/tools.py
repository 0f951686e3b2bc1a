"""staf doctor, report, bench, demo."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from staf.cli.data import Data, Json
from staf.cli.stages import Base, Runs


def doctor(as_json: Json = False) -> None:
    """This machine: device, number format chosen and why, memory, disk, what is installed and what is missing.

    Try:  staf doctor
    """
    from staf.cli.show import print_json
    from staf.doctor import examine

    found = examine()
    if as_json:
        print_json(found)
        return
    for name, value in found.items():
        if isinstance(value, dict):
            print(f"{name}:")
            for key, detail in value.items():
                print(f"  {key:<22} {detail}")
        else:
            print(f"{name:<24} {value}")


def report(
    runs: Runs = Path("runs"),
    out: Annotated[Path, typer.Option("--out", help="The page.")] = Path("report.html"),
    as_json: Json = False,
) -> None:
    """Write one self-contained HTML page of all finished runs.

    Try:  staf report --runs runs --out report.html
    """
    from staf.cli.show import print_json
    from staf.report.page import write_page

    page = write_page(runs, out)
    print_json({"page": str(page)}) if as_json else print(f"page: {page}")


def bench(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="training or data.")],
    as_json: Json = False,
) -> None:
    """Run a benchmark of the repository beside its peer; further options go to its script.

    Try:  staf bench data --scales 0.01
    """
    from staf.bench import run_bench
    from staf.cli.show import print_rows

    found = []
    for row in run_bench(name, context.args):
        found.append(row)
        if as_json:
            print(json.dumps(row), flush=True)
    if not as_json:
        print_rows(found, list(found[0]))


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for everything the demo makes.")] = Path("demo"),
    recipe: Annotated[
        Path | None, typer.Option(help="YAML file of demo settings; the one that comes with staf if left out.")
    ] = None,
    base: Base = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """The whole method on real data: experts, few-shot and normal router, fusion, one table, one page.

    Try:  staf demo --out demo
    """
    from staf.cli.show import Terminal, print_json
    from staf.experiments.demo import print_demo, run_demo

    found = run_demo(out, recipe, base, data, Terminal())
    print_json(found) if as_json else print_demo(found)
