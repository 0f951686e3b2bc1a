"""What each process of tests/test_parallel.py does: train in several ways with the others, and write down what came out.

python tests/processes.py MODEL OUT, with the variables that torchrun sets.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from conftest import make_examples

from staf.compute import ComputeOptions, split_options
from staf.errors import TrainingFailed
from staf.experts import train as training
from staf.experts.distributed import World, init_distributed, open_base
from staf.experts.recipe import ExpertRecipe
from staf.experts.store import Expert
from staf.experts.train import StepReport, train_expert
from staf.lm.base import Base, load_base

SETTINGS = ExpertRecipe(
    steps=14, batch_size=6, initial_rank=4, target_rank=2, tinit=3, tfinal=5, learning_rate=0.02, lora_scaling=4.0,
    max_length=160, dropout=0.0,
)  # fmt: skip
EXAMPLES = make_examples(40)
"""The last batch of an epoch has four of them."""
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "one_row": {"batch_size": 1},
    "recomputed": {"gradient_accumulation_steps": 2, "gradient_checkpointing": True},
}
"""Settings that differ, by name; all are also trained by one process and with a sharded base."""


def trained(
    base: Base, folder: Path, world: World, changes: dict[str, Any], on_step: Callable[[StepReport], None] | None = None
) -> Expert:
    own, rest = split_options({"save_steps": 6, **changes})
    recipe = SETTINGS.model_copy(update=rest)
    return train_expert(base, "colour", EXAMPLES, recipe, folder, on_step, world=world, options=ComputeOptions(**own))


def outcome(expert: Expert) -> dict[str, Any]:
    return {"curve": expert.record["curve"], "ranks": expert.ranks, "fingerprint": expert.fingerprint}


def stopped_and_resumed(base: Base, out: Path, world: World) -> dict[str, Any]:
    """With dropout: whole, and stopped in between."""

    def stop(report: StepReport) -> None:
        if report.step == 10:
            raise KeyboardInterrupt

    whole = trained(base, out / "whole", world, {"dropout": 0.3})
    try:
        trained(base, out / "stopped", world, {"dropout": 0.3}, stop)
    except KeyboardInterrupt:
        world.barrier()
    steps: list[int] = []
    again = trained(base, out / "stopped", world, {"dropout": 0.3}, lambda report: steps.append(report.step))
    return {"whole": outcome(whole), "again": outcome(again), "first_step": steps[0]}


def failed(base: Base, out: Path, world: World) -> str:
    """The loss of process 1 only is not a number at step 9."""
    calls, real = 0, training.answer_loss

    def broken(*arguments: Any) -> tuple[torch.Tensor, int]:
        nonlocal calls
        calls += 1
        loss, count = real(*arguments)
        return (loss * float("nan"), count) if calls == 9 and world.rank == 1 else (loss, count)

    training.answer_loss = broken  # type: ignore[assignment]
    try:
        trained(base, out / "failed", world, {})
    except TrainingFailed as error:
        return str(error)
    finally:
        training.answer_loss = real
    return ""


def local_numbers(base: Base) -> int:
    """How many weights of the base this process holds."""
    return sum((p.to_local() if hasattr(p, "to_local") else p).numel() for p in base.model.parameters())


def main(model: str, out: Path) -> None:
    torch.set_num_threads(1)
    with init_distributed() as world:
        base = load_base(model, dtype="float32", device="cpu")
        found: dict[str, Any] = {name: outcome(trained(base, out / name, world, way)) for name, way in WAYS.items()}
        found["resumed"] = stopped_and_resumed(base, out, world)
        found["failed"] = failed(base, out, world)
        sharded = open_base(model, "float32", world, sharded=True)
        for name, way in WAYS.items():
            found[f"sharded_{name}"] = outcome(trained(sharded, out / f"sharded_{name}", world, way))
        found["numbers"] = [local_numbers(base), local_numbers(sharded)]
        try:
            world.check_same(world.rank, "rank")
        except TrainingFailed as error:
            found["differs"] = str(error)
        (out / f"rank{world.rank}.json").write_text(json.dumps(found))
        world.barrier()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
    # All is written and the group is closed. The interpreter's end once met a thread of torch that was not joined (SIGABRT).
    sys.stderr.flush()
    os._exit(0)
