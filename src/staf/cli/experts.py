"""staf experts: list, add, remove, reduce."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from staf.cli.options import App, Base, DataDir, Json, Splits

app = App("List, add, remove and reduce the experts of a set.\n\nTry:  staf experts list experts")

Folder = Annotated[Path, typer.Argument(help="Folder of experts.")]


@app.command("list")
def list_command(folder: Folder, as_json: Json = False) -> None:
    """List experts with their training data, sizes and fingerprints.

    Try:  staf experts list experts
    """
    from staf.cli.printing import print_json, print_table
    from staf.experts.sets import describe

    rows = describe(folder)
    if as_json:
        print_json(rows)
        return
    print_table(rows, [column for column in rows[0] if column not in ("set", "base_fingerprint")])
    print(f"set: {len(rows)} experts, {rows[0]['set']}")


@app.command()
def add(
    folder: Folder,
    source: Annotated[str, typer.Argument(help="Folder of an expert or of any LoRA adapter of PEFT, or an adapter's hub id.")],
    name: Annotated[str | None, typer.Option("--name", help="Name in the set; required for an adapter.")] = None,
    base: Annotated[str | None, typer.Option("--base", help="Base of an adapter that starts a new set.")] = None,
    as_json: Json = False,
) -> None:
    """Copy an expert or a PEFT LoRA adapter into a set, after checking base model and target modules.

    The other experts stay as they are. Routers of the former set must be adapted again.

    Try:  staf experts add experts other/conll-2003
    """
    from staf.cli.printing import Terminal, emit
    from staf.experts.sets import add_expert
    from staf.stages import Context

    identity = None if base is None else Context(base, None, Path("runs")).identity
    found = add_expert(folder, source, name, identity, Terminal().log)
    emit(
        as_json,
        {"folder": str(folder), "experts": found.names, "set": found.fingerprint},
        f"{folder} now holds {', '.join(found.names)} ({found.fingerprint}).",
        "Routers of the former set no longer fit. Adapt again: staf adapt",
    )


@app.command()
def remove(
    folder: Folder,
    name: Annotated[str, typer.Argument(help="Name of the expert, as in staf experts list.")],
    as_json: Json = False,
) -> None:
    """Remove an expert from a set; its files are kept in a side folder.

    Try:  staf experts remove experts entity_relation
    """
    from staf.cli.printing import emit
    from staf.experts.sets import remove_expert
    from staf.experts.store import expert_names

    kept = remove_expert(folder, name)
    left = expert_names(folder)
    emit(
        as_json,
        {"folder": str(folder), "experts": left, "removed": name, "kept_in": str(kept)},
        f"{folder} now holds {', '.join(left) or 'no expert'}. '{name}' was moved to {kept}; to add it again:",
        f"staf experts add {folder} {kept}",
        "Routers of the former set no longer fit. Adapt again: staf adapt",
    )


@app.command()
def reduce(
    folder: Folder,
    out: Annotated[Path, typer.Argument(help="Folder for the smaller set; it must not exist.")],
    rank: Annotated[int | None, typer.Option("--rank", help="Maximum rank of each module of an expert.")] = None,
    router: Annotated[Path | None, typer.Option(help="Folder of a router made for this set.")] = None,
    keep: Annotated[int | None, typer.Option(help="With --router: number of experts to keep, by weight.")] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="With --router: its task's loss with the former and the smaller set.")
    ] = False,
    task: Annotated[
        str | None, typer.Option("--task", help="With --measure: the YAML file of the router's task, if it is your own.")
    ] = None,
    base: Base = None,
    data_dir: DataDir = None,
    splits: Splits = "staf-llm",
    as_json: Json = False,
) -> None:
    """Save a smaller set and report the error: truncated ranks, the experts of largest router weight, or both.

    Try:  staf experts reduce experts experts-rank2 --rank 2
    """
    from staf.cli.printing import Terminal, print_json
    from staf.errors import ConfigError
    from staf.experts.reduce import reduce_set
    from staf.experts.store import load_experts
    from staf.routing.pruning import prune_by_router
    from staf.routing.store import load_router
    from staf.stages import Context, reduction_loss

    if (router is None) != (keep is None and not measure) or (rank is None and keep is None):
        raise ConfigError(
            "staf experts reduce needs --rank, or --router and --keep together, or all three; --measure needs --router."
        )
    experts, lost, losses = load_experts(folder), None, None
    smaller, found = experts, None if router is None else load_router(router)
    if found is not None and keep is not None:
        smaller, lost = prune_by_router(experts, found, keep)
    rows = reduce_set(smaller, rank, out)
    if found is not None and measure:
        context = Context(base, data_dir, Path("runs"), Terminal(), profile=splits)
        losses = reduction_loss(context, context.find_task(task or found.task), found, experts, load_experts(out))
    record = {"folder": str(out), "experts": rows, "lost_by_pruning": lost, "loss": losses}
    print_json(record) if as_json else print_reduction(record, found.task if found else "")


def print_reduction(record: dict[str, Any], task: str) -> None:
    """Print what a smaller set lost: by expert, by pruning and in the loss of a router's task, where they were measured."""
    from staf.cli.printing import print_table

    rows, lost, losses, out = record["experts"], record["lost_by_pruning"], record["loss"], record["folder"]
    print_table(rows, list(rows[0]))
    if lost is not None:
        print(f"The experts left out were {lost:.1%} of the norm of what the router adds.")
    if losses is not None:
        print(f"Loss of {task} on what its router was learned from: {losses['before']:.4f}, with the smaller set "
              f"{losses['after']:.4f}.")  # fmt: skip
    print(f"The smaller set is {out}. Adapt again with it: staf adapt")
