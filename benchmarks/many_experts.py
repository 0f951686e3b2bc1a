"""Many experts: what a hundred cost, what leaving most of them out costs, and what fewer ranks cost.

    python benchmarks/many_experts.py --experts demo/experts --out many-experts
    python benchmarks/many_experts.py --out many-experts --counts 1,4 --batch 2 --rounds 1 --epochs 1 --limit 8     a first try

Experts past those of --experts are copies of them with noise of their own size times --noise; without --experts they copy
one expert of random factors of rank 4. All counts take turns in each round, on the same real examples. Beside each count
stands its limit: for a gradient step the forward and backward of the original model with gradients to the input alone, for a
candidate the forward of the original model with logits before its answer tokens. Each number is a line of JSON; all of them
and a figure are written to --out. A candidate is merged or not as `staf.routing.merge.Mixture.applied` decides.

The loss that pruning and re-factoring cost is that of held-out adaptation examples under a router that is learned by gradient
over all experts, first as it is, then with the weights that are left brought to the sum that there was.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from staf.data.example import Example
from staf.data.selection import task_examples
from staf.data.splits import seeded_rng
from staf.data.store import DataStore
from staf.data.task import find_task
from staf.experts.reduce import concat_factors, relative_error, truncate_rank
from staf.experts.store import Expert, ExpertSet, load_experts
from staf.io import write_bytes, write_json
from staf.lm.base import Base, load_base
from staf.lm.batches import Batch, Encoded, collate, encode, plan_batches
from staf.lm.loss import answer_loss
from staf.routing.adapt import adapt_router
from staf.routing.merge import Mixture
from staf.routing.objective import LMLoss, RouterObjective, candidate_losses
from staf.routing.pruning import heaviest, pruned_weights, pruning_error
from staf.routing.recipe import RouterRecipe
from staf.routing.router import initial_params
from staf.runs import PeakMemory

MEASURED = ("step", "candidate", "plain_step", "plain_candidate", "peak_bytes")
RANKS = (4, 8, 16, 32, 64)
TOKEN_BUDGET = 4096
Row = dict[str, Any]


def random_expert(base: Base, rank: int = 4) -> Expert:
    """An expert of random factors; its delta is about a hundredth of a weight's size."""
    generator = torch.Generator().manual_seed(0)
    factors = {
        name: (
            0.1 * torch.randn(d_out, rank, generator=generator) / d_out**0.5,
            torch.randn(rank, d_in, generator=generator) / d_in**0.5,
        )
        for name, (d_out, d_in) in base.lora.shapes.items()
    }
    return Expert("random", base.identity, factors, frozenset())


def noisy_copy(expert: Expert, number: int, noise: float) -> Expert:
    """A copy whose factors have noise of their own deviation times `noise`."""
    generator = torch.Generator().manual_seed(number)

    def shaken(part: Tensor) -> Tensor:
        spread = part.std(correction=0) if part.numel() else 0.0
        return part + torch.randn(part.shape, generator=generator) * spread * noise

    factors = {name: (shaken(b), shaken(a)) for name, (b, a) in expert.factors.items()}
    return replace(expert, name=f"{number:03d}-{expert.name}", factors=factors)


def many(base: Base, folder: Path | None, count: int, noise: float) -> tuple[Expert, ...]:
    """So many experts: the real ones first, then noisy copies of them in turn."""
    real = (random_expert(base),) if folder is None else load_experts(folder).experts
    first = tuple(replace(expert, name=f"{number:03d}-{expert.name}") for number, expert in enumerate(real[:count]))
    return first + tuple(noisy_copy(real[i % len(real)], i, noise) for i in range(len(real), count))


def batches_of(base: Base, items: list[Encoded]) -> list[Batch]:
    groups = plan_batches([len(item.tokens) for item in items], TOKEN_BUDGET)
    return [collate([items[i] for i in group], base.device) for group in groups]


@torch.no_grad()
def mean_loss(base: Base, batches: list[Batch]) -> float:
    """Mean of -log p over all answer tokens of the batches."""
    found = [answer_loss(base, batch) for batch in batches]
    return float(torch.stack([loss for loss, _ in found]).double().sum()) / sum(tokens for _, tokens in found)


