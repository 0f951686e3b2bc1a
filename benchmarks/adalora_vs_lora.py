"""Is AdaLoRA better than LoRA at equal final parameters? Four knowledge types, five seeds, the same search for every method.

    python benchmarks/adalora_vs_lora.py --out adalora-grid                    all cells, then the table
    python benchmarks/adalora_vs_lora.py --out adalora-grid --share 0/2 --search    half of the search; then without --search

Each method first tries six pairs of a learning rate and a scale with one seed, and the pair with the lowest loss on adaptation
items is its own (LoRA tries lower ones: its delta grows faster, as AdaLoRA's singular values start at 0 and move by at most the
rate a step); then five seeds are trained with it and scored on test items. A cell that is done is a file in the folder and is
not computed again. LoRA is that of Hu et al. (2021): U starts at 0, V at random, no singular values, one rank everywhere; it
runs in the same loop.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import platform
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from staf.data.example import Example
from staf.data.prepare import load, prepare
from staf.data.splits import seeded_rng
from staf.experts.recipe import ExpertRecipe
from staf.experts.train import ExpertTraining
from staf.io import read_json, write_json
from staf.lm.base import Base, load_base
from staf.lm.batches import encode
from staf.lm.scoring import score_labels
from staf.routing.objective import LMLoss

KINDS = {
    "entity_relation": "hpo", "entity_attribute": "hpo", "entity_synonymy": "icd-10-cm", "multiple_choice": "medmcqa",
}  # fmt: skip
SEARCHED = "entity_relation"
PAIRS = {
    "LoRA": tuple(itertools.product((0.001, 0.003, 0.01), (2.0, 8.0))),
    "AdaLoRA": tuple(itertools.product((0.003, 0.01, 0.03), (16.0, 64.0))),
    "Start at zero": tuple(itertools.product((0.001, 0.003, 0.01), (2.0, 8.0))),
}
"""Learning rates and scales that are tried, by the first word of a method."""
TARGET, SEEDS, MAX_TOKENS = 4, 5, 256
METHODS: dict[str, dict[str, Any]] = {
    "LoRA": {"initial_rank": TARGET, "orth_reg_weight": 0.0, "init": "lora"},
    "AdaLoRA, raw": {"initial_rank": 12, "importance": "raw"},
    "AdaLoRA, smoothed": {"initial_rank": 12, "importance": "smoothed"},
    "Start at zero, from rank 6": {"initial_rank": 6, "orth_reg_weight": 0.0, "init": "lora"},
}


@dataclass(frozen=True)
class Cell:
    """One training and what it is scored on."""

    method: str
    kind: str
    rate: float
    scale: float
    seed: int
    steps: int
    split: str

    @property
    def name(self) -> str:
        words = self.method.replace(",", "").replace(" ", "-").lower()
        return f"{words}_{self.kind}_{self.rate:g}_{self.scale:g}_{self.seed}_{self.steps}_{self.split}"


class LoraTraining(ExpertTraining):
    """LoRA in the loop of an expert: the singular values, all 1, are never moved."""

    def _backward(self, batch: Any) -> Any:
        found = super()._backward(batch)
        self.factors.lambdas(self.factors.grad).zero_()
        return found


def settings_of(cell: Cell) -> ExpertRecipe:
    own = METHODS[cell.method]
    return ExpertRecipe(
        target_rank=TARGET, steps=cell.steps, batch_size=8, tinit=cell.steps // 5, tfinal=cell.steps // 3,
        learning_rate=cell.rate, lora_scaling=cell.scale, seed=cell.seed, max_length=MAX_TOKENS, **own,
    )  # fmt: skip


def drawn(kind: str, split: str, count: int, seed: int) -> list[Example]:
    pool = load(prepare(KINDS[kind]), kind, split, output_type="multiple_choice")
    return seeded_rng(f"adalora {kind} {split} {seed}").sample(pool, min(count, len(pool)))


def compute(base: Base, cell: Cell, scored: int) -> dict[str, Any]:
    """Train, then mean loss of the right answers and share of right choices on held-out items."""
    settings, started = settings_of(cell), time.perf_counter()
    train = drawn(cell.kind, "train", 8 * cell.steps, cell.seed)
    kind = LoraTraining if cell.method == "LoRA" else ExpertTraining
    training = kind(base, [encode(example, base.tokenizer, MAX_TOKENS) for example in train], settings)
    base.lora.set_training(True, settings.dropout)
    while training.step < training.total:
        training.run_step()
    base.lora.set_training(False)
    base.lora.attach(training.factors.modules(base.dtype, settings.lora_scaling))
    held_out = drawn(cell.kind, cell.split, scored, 0)  # the same items for all
    items = [encode(example, base.tokenizer, MAX_TOKENS) for example in held_out]
    loss = LMLoss(base, items)()
    scores = score_labels(base, held_out, max_length=MAX_TOKENS, token_budget=2048, length_normalised=True)
    right = [example.labels[int(score.argmax())] == example.answer for example, score in zip(held_out, scores, strict=True)]
    base.lora.detach()
    return {
        "loss": loss, "right": right, "kept": int(training.training.factors.mask.sum()), "train_loss": training.curve[-1],
        "seconds": time.perf_counter() - started,
    }  # fmt: skip


def search(steps: int) -> list[Cell]:
    """Six pairs for every method, one seed, on adaptation items."""
    return [Cell(method, SEARCHED, *pair, 0, steps, "adaptation") for method in METHODS for pair in pairs(method)]


def pairs(method: str) -> tuple[tuple[float, float], ...]:
    return PAIRS[method.split(",")[0]]


def best(done: dict[Cell, dict[str, Any]], method: str) -> tuple[float, float]:
    """The rate and scale with the lowest adaptation loss."""
    found = {(cell.rate, cell.scale): result["loss"] for cell, result in done.items() if cell.method == method}
    return min(pairs(method), key=lambda pair: found[pair] if math.isfinite(found[pair]) else math.inf)


def finals(done: dict[Cell, dict[str, Any]], steps: int) -> list[Cell]:
    """Five seeds of every method with its own rate and scale, on test items."""
    chosen = {method: best(done, method) for method in METHODS}
    grid = itertools.product(range(SEEDS), KINDS, METHODS)
    return [Cell(method, kind, *chosen[method], seed, steps, "test") for seed, kind, method in grid]


def run(cells: list[Cell], out: Path, options: argparse.Namespace) -> dict[Cell, dict[str, Any]]:
    """Compute this process's share of what is not done, and return all that is done."""
    index, count = (int(part) for part in options.share.split("/"))
    base: Base | None = None
    for cell in cells[index::count]:
        path = out / f"{cell.name}.json"
        if not path.is_file():
            base = base or load_base(options.base, dtype=options.dtype)
            write_json(path, {"cell": asdict(cell), **compute(base, cell, options.scored)})
            print(f"{cell.name}: {read_json(path)['loss']:.3f}", flush=True)
    return {cell: read_json(path) for cell in cells if (path := out / f"{cell.name}.json").is_file()}


