"""staf env, report, demo, reproduce."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from staf.cli.options import Base, DataDir, Json, ListOptions, Override, Runs, overrides


def env(as_json: Json = False) -> None:
    """Print device, dtype and why, memory, disk, installed and missing packages, and data sets.

    Try:  staf env
    """
    from staf.cli.printing import print_json
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
    out: Annotated[Path, typer.Option("--out", help="HTML file.")] = Path("report.html"),
    as_json: Json = False,
) -> None:
    """Write one self-contained HTML page of all finished runs.

    Try:  staf report --runs runs --out report.html
    """
    from staf.cli.printing import emit
    from staf.data.registry import task_metrics
    from staf.report.page import write_page

    page = write_page(runs, out, task_metrics())
    emit(as_json, {"page": str(page)}, f"page: {page}")


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for all outputs.")] = Path("demo"),
    recipe: Annotated[Path | None, typer.Option(help="YAML file of demo settings; default: the packaged one.")] = None,
    base: Base = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Run the complete method on open data: experts, both routers, a merged model, a table and a page.

    Try:  staf demo --out demo
    """
    from staf.cli.printing import Terminal, print_json
    from staf.experiments.demo import print_demo, run_demo

    found = run_demo(out, recipe, base, data_dir, Terminal())
    print_json(found) if as_json else print_demo(found)


def reproduce(
    name: Annotated[str, typer.Argument(help="table3, table4, table5, fig5, fig6, fig7, fig8, cross-domain, tokens, or all.")],
    profile: Annotated[str, typer.Option(help="cpu, paper, or a YAML file of sizes and proxy data sets.")] = "cpu",
    out: Annotated[Path, typer.Option("--out", help="Folder for experts, routers and runs.")] = Path("reproduced"),
    data_dir: DataDir = None,
    override: Override = None,
    launcher: Annotated[str, typer.Option(help="local, or ray: experts and runs on the workers of a Ray cluster.")] = "local",
    shard: Annotated[str, typer.Option(help="i/n: only every n-th run, from the i-th on (from 0), for job arrays.")] = "0/1",
    as_json: Json = False,
    list_options: ListOptions = False,
) -> None:
    """Reproduce a table or figure of the papers, printed with their numbers. Re-run to resume.

    Try:  staf reproduce table3 --profile cpu --out reproduced
    """
    from staf.cli.printing import Terminal, print_json
    from staf.errors import UnknownName
    from staf.experiments.plan import find_experiment
    from staf.experiments.profile import load_profile
    from staf.experiments.reproduce import print_table_of, run_shard
    from staf.experiments.run import Runner, parse_shard
    from staf.experts.launch import LAUNCHERS
    from staf.report.results import TABLES
    from staf.stages import RunContext

    sizes, part = load_profile(profile, overrides(override)), parse_shard(shard)
    if launcher not in LAUNCHERS:
        raise UnknownName.among("launcher", launcher, LAUNCHERS)
    run_context = RunContext(sizes.base, data_dir, out / "runs", sizes.splits, sizes.compute)
    context = run_context.context(Terminal())
    runner = Runner(context, sizes, out, part)
    names = list(TABLES) if name == "all" else [name]
    for wanted in names:
        find_experiment(wanted, sizes)  # reject a misspelt name before anything runs
    if part[1] > 1:
        for wanted in names:
            finished, count = run_shard(wanted, runner)
            print(f"{wanted}: {finished} of {count} runs of shard {shard} are finished")
        print("Without --shard the same command writes the tables.")
        return
    for seeds in range(1, sizes.seeds + 1):
        tables, page = _tables(names, Path(profile).stem, runner, run_context if launcher == "ray" else None, seeds)
    if as_json:
        found = [table.model_dump(mode="json") for table in tables]
        print_json(found if name == "all" else found[0])
        return
    for table in tables:
        print_table_of(table)
    print(f"page: {page}; tables: {out / 'tables'}")


def _tables(names: list[str], profile: str, runner: Any, cluster: Any, seeds: int) -> tuple[list[Any], Path]:
    """Tables of some experiments with so far `seeds` seeds, written with the page."""
    from staf.data.registry import task_metrics
    from staf.experiments.reproduce import reproduce, write_tables
    from staf.report.page import write_page

    tables = [reproduce(name, profile, runner, cluster, seeds)[0] for name in names]
    for table in tables:
        write_tables(table, runner.out / "tables")
    page = write_page(runner.context.runs, runner.out / "report.html", task_metrics())
    if seeds < runner.profile.seeds:
        runner.context.progress.log(f"{seeds} of {runner.profile.seeds} seeds are done and on the page: {page}")
    return tables, page
