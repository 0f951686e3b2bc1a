"""staf experts: list, add, remove, reduce."""

from __future__ import annotations

from pathlib import Path

from staf.cli.options import RUNS, SPLITS
from staf.cli.printing import Terminal, emit, emit_table, say
from staf.errors import ConfigError

STALE = "Routers of an expert that is gone no longer fit. Adapt again: staf adapt"
KEPT = "Routers that are there keep to the experts they know. To use the new one, adapt again: staf adapt"


def list_experts(folder: Path, *, as_json: bool = False) -> None:
    """List experts with their training data, sizes and fingerprints."""
    from staf.experts.sets import describe

    rows = describe(folder)
    emit_table(as_json, rows, [column for column in rows[0] if column not in ("set", "base_fingerprint")])
    if not as_json:
        say(f"set: {len(rows)} experts, {rows[0]['set']}")


def add(folder: Path, source: str, *, name: str | None = None, base: str | None = None, as_json: bool = False) -> None:
    """Copy an expert or a PEFT LoRA adapter into a set, after checking base model and target modules.

    The other experts stay as they are. A router keeps to the experts it knows: adapt again to use the new one.
    """
    from staf.experts.sets import add_expert
    from staf.lm.base import identity_of

    found = add_expert(folder, source, name, None if base is None else identity_of(base), Terminal().log)
    record = {"folder": str(folder), "experts": found.names, "set": found.fingerprint}
    emit(as_json, record, f"{folder} now holds {', '.join(found.names)} ({found.fingerprint}).", KEPT)


def remove(folder: Path, name: str, *, as_json: bool = False) -> None:
    """Remove an expert from a set; its files are kept in a side folder."""
    from staf.experts.sets import remove_expert
    from staf.experts.store import expert_names

    kept = remove_expert(folder, name)
    left = expert_names(folder)
    emit(
        as_json,
        {"folder": str(folder), "experts": left, "removed": name, "kept_in": str(kept)},
        f"{folder} now holds {', '.join(left) or 'no expert'}. '{name}' was moved to {kept}; to add it again:",
        f"staf experts add {folder} {kept}",
        STALE,
    )


def reduce(
    folder: Path, out: Path, *, rank: int | None = None, router: Path | None = None, keep: int | None = None,
    measure: bool = False, task: str | None = None, base: str | None = None, data_dir: Path | None = None, splits: str = SPLITS,
    as_json: bool = False,
) -> None:  # fmt: skip
    """Save a smaller set and report the error: truncated ranks, the experts of largest router weight, or both."""
    from staf.experts.reduce import reduce_set
    from staf.experts.store import load_experts
    from staf.routing.pruning import prune_by_router
    from staf.routing.store import load_router
    from staf.stages.adaptation import reduction_loss
    from staf.stages.context import Context

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
        context = Context(base, data_dir, RUNS, Terminal(), split_scheme=splits)
        losses = reduction_loss(context, context.find_task(task or found.task), found, experts, load_experts(out))
    if as_json:
        emit(True, {"folder": str(out), "experts": rows, "lost_by_pruning": lost, "loss": losses})
        return
    emit_table(False, rows)
    if lost is not None:
        say(f"The experts left out were {lost:.1%} of the norm of what the router adds.")
    if losses is not None and found is not None:
        say(f"Loss of {found.task} on what its router was learned from: {losses['before']:.4f}, with the smaller set "
              f"{losses['after']:.4f}.")  # fmt: skip
    say(f"The smaller set is {out}. Adapt again with it: staf adapt")
