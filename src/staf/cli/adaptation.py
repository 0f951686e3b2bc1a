"""staf adapt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from staf.cli.options import Base, DataDir, Dtype, Experts, Json, ListOptions, Override, Runs, Splits, TaskName, overrides

if TYPE_CHECKING:
    from collections.abc import Callable

    from staf.routing.recipe import RouterRecipe
    from staf.routing.store import Router

METHOD_DEFAULTS: dict[str, dict[str, Any]] = {
    "cma": {"shots": 32},
    "best_expert": {"shots": 32},
    "zero_shot": {"shots": 32, "temperature": 0.3},
}
"""Settings whose default depends on the method."""


def adapt(
    task: TaskName,
    experts: Experts,
    out: Annotated[Path, typer.Option("--out", help="Folder for the router.")],
    method: Annotated[
        str, typer.Option(help="gradient (normal setting), cma (few-shot setting), zero_shot, or best_expert.")
    ] = "gradient",
    shots: Annotated[
        int | None, typer.Option(help="Number of adaptation examples; default: all for gradient, else 32.")
    ] = None,
    base: Base = None,
    data_dir: DataDir = None,
    splits: Splits = "staf-llm",
    runs: Runs = Path("runs"),
    override: Override = None,
    init_from: Annotated[
        Path | None, typer.Option("--init-from", help="Folder of another router over the same experts to start from.")
    ] = None,
    seeds: Annotated[
        int,
        typer.Option(
            min=1, help="Number of routers with different seeds, in OUT/seed-0, OUT/seed-1, ...: mean and standard deviation."
        ),
    ] = 1,
    dtype: Dtype = None,
    as_json: Json = False,
    list_options: ListOptions = False,
) -> None:
    """Stage II: learn a task's router over trained experts; print and plot its weights. Re-run to resume.

    Try:  staf adapt --task icd10_chapter --experts experts --method cma --shots 32 --out routers/icd10_chapter-cma
    """
    from staf.cli.printing import Terminal, print_json
    from staf.data.selection import default_shots
    from staf.routing.summary import record_of
    from staf.stages import Context, adapt_folders

    given = {**({"shots": shots} if shots is not None else {}), **overrides(override)}
    router_recipe(method, given)  # a wrong setting is reported before data is read
    context = Context(base, data_dir, runs, Terminal(), dtype=dtype, profile=splits)
    found = context.find_task(task)
    recipe = router_recipe(method, given, lambda shots: default_shots(found, context.store, shots))
    routers = adapt_folders(context, found, experts, recipe, out, seeds, init_from)
    if as_json:
        print_json(record_of(routers))
        return
    print_routers(routers, found.name, out)


def router_recipe(method: str, given: dict[str, Any], available: Callable[[int], int] = lambda shots: shots) -> RouterRecipe:
    """The recipe of a method: its defaults, changed by what is given.

    Args:
        available: of a default number of shots, as many as the task has.

    Raises:
        ConfigError: a setting is wrong.
    """
    from staf.config import parse
    from staf.routing.recipe import RouterRecipe

    defaults = METHOD_DEFAULTS.get(method, {})
    if "shots" in defaults and "shots" not in given:
        defaults = {**defaults, "shots": available(defaults["shots"])}
    return parse(RouterRecipe, {"method": method, **defaults, **given}, "staf adapt")


def print_routers(routers: dict[Path, Router], task: str, out: Path) -> None:
    """Print and plot the weights of a task's routers, with the cost of the adaptation."""
    from staf.cli.printing import draw_weights, print_table
    from staf.routing.summary import seed_rows, summarize_weights

    found = summarize_weights(list(routers.values()))
    settings, weights = next(iter(routers.values())).recipe, found.rows()
    print_table(weights, list(weights[0]), f"Weights of the experts for {task}")
    figure = draw_weights(out / "weights.svg", task, settings, found.weights, found.spread)
    print(f"figure: {figure}")
    if len(routers) > 1:
        rows = seed_rows(routers)
        print_table(rows, list(rows[0]), "Routers by seed")
        return
    record = routers[out].record
    if record["loss"] is None:
        print(f"{record['unlabelled']} unlabelled inputs in {record['seconds']:.0f} s; no label was used")
        return
    print(f"{record['tunable_parameters']} parameters from {record['examples']} examples in {record['seconds']:.0f} s; "
          f"loss {record['loss']:.3f}; stop reason: {record['stop_reason']}")  # fmt: skip
