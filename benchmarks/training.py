"""Stage I against PEFT's AdaLoRA under transformers' Trainer: real tokens per second, peak memory, share of the limit.

    python benchmarks/training.py --steps 8 --rounds 3

All sides train the same matrices from rank 12 with AdaLoRA's init and dropout 0.1 on the same real examples (MedMCQA, PubMedQA
and HPO, a third each), with the same batch size, dtype and number of steps; each has its own process, they take turns, and a
ratio is that of a round. Padding does not count as tokens. Two peers: the stock Trainer (batches in random order, padded to
their longest, logits for every token), and a tuned one (batches grouped by length, SDPA, logits and loss at answer positions
only, without AdaLoRA's orthogonality term). Neither calls AdaLoRA's own update of the ranks, which ours does. The limit is half
of the tokens per second of a plain forward, without a head, of our batches: with frozen weights a step needs one more product
for each of a forward.
Peak memory is that of a process that runs one side. Loss: five seeds, short examples (MedMCQA, HPO), each side with the better
of two learning rates on a seed of its own; then the time to the held-out loss at which the peer ends, of a training of twice as
many steps, as its rate would otherwise be 0 there.
Twelve experts take turns on one base, some steps each, against one expert with all the steps.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import torch

from staf.data.prepare import load, prepare
from staf.data.splits import seeded_rng
from staf.experts.recipe import ExpertRecipe
from staf.experts.train import ExpertTraining
from staf.lm.base import Base, load_base
from staf.lm.batches import Batch, Encoded, encode
from staf.lm.malloc import configure_allocator
from staf.runs import PeakMemory

SHORT = (("hpo", "entity_relation"), ("medmcqa", "multiple_choice"))
POOLS = (*SHORT, ("pubmedqa", "question_answering"))
BATCH = 8
MAX_TOKENS = 384
EXPERTS = 12
STOCK = "PEFT AdaLoRA, stock Trainer"
TUNED = "PEFT AdaLoRA, Trainer with length grouping, SDPA, answer-only logits"
RATES, SCALE = (0.003, 0.01), 16.0
"""Learning rates that both sides try, and the scale of both, where losses are compared."""


def examples(base: Base, count: int, pools: tuple[tuple[str, str], ...] = POOLS, draw: str = "bench") -> list[Encoded]:
    """Real examples, the same number of each pool, mixed by a fixed draw."""
    chosen = []
    for name, kind in pools:
        pool = load(prepare(name), kind, "adaptation" if draw == "held out" else "train", output_type="multiple_choice")
        drawn = seeded_rng(f"{draw} {name}").sample(pool, min(count // len(pools), len(pool)))
        chosen += [drawn[i % len(drawn)] for i in range(count // len(pools))]
    items = [encode(example, base.tokenizer, MAX_TOKENS) for example in chosen]
    seeded_rng(f"{draw} order").shuffle(items)
    return items


class Ours:
    """staf's own steps, and the forward of the same batches."""

    def __init__(self, base: Base, items: list[Encoded], settings: ExpertRecipe) -> None:
        self.base, self.training, self.settings = base, ExpertTraining(base, items, settings), settings
        self.batches: list[tuple[Batch, int]] = []

    def run(self, steps: int) -> float:
        """Real tokens a second."""
        self.base.lora.set_training(True, self.settings.dropout)
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
        self.base.lora.set_training(False)
        self.base.lora.set_rank_scale({})
        tokens, started = 0, time.perf_counter()
        for batch, count in self.batches:
            self.base.hidden_states(batch.ids)
            tokens += count
        self.batches.clear()
        return tokens / (time.perf_counter() - started) / 2


