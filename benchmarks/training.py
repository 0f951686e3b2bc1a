"""Stage I against PEFT's AdaLoRA: real tokens per second on the same batches, number format and steps.

    python benchmarks/training.py --steps 6 --rounds 3

Both sides train the same matrices from rank 12 with dropout 0.1 on the same batches of real examples, padded on the right
and sorted by length, and run the whole step: forward, backward, orthogonality, optimiser, importance. PEFT runs a bare loop
around its own model, without a trainer, which is faster than its users see. Steps alternate in one run; the ratio is of the
medians of a round, with the spread over rounds.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from typing import Any

import torch

from staf.config import ExpertSettings
from staf.data.batches import Batch, Encoded, encode
from staf.data.prepare import load, prepare
from staf.data.splits import dice
from staf.experts.train import ExpertTraining
from staf.lm.base import Base, load_base


def examples(base: Base, count: int, max_tokens: int) -> list[Encoded]:
    """A mix of short and long real examples: HPO relations and MedMCQA questions, half each."""
    pools = (("hpo", "entity_relation"), ("medmcqa", "multiple_choice"))
    chosen = []
    for name, kind in pools:
        pool = load(prepare(name), kind, "train")
        chosen += dice(f"bench {name}").sample(pool, count // 2)
    return [encode(example, base.tokenizer, max_tokens) for example in chosen]


class Ours:
    """staf's own step."""

    def __init__(self, base: Base, items: list[Encoded], settings: ExpertSettings) -> None:
        self.training = ExpertTraining(base, items, settings)
        base.routed.set_training(True, settings.dropout)

    def step(self) -> tuple[int, Batch]:
        batch = self.training.next_batch()
        return self.training.run_step().tokens, batch


class Peft:
    """PEFT's AdaLoRA in a bare loop over the batches that ours has just seen."""

    def __init__(self, base: Base, settings: ExpertSettings, total: int) -> None:
        from peft import AdaLoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM

        plain: Any = AutoModelForCausalLM.from_pretrained(str(base.folder), dtype=base.dtype)
        names = sorted({name.rpartition(".")[2] for name in base.routed.layers})
        rank = settings.initial_rank
        config = AdaLoraConfig(
            init_r=rank, target_r=settings.target_rank, tinit=1, tfinal=1, total_step=total, r=rank,
            lora_alpha=int(settings.scale * rank), lora_dropout=settings.dropout, target_modules=names,
            orth_reg_weight=settings.orthogonality,
        )  # fmt: skip
        self.model: Any = get_peft_model(plain, config)
        self.model.train()
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=0.0)
        self.steps = 0

    def step(self, batch: Batch) -> None:
        labels = torch.where(batch.answer, batch.ids, -100)
        loss = self.model(input_ids=batch.ids, labels=labels, use_cache=False).loss
        loss.backward()
        self.optimizer.step()
        self.model.base_model.update_and_allocate(self.steps)
        self.optimizer.zero_grad()
        self.steps += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6, help="steps a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--base", default=None)
    parser.add_argument("--dtype", default=None)
    options = parser.parse_args()
    base = load_base(options.base, dtype=options.dtype)
    total = options.steps * options.rounds + 2
    settings = ExpertSettings(steps=total, batch_size=12, warmup_steps=1, final_steps=1, max_tokens=384, scale=1.0)
    ours, peft = Ours(base, examples(base, 12 * total, 384), settings), Peft(base, settings, total)
    ratios, rates = [], []
    for number in range(options.rounds + 1):
        seconds: dict[str, list[float]] = {"ours": [], "peft": []}
        for _ in range(options.steps if number else 2):  # the first round warms up
            started = time.perf_counter()
            tokens, batch = ours.step()
            middle = time.perf_counter()
            peft.step(batch)
            seconds["ours"].append((middle - started) / tokens)
            seconds["peft"].append((time.perf_counter() - middle) / tokens)
        if number:
            ours_rate, peft_rate = (1 / statistics.median(seconds[side]) for side in ("ours", "peft"))
            rates.append((ours_rate, peft_rate))
            ratios.append(ours_rate / peft_rate)
    print(
        json.dumps(
            {
                "bench": "training",
                "case": f"step of 12 examples, {str(base.dtype).removeprefix('torch.')}",
                "ours": round(statistics.median(r[0] for r in rates)),
                "peer": round(statistics.median(r[1] for r in rates)),
                "unit": "real tokens/s",
                "ratio": round(statistics.median(ratios), 2),
                "ratio_spread": [round(min(ratios), 2), round(max(ratios), 2)],
                "share_of_limit": None,
                "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
            }
        )
    )


if __name__ == "__main__":
    main()
