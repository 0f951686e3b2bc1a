"""Stage I against PEFT's AdaLoRA under transformers' Trainer: real tokens per second, peak memory, share of the limit.

    python benchmarks/training.py --steps 8 --rounds 3

Both sides train the same matrices from rank 12 with dropout 0.1 on the same real examples (MedMCQA, PubMedQA and HPO, a third
each), with the same batch size, number format and number of steps; they take turns in one run, and a ratio is that of a round.
Padding does not count as tokens. The Trainer is the stock one: batches in random order, padded to their longest, logits for
every token; it does not call AdaLoRA's own update of the ranks, which ours does. The limit is half of the tokens per second of
a plain forward, without a head, of ours' batches: with frozen weights a step needs one product more for each of a forward.
Peak memory is that of a process that does one side alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import torch

from staf.config import ExpertSettings
from staf.data.batches import Batch, Encoded, encode
from staf.data.prepare import load, prepare
from staf.data.splits import dice
from staf.experts.train import ExpertTraining
from staf.lm.base import Base, load_base
from staf.runs import PeakMemory

POOLS = (("hpo", "entity_relation"), ("medmcqa", "multiple_choice"), ("pubmedqa", "question_answering"))
BATCH = 8
MAX_TOKENS = 384


def examples(base: Base, count: int) -> list[Encoded]:
    """Short, middling and long real examples, a third each."""
    chosen = []
    for name, kind in POOLS:
        pool = load(prepare(name), kind, "train", form="choice")
        drawn = dice(f"bench {name}").sample(pool, min(count // len(POOLS), len(pool)))
        chosen += [drawn[i % len(drawn)] for i in range(count // len(POOLS))]
    return [encode(example, base.tokenizer, MAX_TOKENS) for example in chosen]


class Ours:
    """staf's own steps, and the forward of the same batches."""

    def __init__(self, base: Base, items: list[Encoded], settings: ExpertSettings) -> None:
        self.base, self.training, self.settings = base, ExpertTraining(base, items, settings), settings
        self.batches: list[tuple[Batch, int]] = []

    def run(self, steps: int) -> float:
        """Real tokens a second."""
        self.base.routed.set_training(True, self.settings.dropout)
        tokens, started = 0, time.perf_counter()
        for _ in range(steps):
            batch = self.training.next_batch()
            done = self.training.run_step().tokens
            self.batches.append((batch, done))
            tokens += done
        return tokens / (time.perf_counter() - started)

    @torch.no_grad()
    def limit(self) -> float:
        """Half of the real tokens a second of a plain forward of the batches since the last call."""
        self.base.routed.set_training(False)
        self.base.routed.set_gain({})
        tokens, started = 0, time.perf_counter()
        for batch, count in self.batches:
            self.base.hidden(batch.ids)
            tokens += count
        self.batches.clear()
        return tokens / (time.perf_counter() - started) / 2


class Peft:
    """PEFT's AdaLoRA under the stock Trainer."""

    def __init__(self, base: Base, items: list[Encoded], settings: ExpertSettings, total: int) -> None:
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
        self.tokenizer, self.items, self.settings = base.tokenizer, items, settings
        self.place = 0

    def run(self, steps: int) -> float:
        """Real tokens a second of the next examples, from the first step's begin to the last one's end."""
        from transformers import DataCollatorForSeq2Seq, Trainer, TrainerCallback, TrainingArguments

        chosen = [self.items[(self.place + i) % len(self.items)] for i in range(steps * BATCH)]
        self.place += len(chosen)
        rows = [
            {
                "input_ids": list(item.tokens),
                "labels": [-100] * item.answer_start + list(item.tokens[item.answer_start :]),
            }
            for item in chosen
        ]
        marks: list[float] = []

        class Clock(TrainerCallback):
            def on_step_begin(self, *_: Any, **__: Any) -> None:
                marks.append(time.perf_counter())

            def on_step_end(self, *_: Any, **__: Any) -> None:
                marks.append(time.perf_counter())

        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                folder, per_device_train_batch_size=BATCH, max_steps=steps, learning_rate=self.settings.learning_rate,
                report_to=[], save_strategy="no", logging_strategy="no", disable_tqdm=True, bf16=False,
                use_cpu=not torch.cuda.is_available(), dataloader_pin_memory=False,
            )  # fmt: skip
            collator = DataCollatorForSeq2Seq(self.tokenizer, padding=True)
            Trainer(self.model, arguments, collator, rows, callbacks=[Clock()]).train()
        return sum(len(item.tokens) for item in chosen) / (marks[-1] - marks[0])


