"""Log-likelihood of answers against lm_eval's HFLM: questions per second, peak memory, largest difference.

    pip install lm_eval && python benchmarks/scoring.py --questions 4 --rounds 3

Both sides score the same prompts and answers with the same model, number format and places in a batch; they take turns in one
run, and a ratio is that of a round. HFLM is the stock one: a sequence for each answer, as many in a batch as the longest ones
fit into the places of ours, log-softmax in the model's number format. Two cases of real text:

    50 labels   PubMedQA contexts joined up to 400 tokens; the answers are 50 titles of ICD-10-CM, the same for every note
    4 options   MedMCQA questions with their own options

The limit is a plain forward, without a head, of each prompt alone in batches of the same places: no answer can be had for less.
Peak memory is that of a process that does one side alone. The difference of log-likelihoods is taken in float32 on both sides.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from typing import Any

import torch

from staf.data.example import Example, prompt_of
from staf.data.prepare import load, prepare
from staf.data.splits import seeded_rng
from staf.lm.base import Base, load_base
from staf.lm.batches import encode_prompt, plan_batches, round_up
from staf.lm.scoring import score_labels
from staf.runs import PeakMemory

LABELS = 50
NOTE_TOKENS = 400
MAX_TOKENS = 512
PLACES = 4096
"""In one batch, as in `EvaluationSettings`."""
CASES = {"50 labels": "50 labels after notes of 400 tokens", "4 options": "4 options after MedMCQA questions"}
PEER = "lm_eval HFLM.loglikelihood"


def notes(base: Base, count: int) -> list[Example]:
    """Notes of real sentences, each of about 400 tokens, with 50 titles of diseases as labels."""
    codes = load(prepare("icd-10-cm"), "entity_relation", "train", output_type="multiple_choice")
    labels = tuple(seeded_rng("bench labels").sample(sorted({code.answer for code in codes}), LABELS))
    pool = load(prepare("pubmedqa"), "question_answering", "train", output_type="multiple_choice")
    texts = [example.context for example in seeded_rng("bench notes").sample(pool, len(pool))]
    found = []
    for number in range(count):
        joined = " ".join(texts[(2 * number + i) % len(texts)] for i in range(2))
        ends = base.tokenizer(joined, return_offsets_mapping=True)["offset_mapping"][:NOTE_TOKENS]
        found.append(
            Example(f"note-{number}", "bench", "Name the diagnosis.", joined[: ends[-1][1]], labels[0], labels, "test", ())
        )
    return found


def questions(count: int) -> list[Example]:
    """MedMCQA questions, drawn by a fixed draw."""
    pool = load(prepare("medmcqa"), "multiple_choice", "train", output_type="multiple_choice")
    return seeded_rng("bench questions").sample(pool, min(count, len(pool)))


class Ours:
    """staf's trees of answers."""

    def __init__(self, base: Base) -> None:
        self.base = base

    def run(self, examples: list[Example]) -> list[list[float]]:
        """Log-likelihood of each label of each example."""
        options = {"max_length": MAX_TOKENS, "token_budget": PLACES}
        return [scores.tolist() for scores in score_labels(self.base, examples, length_normalised=False, **options)]

    @torch.no_grad()
    def limit(self, examples: list[Example]) -> None:
        """Every prompt through the model, once."""
        prompts = [encode_prompt(example, self.base.tokenizer, MAX_TOKENS) for example in examples]
        for group in plan_batches([len(prompt) for prompt in prompts], PLACES):
            ids = torch.zeros(len(group), round_up(max(len(prompts[i]) for i in group)), dtype=torch.long)
            for row, index in enumerate(group):
                ids[row, : len(prompts[index])] = torch.tensor(prompts[index])
            self.base.hidden_states(ids.to(self.base.device))