def seconds_of(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def plain_step(base: Base, batch: Batch) -> None:
    """Forward and backward of the original model, with a gradient to its input alone."""
    base.lora.set_rank_scale({})
    handle = base.model.get_input_embeddings().register_forward_hook(lambda *given: given[2].requires_grad_())
    try:
        loss, count = answer_loss(base, batch)
        (loss / count).backward()
    finally:
        handle.remove()


def measure(base: Base, experts: ExpertSet, items: list[Encoded], settings: RouterRecipe) -> Row:
    """Seconds of a gradient step and of a candidate with a set, and of their limits; bytes of its factors and at the peak."""
    mixture = Mixture(base, experts)
    objective, task_loss = RouterObjective(mixture, settings), LMLoss(base, items)
    numbers = initial_params(objective.num_params, objective.recipe, 0.1)
    weights = objective.weights(numbers)[None]
    batches = batches_of(base, items)
    batch = collate(items[: settings.batch_size], base.device)

    def step() -> None:
        asked = numbers.clone().requires_grad_()
        mixture.set_weights(objective.weights(asked), settings.granularity)
        loss, count = answer_loss(base, batch)
        (loss / count + objective.penalty(asked)).backward()

    def original() -> None:
        base.lora.set_rank_scale({})
        mean_loss(base, batches)

    memory = PeakMemory()
    found = {
        "step": seconds_of(step),
        "candidate": seconds_of(lambda: candidate_losses(mixture, weights, settings.granularity, task_loss)),
        "peak_bytes": memory.bytes,
        "plain_step": seconds_of(lambda: plain_step(base, batch)),
        "plain_candidate": seconds_of(original),
        "factor_bytes": sum(expert.num_params for expert in experts.experts) * 4,
        "ranks": sum(stack.a.shape[0] for stack in mixture.stacks.values()) / len(mixture.stacks),
    }
    base.lora.detach()
    return found


def cost(
    base: Base, experts: tuple[Expert, ...], counts: list[int], items: list[Encoded], settings: RouterRecipe, rounds: int
) -> list[Row]:
    """The median over rounds for each count; all counts take turns, and the first round warms up."""
    found: dict[int, list[Row]] = {count: [] for count in counts}
    for number in range(rounds + 1):
        for count in counts:
            row = measure(base, ExpertSet(experts[:count]), items, settings)
            if number:
                found[count].append(row)
    return [
        {"experts": count, **rows[0], **{key: statistics.median(row[key] for row in rows) for key in MEASURED}}
        for count, rows in found.items()
    ]


def cost_lines(rows: list[Row], common: Row) -> list[Row]:
    """Every figure of the table as a line of its own."""
    lines = []
    for row in rows:
        for case, key in (("gradient step", "step"), ("candidate", "candidate")):
            ours, limit = row[key], row[f"plain_{key}"]
            told = {"case": f"{case}, K = {row['experts']}", "experts": row["experts"], "ranks": round(row["ranks"], 1)}
            told |= {"ours": round(ours * 1000, 1), "peer": round(limit * 1000, 1), "unit": "ms"}
            told |= {"ratio": round(limit / ours, 3), "share_of_limit": round(limit / ours, 3)}
            lines.append(common | told)
        for case, size in (("factors", row["factor_bytes"]), ("peak memory", row["peak_bytes"])):
            amount = {"ours": size, "peer": None, "unit": "bytes", "ratio": None, "share_of_limit": None}
            lines.append(common | {"case": f"{case}, K = {row['experts']}", "experts": row["experts"], **amount})
    return lines


def smaller(base: Base, experts: ExpertSet, examples: list[Example], keep: int, settings: RouterRecipe) -> list[Row]:
    """Loss on held-out examples with all experts, the heaviest alone, and their sum brought to fewer ranks."""
    half = len(examples) // 2
    mixture = Mixture(base, experts)
    router = adapt_router(mixture, "many", examples[:half], settings)
    held_out = batches_of(base, [encode(example, base.tokenizer, settings.max_length) for example in examples[half:]])

    def loss_of(weighted: Mixture, weights: Tensor) -> float:
        weighted.set_weights(weights)
        return mean_loss(base, held_out)

    whole = loss_of(mixture, router.weights)
    base.lora.set_rank_scale({})
    lines: list[Row] = [
        {"case": "original model", "loss": mean_loss(base, held_out), "error": None},
        {"case": f"all {len(experts.names)} experts", "loss": whole, "error": 0.0},
    ]
    kept = heaviest(router.weights, keep)
    fewer = Mixture(base, ExpertSet(tuple(experts.experts[index] for index in kept)))
    share = pruning_error(experts, router.weights, kept, router.modules)
    for case, weights in (
        (f"the {keep} heaviest", router.weights[:, list(kept)]),
        (f"the {keep} heaviest, weights brought to the same sum", pruned_weights(router.weights, kept)),
    ):
        lines.append({"case": case, "loss": loss_of(fewer, weights), "error": share})
    for rank in RANKS:
        started = time.perf_counter()
        parts = {
            name: truncate_rank(concat_factors(experts.factors_of(name), router.weights[0]), rank) for name in experts.shapes
        }
        factors, error = {name: part.factors for name, part in parts.items()}, relative_error(list(parts.values()))
        merged = Expert("merged", base.identity, factors, experts.dedup_keys)
        seconds = time.perf_counter() - started
        loss = loss_of(Mixture(base, ExpertSet((merged,))), torch.ones(1, 1))
        lines.append({"case": f"the sum of all at rank {rank}", "rank": rank, "loss": loss, "error": error, "seconds": seconds})
    base.lora.detach()
    return [line | {"unit": "nats a token", "cost": line["loss"] - whole} for line in lines]


def figure(rows: list[Row], lines: list[Row]) -> bytes:
    """Time and memory against the number of experts, and the cost of fewer ranks, as SVG."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    counts = [row["experts"] for row in rows]
    drawn, (time_axes, memory_axes, rank_axes) = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    for key, title, style in (
        ("step", "gradient step", "o-"), ("plain_step", "forward and backward of the original", "o--"),
        ("candidate", "candidate", "s-"), ("plain_candidate", "forward of the original", "s--"),
    ):  # fmt: skip
        time_axes.plot(counts, [row[key] for row in rows], style, label=title)
    time_axes.set(xlabel="experts", ylabel="seconds", title="Time")
    for key, title in (("factor_bytes", "factors"), ("peak_bytes", "peak of the process")):
        memory_axes.plot(counts, [row[key] / 1e9 for row in rows], "o-", label=title)
    memory_axes.set(xlabel="experts", ylabel="GB", title="Memory")
    ranked = [line for line in lines if "rank" in line]
    rank_axes.plot([line["rank"] for line in ranked], [line["error"] for line in ranked], "o-", label="relative error")
    rank_axes.plot([line["rank"] for line in ranked], [line["cost"] for line in ranked], "s-", label="loss it costs, nats")
    rank_axes.set(xlabel="rank of the sum", title=f"{counts[-1]} experts as one")
    for axes, ticks in ((time_axes, counts), (memory_axes, counts), (rank_axes, RANKS)):
        axes.set_xticks(ticks)
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        axes.legend(fontsize=8)
    stream = io.BytesIO()
    drawn.savefig(stream, format="svg")
    plt.close(drawn)
    return stream.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experts", type=Path, default=None, help="real experts to begin with")
    parser.add_argument("--counts", default="1,4,12,25,50,100")
    parser.add_argument("--noise", type=float, default=0.5, help="deviation of the noise, in that of the factors")
    parser.add_argument("--keep", type=int, default=12, help="experts that pruning keeps")
    parser.add_argument("--task", default="icd10_chapter")
    parser.add_argument("--batch", type=int, default=32, help="examples of a candidate; a step takes at most 16 of them")
    parser.add_argument("--limit", type=int, default=256, help="adaptation examples that pruning is judged on; half learn")
    parser.add_argument("--epochs", type=int, default=3, help="of the router that says which experts to keep")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--base", default=None)
    parser.add_argument("--dtype", default=None)
    parser.add_argument("--out", type=Path, default=Path("many-experts"))
    options = parser.parse_args()
    counts = sorted(int(count) for count in options.counts.split(","))
    base = load_base(options.base, dtype=options.dtype)
    experts = many(base, options.experts, counts[-1], options.noise)
    pool = sorted(task_examples(find_task(options.task), "adaptation", DataStore()), key=lambda example: example.id)
    examples = seeded_rng("many experts").sample(pool, min(max(options.limit, options.batch), len(pool)))
    settings = RouterRecipe(epochs=options.epochs, learning_rate=0.2, max_length=256)
    machine = f"{platform.machine()}, {os.cpu_count()} processors, {str(base.dtype).removeprefix('torch.')}"
    common: Row = {"bench": "experts", "machine": machine}
    items = [encode(example, base.tokenizer, settings.max_length) for example in examples[: options.batch]]
    rows = cost(base, experts, counts, items, settings, options.rounds)
    for line in cost_lines(rows, common | {"peer_name": "the original model"}):
        print(json.dumps(line), flush=True)
    keep = min(options.keep, counts[-1])
    lines = smaller(base, ExpertSet(experts), examples[: options.limit], keep, settings)
    for line in lines:
        print(json.dumps(common | line), flush=True)
    write_json(options.out / "many-experts.json", {"cost": rows, "smaller": lines, "machine": machine})
    write_bytes(options.out / "many-experts.svg", figure(rows, lines))


if __name__ == "__main__":
    main()