def settings_for(total: int) -> ExpertSettings:
    return ExpertSettings(steps=total, batch_size=BATCH, warmup_steps=1, final_steps=1, max_tokens=MAX_TOKENS, scale=1.0)


def peak_memory(side: str, options: argparse.Namespace) -> int:
    """Bytes at the peak of a process that loads the base and does one round of one side."""
    command = [sys.executable, __file__, "--alone", side, "--steps", str(options.steps)]
    command += ["--base", options.base] if options.base else []
    command += ["--dtype", options.dtype] if options.dtype else []
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout.splitlines()[-1])


def alone(side: str, base: Base, steps: int) -> None:
    """One round of one side; prints the peak."""
    memory, settings = PeakMemory(), settings_for(steps + 4)
    items = sorted_mix(base, steps + 4)
    (Ours(base, items, settings) if side == "ours" else Peft(base, items, settings, steps + 4)).run(steps)
    print(memory.bytes)


def sorted_mix(base: Base, batches: int) -> list[Encoded]:
    """Examples for so many batches, mixed by a fixed draw."""
    items = examples(base, BATCH * batches)
    dice("bench order").shuffle(items)
    return items


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8, help="steps a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--base", default=None)
    parser.add_argument("--dtype", default=None)
    parser.add_argument("--alone", choices=("ours", "peft"), help="one round of one side, for its peak memory")
    options = parser.parse_args()
    if options.alone:
        alone(options.alone, load_base(options.base, dtype=options.dtype), options.steps)
        return
    mine, other = peak_memory("ours", options), peak_memory("peft", options)  # first, while this process is small
    base = load_base(options.base, dtype=options.dtype)
    total = options.steps * (options.rounds + 1) + 4
    settings, items = settings_for(total), sorted_mix(base, total)
    ours, peft = Ours(base, items, settings), Peft(base, items, settings, total)
    rounds = []
    for number in range(options.rounds + 1):
        found = (ours.run(options.steps), ours.limit(), peft.run(options.steps))
        if number:  # the first round warms up
            rounds.append(found)
    rates = [statistics.median(column) for column in zip(*rounds, strict=True)]
    ratios = sorted(mine / other for mine, _, other in rounds)
    machine = f"{platform.machine()}, {os.cpu_count()} processors, {str(base.dtype).removeprefix('torch.')}"
    common = {"bench": "training", "peer_name": "PEFT AdaLoRA, transformers Trainer", "machine": machine}
    speed = {
        "case": f"steps of {BATCH} examples of mixed length", "ours": round(rates[0]), "peer": round(rates[2]),
        "unit": "real tokens/s", "ratio": round(statistics.median(ratios), 2),
        "ratio_spread": [round(ratios[0], 2), round(ratios[-1], 2)],
        "share_of_limit": round(statistics.median(mine / limit for mine, limit, _ in rounds), 2),
    }  # fmt: skip
    print(json.dumps(common | speed), flush=True)
    memory = {"case": "peak memory", "ours": mine, "peer": other, "unit": "bytes", "ratio": round(other / mine, 2)}
    print(json.dumps(common | memory | {"share_of_limit": None}), flush=True)


if __name__ == "__main__":
    main()