class Peft:
    """PEFT's AdaLoRA under the stock Trainer, or under a tuned one."""

    def __init__(self, base: Base, items: list[Encoded], settings: ExpertRecipe, total: int, tuned: bool = False) -> None:
        from peft import AdaLoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM

        plain: Any = AutoModelForCausalLM.from_pretrained(str(base.folder), dtype=base.dtype, attn_implementation="sdpa")
        names = sorted({name.rpartition(".")[2] for name in base.lora.layers})
        rank = settings.initial_rank
        config = AdaLoraConfig(
            init_r=rank, target_r=settings.target_rank, tinit=1, tfinal=1, total_step=total, r=rank,
            lora_alpha=int(settings.lora_scaling * rank), lora_dropout=settings.dropout, target_modules=names,
            orth_reg_weight=settings.orth_reg_weight,
        )  # fmt: skip
        self.model: Any = get_peft_model(plain, config)
        self.tokenizer, self.items, self.settings = base.tokenizer, items, settings
        self.place, self.tuned = 0, tuned

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
                train_sampling_strategy="group_by_length" if self.tuned else "random",
            )  # fmt: skip
            collator = DataCollatorForSeq2Seq(self.tokenizer, padding=True)
            trainer: Any = Trainer(self.model, arguments, collator, rows, callbacks=[Clock()])
            if self.tuned:
                trainer.compute_loss = answer_only_loss
            trainer.train()
        return sum(len(item.tokens) for item in chosen) / (marks[-1] - marks[0])


def answer_only_loss(model: Any, inputs: dict[str, Any], *_: Any, **__: Any) -> torch.Tensor:
    """Mean loss with logits at the columns that have an answer token in some row."""
    targets = inputs.pop("labels")[:, 1:]
    columns = (targets >= 0).any(0).nonzero()[:, 0]
    logits = model(**inputs, logits_to_keep=columns).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets[:, columns].flatten())