class Peer:
    """lm_eval's HFLM on the same weights."""

    def __init__(self, base: Base) -> None:
        try:
            from lm_eval.models.huggingface import HFLM
        except ImportError as error:
            raise SystemExit(f"lm_eval is not here ({error}); it is the peer of this benchmark: pip install lm_eval") from error
        from transformers import AutoModelForCausalLM

        model: Any = AutoModelForCausalLM.from_pretrained(str(base.folder), dtype=base.dtype).to(base.device)
        self.tokenizer = base.tokenizer
        self.model = HFLM(pretrained=model.eval(), tokenizer=base.tokenizer, batch_size=1)

    def run(self, examples: list[Example]) -> list[list[float]]:
        """Log-likelihood of each label of each example."""
        from lm_eval.api.instance import Instance

        pairs = [(prompt_of(e.query, e.context), f" {label}") for e in examples for label in e.labels]
        longest = max(len(self.tokenizer(prompt + answer)["input_ids"]) for prompt, answer in pairs)
        self.model.batch_size_per_gpu = max(PLACES // longest, 1)
        requests = [Instance("loglikelihood", {}, pair, index) for index, pair in enumerate(pairs)]
        found = iter(self.model.loglikelihood(requests, disable_tqdm=True))
        return [[next(found)[0] for _ in example.labels] for example in examples]


def examples_of(case: str, base: Base, count: int) -> list[Example]:
    return notes(base, count) if case == "50 labels" else questions(4 * count)


def timed(work: Any, examples: list[Example]) -> float:
    """Questions a second."""
    started = time.perf_counter()
    work(examples)
    return len(examples) / (time.perf_counter() - started)


def apart(side: str, case: str, options: argparse.Namespace) -> float:
    """The number that a process prints that does one thing alone."""
    command = [sys.executable, __file__, "--alone", side, "--case", case, "--questions", str(options.questions)]
    command += ["--base", options.base] if options.base else []
    command += ["--dtype", options.dtype] if options.dtype else []
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout.splitlines()[-1])


def alone(options: argparse.Namespace) -> None:
    """One side once, for its peak memory in bytes; or both in float32, for the largest difference of log-likelihoods."""
    differ = options.alone == "difference"
    memory, base = PeakMemory(), load_base(options.base, dtype="float32" if differ else options.dtype)
    examples = examples_of(options.case, base, 1 if differ else options.questions)
    if differ:
        pairs = zip(Ours(base).run(examples), Peer(base).run(examples), strict=True)
        print(max(abs(one - other) for mine, theirs in pairs for one, other in zip(mine, theirs, strict=True)))
        return
    (Ours(base) if options.alone == "ours" else Peer(base)).run(examples)
    print(memory.bytes)


def measure(case: str, base: Base, options: argparse.Namespace) -> dict[str, Any]:
    """The speed of a case: rounds in which the sides take turns, after one that warms up."""
    ours, peer, examples = Ours(base), Peer(base), examples_of(case, base, options.questions)
    rounds = []
    for number in range(options.rounds + 1):
        found = (timed(ours.run, examples), timed(ours.limit, examples), timed(peer.run, examples))
        if number:
            rounds.append(found)
    rates = [statistics.median(column) for column in zip(*rounds, strict=True)]
    ratios = sorted(mine / other for mine, _, other in rounds)
    return {
        "case": CASES[case], "ours": round(rates[0], 3), "peer": round(rates[2], 3), "unit": "questions/s",
        "ratio": round(statistics.median(ratios), 2), "ratio_spread": [round(ratios[0], 2), round(ratios[-1], 2)],
        "share_of_limit": round(statistics.median(mine / limit for mine, limit, _ in rounds), 2),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=4, help="notes a round; four times as many MedMCQA questions")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--base", default=None)
    parser.add_argument("--dtype", default=None)
    parser.add_argument("--case", choices=tuple(CASES), help="this case alone")
    parser.add_argument("--alone", choices=("ours", "peer", "difference"), help="one thing alone, printed as one number")
    options = parser.parse_args()
    if options.alone:
        alone(options)
        return
    for case in (options.case,) if options.case else CASES:
        numbers = {name: apart(name, case, options) for name in ("ours", "peer", "difference")}  # while this process is small
        base = load_base(options.base, dtype=options.dtype)
        machine = f"{platform.machine()}, {os.cpu_count()} processors, {str(base.dtype).removeprefix('torch.')}"
        common = {"bench": "scoring", "peer_name": PEER, "machine": machine}
        print(json.dumps(common | measure(case, base, options)), flush=True)
        memory = {
            "case": f"{CASES[case]}: peak memory", "ours": int(numbers["ours"]), "peer": int(numbers["peer"]), "unit": "bytes",
            "ratio": round(numbers["peer"] / numbers["ours"], 2), "share_of_limit": None,
        }  # fmt: skip
        print(json.dumps(common | memory), flush=True)
        largest = {"largest_difference": numbers["difference"], "unit": "nats, float32"}
        print(json.dumps(common | {"case": f"{CASES[case]}: log-likelihoods"} | largest), flush=True)


if __name__ == "__main__":
    main()
