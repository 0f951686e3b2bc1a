"""staf train."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from staf.cli.options import Base, DataDir, Dtype, Json, ListOptions, Override, Runs, Splits, overrides

if TYPE_CHECKING:
    from collections.abc import Sequence

    from staf.compute import ComputeOptions
    from staf.experts.estimate import Estimate
    from staf.experts.recipe import ExpertRecipe
    from staf.experts.store import Expert
    from staf.stages import TrainingJob


def train(
    data: Annotated[
        str,
        typer.Option("--data", "--experts", help="Knowledge types, data sets or YAML files, comma-separated: one expert each."),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for the experts.")],
    task: Annotated[
        list[str] | None,
        typer.Option(
            "--task", help="A task's YAML file whose test items are kept out too (repeatable); built-in tasks' always are."
        ),
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="YAML file of expert settings, or paper (section 4.2.2).")] = None,
    base: Base = None,
    data_dir: DataDir = None,
    splits: Splits = "staf-llm",
    runs: Runs = Path("runs"),
    override: Override = None,
    report_to: Annotated[
        str | None,
        typer.Option("--report-to", help="Also send each step's metrics and the settings to tensorboard, mlflow or wandb."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Train nothing: print the memory by part, and the time of three measured steps.")
    ] = False,
    launcher: Annotated[str, typer.Option(help="local, or ray: one expert per worker of a Ray cluster.")] = "local",
    dtype: Dtype = None,
    fsdp: Annotated[bool, typer.Option("--fsdp", help="Under torchrun: shard the base over all devices (FSDP2).")] = False,
    as_json: Json = False,
    list_options: ListOptions = False,
) -> None:
    """Stage I: train one expert per knowledge type or data set. Re-run the command to resume.

    Try:  staf train --data entity_synonymy --out experts -o steps=80 -o tinit=16 -o tfinal=26
    """
    from staf.cli.printing import print_estimates, print_json
    from staf.log import check_reporter
    from staf.stages import RunContext, TrainingJob

    settings, options = expert_settings(recipe, overrides(override), dtype)
    names = expert_names(data)
    run_context = RunContext(base, data_dir, runs, splits, options, fsdp, tuple(task or ()))
    if report_to is not None:
        check_reporter(report_to)
    jobs = [TrainingJob(name, settings, out, run_context, report_to) for name in names]
    if dry_run:
        estimates = estimate_jobs(jobs)
        print_json([found.record() for found in estimates]) if as_json else print_estimates(estimates)
    elif experts := run_jobs(jobs, launcher):
        print_experts(experts, out, as_json)


def estimate_jobs(jobs: Sequence[TrainingJob]) -> list[Estimate]:
    """What each training would take, in one process."""
    from staf.cli.printing import Terminal
    from staf.stages import estimate_stage

    context = replace(jobs[0].run_context, fsdp=False).context(Terminal())
    return [estimate_stage(context, job.name, job.recipe) for job in jobs]


def run_jobs(jobs: Sequence[TrainingJob], launcher: str) -> list[Expert]:
    """The trained experts; none in processes of torchrun other than the first. Raises as `train_experts`."""
    from staf.cli.printing import Terminal
    from staf.data.selection import expert_name
    from staf.experts.distributed import init_distributed
    from staf.experts.store import load_expert
    from staf.log import NullProgress
    from staf.stages import train_experts

    with init_distributed() as world:
        train_experts(jobs, launcher, Terminal() if world.is_main_process else NullProgress(), world)
        if not world.is_main_process:
            return []
    return [load_expert(job.out / expert_name(job.name)) for job in jobs]


def expert_settings(recipe: str | None, changed: dict[str, Any], dtype: str | None) -> tuple[ExpertRecipe, ComputeOptions]:
    """Recipe and compute options from a recipe file, overrides and --dtype.

    Raises:
        MissingData: there is no such recipe. ConfigError: a setting is wrong.
    """
    from staf.compute import ComputeOptions, split_options
    from staf.config import find_recipe, load_values, parse
    from staf.experts.recipe import ExpertRecipe

    values = {} if recipe is None else load_values(find_recipe(recipe))
    own, rest = split_options({**values, **changed})
    options = parse(ComputeOptions, own if dtype is None else {**own, "dtype": dtype}, "staf train")
    return parse(ExpertRecipe, rest, "staf train"), options


def expert_names(data: str) -> list[str]:
    """The names in a comma-separated list, each once.

    Raises:
        ConfigError: it is a folder. UnknownName: there is no such knowledge type or data set.
    """
    from staf.data.selection import expert_name, expert_sources
    from staf.errors import ConfigError

    if Path(data).is_dir():
        raise ConfigError(
            f"--data {data} is a folder; names were expected. Give the folder of your data sets as --data-dir {data}."
        )
    names = list(dict.fromkeys(name.strip() for name in data.split(",") if name.strip()))
    if not names:
        raise ConfigError("--data names no expert. Give a knowledge type, a data set or a YAML file; see: staf data list")
    for name in names:
        expert_name(name), expert_sources(name)  # reject a misspelt name before any training
    return names


def print_experts(experts: Sequence[Expert], out: Path, as_json: bool) -> None:
    """Print a row for each trained expert."""
    from staf.cli.printing import print_json, print_table

    rows = [
        {
            "expert": expert.name, "steps": expert.record["steps"], "examples": expert.record["examples"],
            "fingerprint": expert.fingerprint, "average_rank": round(sum(expert.ranks.values()) / len(expert.ranks), 2),
            "folder": str(out / expert.name),
        }
        for expert in experts
    ]  # fmt: skip
    print_json(rows) if as_json else print_table(rows, list(rows[0]))