def settings_for(total: int, learning_rate: float = 1e-3, scale: float = 1.0) -> ExpertRecipe:
    return ExpertRecipe(
        steps=total, batch_size=BATCH, tinit=1, tfinal=1, max_length=MAX_TOKENS, lora_scaling=scale,
        learning_rate=learning_rate, initial_rank=12, init="svd", orth_reg_weight=0.5,
    )  # fmt: skip


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
    items = examples(base, BATCH * (steps + 4))
    if side == "twelve":
        in_turns(base, items, settings, EXPERTS, max(steps // EXPERTS, 1))
    else:
        side_of(side, base, items, settings, steps + 4).run(steps)
    print(memory.bytes)


def side_of(side: str, base: Base, items: list[Encoded], settings: ExpertRecipe, total: int) -> Ours | Peft:
    return Ours(base, items, settings) if side == "ours" else Peft(base, items, settings, total, tuned=side == "tuned")


def serve(pipe: Connection, side: str, options: argparse.Namespace) -> None:
    """One side in a process of its own: a round for each message, until None."""
    if side == "ours":
        configure_allocator()
    total = options.steps + 4
    base = load_base(options.base, dtype=options.dtype)
    settings, items = settings_for(total), examples(base, BATCH * total)
    runner = side_of(side, base, items, settings, total)
    while (steps := pipe.recv()) is not None:
        pipe.send((runner.run(steps), runner.limit() if isinstance(runner, Ours) else None))


@contextmanager
def side_process(side: str, options: argparse.Namespace) -> Iterator[Callable[[int], tuple[float, Any]]]:
    """What runs a round of one side in its process."""
    context = multiprocessing.get_context("spawn")
    mine, other = context.Pipe()
    process = context.Process(target=serve, args=(other, side, options), daemon=True)
    process.start()
    other.close()

    def ask(steps: int) -> tuple[float, Any]:
        mine.send(steps)
        found: tuple[float, Any] = mine.recv()
        return found

    yield ask
    mine.send(None)
    process.join()


def speed(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Real tokens a second of all sides in turns, against each peer, and our share of the limit."""
    rounds = []
    for number in range(options.rounds):
        found: list[float] = []
        for side in ("ours", "peft", "tuned"):  # one process at a time: a peer takes 10 to 13 GB
            with side_process(side, options) as ask:
                ask(1)  # warms up
                rate, limit = ask(options.steps)
            found += [rate] if limit is None else [rate, limit]
        rounds.append(found)
        print(
            "round {}: {:.0f}, limit {:.0f}, peer {:.0f}, tuned {:.0f}".format(number + 1, *found), file=sys.stderr, flush=True
        )
    rates = [statistics.median(column) for column in zip(*rounds, strict=True)]
    share = round(statistics.median(row[0] / row[1] for row in rounds), 2)
    for column, name in ((2, STOCK), (3, TUNED)):
        yield {
            "case": f"steps of {BATCH} examples of mixed length", "peer_name": name, "ours": round(rates[0]),
            "peer": round(rates[column]), "unit": "real tokens/s", **spread([row[0] / row[column] for row in rounds]),
            "share_of_limit": share,
        }  # fmt: skip


def spread(ratios: list[float]) -> dict[str, Any]:
    """The median of some ratios, the lowest and the highest."""
    return {"ratio": round(statistics.median(ratios), 2), "ratio_spread": [round(min(ratios), 2), round(max(ratios), 2)]}


def peaks(memory: dict[str, int]) -> dict[str, Any]:
    mine, other = memory["ours"], memory["peft"]
    return {"case": "peak memory", "ours": mine, "peer": other, "unit": "bytes", "ratio": round(other / mine, 2),
            "share_of_limit": None}  # fmt: skip


def in_turns(base: Base, items: list[Encoded], settings: ExpertRecipe, experts: int, steps: int) -> float:
    """Real tokens a second of experts that are trained one after the other on one base, what changes over included."""
    tokens, started = 0, time.perf_counter()
    for _ in range(experts):
        training = ExpertTraining(base, items, settings)
        base.lora.set_training(True, settings.dropout)
        tokens += sum(training.run_step().tokens for _ in range(steps))
    return tokens / (time.perf_counter() - started)


def twelve(base: Base, options: argparse.Namespace, memory: dict[str, int]) -> list[dict[str, Any]]:
    """Twelve experts in turns against one expert: throughput of the same examples, and peak memory."""
    steps, settings = options.turn_steps, settings_for(max(options.turn_steps, 3) + 1)
    items = examples(base, BATCH * steps)
    pairs = [
        (in_turns(base, items, settings, EXPERTS, steps), one_expert(base, items, steps)) for _ in range(options.turn_rounds)
    ]
    rates = [statistics.median(column) for column in zip(*pairs, strict=True)]
    shared = {"peer_name": "one expert of ours", "share_of_limit": None}
    return [
        {"case": f"{EXPERTS} experts in turns, {steps} steps each", "ours": round(rates[0]), "peer": round(rates[1]),
         "unit": "real tokens/s", **spread([a / b for a, b in pairs]), **shared},
        {"case": f"peak memory of {EXPERTS} experts in turns", "ours": memory["twelve"], "peer": memory["ours"],
         "unit": "bytes", "ratio": round(memory["ours"] / memory["twelve"], 2), **shared},
    ]  # fmt: skip


def one_expert(base: Base, items: list[Encoded], steps: int) -> float:
    """Real tokens a second of one expert with the same number of steps as all in turns."""
    return in_turns(base, items, settings_for(steps * EXPERTS + 1), 1, steps * EXPERTS)


@torch.no_grad()
def held_out_loss(model: Any, items: list[Encoded], device: torch.device) -> float:
    """Mean of -log p over the answer tokens, by the whole logits of a causal model that transformers can call."""
    total, count = 0.0, 0
    for item in items:
        ids = torch.tensor([item.tokens], device=device)
        chances = model(input_ids=ids).logits[0, item.answer_start - 1 : -1].float().log_softmax(-1)
        total -= float(chances.gather(1, ids[0, item.answer_start :, None]).sum())
        count += ids.shape[1] - item.answer_start
    return total / count


def losses(base: Base, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Held-out loss after the same steps, and the time to the loss at which the peer ends, over seeds."""
    held_out, steps = examples(base, options.held_out, SHORT, "held out"), options.loss_steps
    rates = {
        side: min(RATES, key=lambda rate: run(base, held_out, settings_for(steps, rate, SCALE), 99)[1])
        for side, run in (("ours", our_run), ("peft", peft_run))
    }
    rows = []
    for seed in range(options.seeds):
        seconds, loss = peft_run(base, held_out, settings_for(steps, rates["peft"], SCALE), seed)
        mine = our_run(base, held_out, settings_for(steps, rates["ours"], SCALE), seed)[1]
        reached = our_run(base, held_out, settings_for(2 * steps, rates["ours"], SCALE), seed, loss)[0]
        rows.append((mine, loss, reached, seconds))
    mine, other, reached, seconds = (statistics.fmean(column) for column in zip(*rows, strict=True))
    case = f"held-out loss after {steps} steps, {options.seeds} seeds, learning rates {rates['ours']} and {rates['peft']}"
    return [
        {"case": case, "ours": round(mine, 4), "peer": round(other, 4), "unit": "nats a token",
         **spread([row[1] / row[0] for row in rows]), "share_of_limit": None},
        {"case": "time to the peer's last held-out loss", "ours": round(reached, 1), "peer": round(seconds, 1),
         "unit": "seconds", **spread([row[3] / row[2] for row in rows]), "share_of_limit": None},
    ]  # fmt: skip


def our_run(
    base: Base, held_out: list[Encoded], settings: ExpertRecipe, seed: int, wanted: float = float("-inf")
) -> tuple[float, float]:
    """Seconds of training until the held-out loss is at most `wanted` (infinite if never), and the loss at the end."""
    steps = settings.steps or 0
    training = ExpertTraining(base, examples(base, BATCH * steps, SHORT, f"seed {seed}"), settings)
    seconds, reached, loss = 0.0, float("inf"), float("inf")
    for step in range(1, steps + 1):
        base.lora.set_training(True, settings.dropout)
        started = time.perf_counter()
        training.run_step()
        seconds += time.perf_counter() - started
        if step % 4 == 0 or step == steps:
            loss = our_loss(base, training, held_out)
            reached = min(reached, seconds) if loss <= wanted else reached
    return reached, loss


def our_loss(base: Base, training: ExpertTraining, held_out: list[Encoded]) -> float:
    """Held-out loss of the expert as it is now, by the same code as the peer's."""
    base.lora.set_training(False)
    base.lora.attach(training.factors.modules(base.dtype, training.recipe.lora_scaling))
    return held_out_loss(base.model, held_out, base.device)


def peft_run(base: Base, held_out: list[Encoded], settings: ExpertRecipe, seed: int) -> tuple[float, float]:
    """Seconds of all steps, and the held-out loss at the end."""
    steps = settings.steps or 0
    torch.manual_seed(seed)
    items = examples(base, BATCH * steps, SHORT, f"seed {seed}")
    peft = Peft(base, items, settings, steps)
    seconds = sum(len(item.tokens) for item in items) / peft.run(steps)
    return seconds, held_out_loss(peft.model.eval(), held_out, base.device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8, help="steps a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--turn-steps", type=int, default=2, help="steps of each of twelve experts")
    parser.add_argument("--turn-rounds", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--loss-steps", type=int, default=24, help="steps of a run whose loss is compared")
    parser.add_argument("--held-out", type=int, default=64, help="held-out examples")
    parser.add_argument("--base", default=None)
    parser.add_argument("--dtype", default=None)
    parser.add_argument("--speed-only", action="store_true", help="the alternating rounds and nothing else")
    parser.add_argument("--alone", choices=("ours", "peft", "twelve"), help="one round of one side, for its peak memory")
    options = parser.parse_args()
    if options.alone:
        alone(options.alone, load_base(options.base, dtype=options.dtype), options.steps)
        return
    dtype = load_base(options.base, dtype=options.dtype).dtype
    machine = f"{platform.machine()}, {os.cpu_count()} processors, {str(dtype).removeprefix('torch.')}"
    common = {"bench": "training", "peer_name": STOCK, "machine": machine}
    for case in cases(options):
        print(json.dumps(common | case), flush=True)


def cases(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """All results, one by one; separate processes first, while this one is small."""
    yield from speed(options)
    if options.speed_only:
        return
    memory = {side: peak_memory(side, options) for side in ("ours", "peft", "twelve")}
    yield peaks(memory)
    base = load_base(options.base, dtype=options.dtype)
    yield from twelve(base, options, memory)
    yield from losses(base, options)


if __name__ == "__main__":
    main()
