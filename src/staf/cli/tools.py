"""staf doctor, report, bench, demo, reproduce."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from staf.cli.data import Data, Json
from staf.cli.stages import Base, Change, Runs, changes


def doctor(as_json: Json = False) -> None:
    """This machine: device, number format chosen and why, memory, disk, what is installed and what is missing.

    Try:  staf doctor
    """
    from staf.cli.show import print_json
    from staf.env import examine

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
    from staf.data.task import task_metrics
    from staf.report.page import write_page

    page = write_page(runs, out, task_metrics())
    print_json({"page": str(page)}) if as_json else print(f"page: {page}")


def bench(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="training, adalora, router, experts, scoring, harness or data.")],
    as_json: Json = False,
) -> None:
    """Run a benchmark of the repository beside its peer; further options go to its script.

    Try:  staf bench data --scales 0.01
    """
    from staf.bench import run_bench
    from staf.cli.show import print_table

    found = []
    for row in run_bench(name, context.args):
        found.append(row)
        if as_json:
            print(json.dumps(row), flush=True)
    if not as_json:
        print_table(found, list(found[0]))


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


def reproduce(
    name: Annotated[str, typer.Argument(help="table3, table4, table5, fig5, fig6, fig7, fig8, cross-domain, tokens, or all.")],
    profile: Annotated[str, typer.Option(help="cpu, paper, or a YAML file of sizes and stand-ins.")] = "cpu",
    out: Annotated[Path, typer.Option("--out", help="Folder for experts, routers and runs.")] = Path("reproduced"),
    data: Data = None,
    change: Change = None,
    engine: Annotated[str, typer.Option(help="local, or ray: experts and cells spread over a Ray cluster.")] = "local",
    as_json: Json = False,
) -> None:
    """A table or figure of the papers beside their numbers; a stopped command goes on where it was.

    Try:  staf reproduce table3 --profile cpu --out reproduced
    """
    from staf.cli.show import Terminal, print_json
    from staf.data.task import task_metrics
    from staf.engines import RunContext, find_engine
    from staf.experiments.cells import Grid
    from staf.experiments.plans import PLANS
    from staf.experiments.printing import print_plan
    from staf.experiments.profile import load_profile
    from staf.experiments.reproduce import find_plan, reproduce
    from staf.report.page import write_page

    sizes = load_profile(profile, changes(change))
    find_engine(engine)
    run_context = RunContext(sizes.base, data, out / "runs", sizes.splits)
    context = run_context.context(Terminal())
    grid = Grid(context, sizes, out)
    names = list(PLANS) if name == "all" else [name]
    for wanted in names:
        find_plan(wanted, grid)  # a misspelt one is told before anything is run
    spread = run_context if engine == "ray" else None
    for seeds in range(1, sizes.seeds + 1):
        results = [reproduce(wanted, Path(profile).stem, grid, spread, seeds)[0] for wanted in names]
        page = write_page(context.runs, out / "report.html", task_metrics())
        if seeds < sizes.seeds:
            context.progress.log(f"{seeds} of {sizes.seeds} seeds are done and on the page: {page}")
    if as_json:
        print_json(results if name == "all" else results[0])
        return
    for result in results:
        print_plan(result)
    print(f"page: {page}")
