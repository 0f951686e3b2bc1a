"""staf env, report, demo, reproduce."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from staf.cli.options import RUNS, overrides
from staf.cli.printing import Terminal, emit, say
from staf.errors import MissingData, UnknownName


def env(*, as_json: bool = False) -> None:
    """Print device, dtype and why, memory, disk, installed and missing packages, and data sets."""
    from staf.env import examine

    found, lines = examine(), list[str]()
    for name, value in found.items():
        if isinstance(value, dict):
            lines += [f"{name}:", *(f"  {key:<22} {detail}" for key, detail in value.items())]
        else:
            lines.append(f"{name:<24} {value}")
    emit(as_json, found, *lines)


def report(*, runs: Path = RUNS, out: Path = Path("report.html"), as_json: bool = False) -> None:
    """Write one self-contained HTML page of all finished runs."""
    from staf.data.task import task_metrics
    from staf.report.page import write_page

    page = write_page(runs, out, task_metrics())
    emit(as_json, {"page": str(page)}, f"page: {page}")


def demo(
    *, out: Path = Path("demo"), recipe: Path | None = None, base: str | None = None, data_dir: Path | None = None,
    as_json: bool = False,
) -> None:  # fmt: skip
    """Run the complete method on open data: experts, both routers, a merged model, a table and a page."""
    from staf.experiments.demo import print_demo, run_demo

    found = run_demo(out, recipe, base, data_dir, Terminal())
    emit(True, found) if as_json else print_demo(found)


def reproduce(
    name: str, *, profile: str = "cpu", out: Path = Path("reproduced"), data_dir: Path | None = None,
    override: list[str] | None = None, launcher: str = "local", shard: str = "0/1", as_json: bool = False,
    list_options: bool = False,
) -> None:  # fmt: skip
    """Reproduce a table or figure of the papers, printed with their numbers and the time of each row. Re-run to resume."""
    from staf.experiments.plan import find_experiment
    from staf.experiments.profile import load_profile
    from staf.experiments.reproduce import print_table_of
    from staf.experiments.run import Runner, parse_shard
    from staf.experts.launch import LAUNCHERS
    from staf.report.results import TABLES
    from staf.stages.context import RunContext

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
        _run_shard(names, runner, shard)
        return
    for seeds in range(1, sizes.seeds + 1):
        tables, page = _tables(names, Path(profile).stem, runner, run_context if launcher == "ray" else None, seeds)
    if as_json:
        found = [table.model_dump(mode="json") for table in tables]
        emit(True, found if name == "all" else found[0])
    else:
        for table in tables:
            print_table_of(table)
        say(f"page: {page}; tables: {out / 'tables'}")
    cells = [cell for table in tables for row in table.rows for cell in row.cells]
    if all(cell.mean is None for cell in cells):
        raise MissingData(f"no cell of {name} has a number. The first reason: {cells[0].missing}")


def _run_shard(names: list[str], runner: Any, shard: str) -> None:
    """Make the runs of a shard, and fail where there are some and none could be finished."""
    from staf.experiments.reproduce import run_shard

    done = {wanted: run_shard(wanted, runner) for wanted in names}
    for wanted, (finished, count) in done.items():
        say(f"{wanted}: {finished} of {count} runs of shard {shard} are finished")
    say("Without --shard the same command writes the tables.")
    if not any(finished for finished, _ in done.values()) and any(count for _, count in done.values()):
        raise MissingData(f"no run of shard {shard} could be finished; the reasons are above. Rerun it when they are gone.")


def _tables(names: list[str], profile: str, runner: Any, cluster: Any, seeds: int) -> tuple[list[Any], Path]:
    """Tables of some experiments with so far `seeds` seeds, written with the page."""
    from staf.data.task import task_metrics
    from staf.experiments.reproduce import reproduce, seconds_left, write_tables
    from staf.report.formatting import time_text
    from staf.report.page import write_page

    tables = [reproduce(name, profile, runner, cluster, seeds)[0] for name in names]
    for table in tables:
        write_tables(table, runner.out / "tables")
    page = write_page(runner.context.runs, runner.out / "report.html", task_metrics())
    if seeds < runner.profile.seeds:
        left = time_text(sum(seconds_left(table, runner.profile) for table in tables))
        runner.context.progress.log(
            f"{seeds} of {runner.profile.seeds} seeds are done and on the page: {page}; the others take about {left}"
        )
    return tables, page