def report(done: dict[Cell, dict[str, Any]]) -> None:
    """One line a method: mean over types and seeds of loss and accuracy, and both against LoRA, pair by pair."""
    from scipy.stats import wilcoxon

    def column(method: str, what: str) -> list[float]:
        cells = sorted((cell for cell in done if cell.method == method), key=lambda cell: (cell.kind, cell.seed))
        return [statistics.fmean(done[cell]["right"]) * 100 if what == "right" else done[cell][what] for cell in cells]

    lora = {what: column("LoRA", what) for what in ("loss", "right")}
    for method in METHODS:
        first = next(cell for cell in done if cell.method == method)
        line: dict[str, Any] = {
            "bench": "adalora", "case": f"{method}, rate {first.rate:g}, scale {first.scale:g}",
            "unit": "held-out nats a token",
            "peer_name": "LoRA", "share_of_limit": None, "kept_ranks": done[first]["kept"], "machine": platform.machine(),
        }  # fmt: skip
        for what, other in lora.items():
            values = column(method, what)
            by_kind = {kind: statistics.fmean(values[i * SEEDS :][:SEEDS]) for i, kind in enumerate(sorted(KINDS))}
            differences = [mine - theirs for mine, theirs in zip(values, other, strict=True)]
            line[what] = {
                "mean": round(statistics.fmean(values), 3),
                "by_kind": {kind: round(value, 3) for kind, value in by_kind.items()},
                "minus_lora": round(statistics.fmean(differences), 3),
                "p": None if method == "LoRA" else round(float(wilcoxon(differences).pvalue), 4),
            }
        ours, peer = line["loss"]["mean"], round(statistics.fmean(lora["loss"]), 3)
        print(json.dumps(line | {"ours": ours, "peer": peer, "ratio": round(peer / ours, 3)}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("adalora-grid"))
    parser.add_argument("--share", default="0/1", help="which of how many processes this one is")
    parser.add_argument("--search", action="store_true", help="only the search")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--scored", type=int, default=160, help="held-out items")
    parser.add_argument("--base", default=None)
    parser.add_argument("--dtype", default=None)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    found = run(search(options.steps), options.out, options)
    missing = len(search(options.steps)) - len(found)
    if options.search or missing:
        print(f"search: {missing} cells are not done yet")
        return
    done = run(cells := finals(found, options.steps), options.out, options)
    if len(done) == len(cells):
        report(done)


if __name__ == "__main__":
    main()
