"""Stage II against a plain forward, LoraHub's loop and twelve active PEFT adapters: time a candidate, a step, and to a loss.

    python benchmarks/router.py --experts demo/experts --rounds 5

All sides take turns in one run with the same twelve experts, the same 32 real examples and the same candidates; a ratio is
that of a round. Where a folder has fewer experts, copies of them with noise make up the number: for the time of a candidate
only their ranks matter. Cases:

    separate    PubMedQA abstracts of 200 tokens, a query of few
    shared      the same, a query of 100 tokens that all have in common
    chapters    ICD-10-CM titles with their list of chapters, about 116 tokens of which all but 16 are shared

The limit of a candidate is a plain forward of the same tokens through the original model, nothing shared: hidden states, and
logits at answer places. The limit of a router step is forward and backward of the original model when only its embedded input
requires a gradient. LoraHub's search ends where its optimiser ends; ours, without gradients or with
them, is stopped when a loss on all examples is as low; its weights are free by default, as a softmax never gets there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from router_peers import ActiveAdapters, LoraHub, padded
from torch import Tensor
from torch.nn import functional

from staf.data.example import Example
from staf.data.prepare import load, prepare
from staf.data.splits import seeded_rng
from staf.experts.store import Expert, ExpertSet, load_experts
from staf.lm.base import Base, load_base
from staf.lm.batches import Encoded, collate, encode, plan_batches
from staf.lm.loss import answer_loss
from staf.routing import cma, gradient
from staf.routing.merge import Mixture
from staf.routing.objective import LMLoss, RouterObjective, candidate_losses
from staf.routing.recipe import RouterRecipe
from staf.routing.router import initial_params

EXPERTS = 12
TOKEN_BUDGET = 8192
NOISE = 0.2
"""Of a copied expert's factors, as a share of their root mean square."""
STEP = 8
"""Examples of a gradient step."""
SHORT_QUERY = "Yes, no or maybe?"
LONG_QUERY = (
    "Read the research question and the abstract that was written to answer it. Say yes where the results that are reported "
    "support what the question asks, also where the authors add that larger studies are needed. Say no where the results "
    "speak against it, or where no difference between the groups was found. Say maybe where the results are mixed, where they "
    "hold for some patients alone, or where the authors leave the question open. Answer with a single word: yes, no or maybe."
)
CASES = {"separate": ("pubmedqa", SHORT_QUERY), "shared": ("pubmedqa", LONG_QUERY), "chapters": ("icd-10-cm", None)}
"""Data set, and the query to ask instead of its own."""
KINDS = {"pubmedqa": "question_answering", "icd-10-cm": "icd10_chapter"}
PARTS = ("candidates", "search", "gradient", "fused")
Side = Callable[[int], object]
"""One turn of one side in the round of that number."""


class Reached(Exception):
    """A candidate's loss is as low as wanted."""


def examples(base: Base, case: str, options: argparse.Namespace) -> list[Encoded]:
    """The real examples of a case."""
    name, query = CASES[case]
    pool = load(prepare(name), KINDS[name], "train", output_type="multiple_choice")
    drawn: list[Example] = seeded_rng("bench router").sample(pool, options.examples)
    asked = [example if query is None else replace(example, query=query) for example in drawn]
    return [encode(example, base.tokenizer, options.tokens) for example in asked]


def twelve(folder: Path) -> ExpertSet:
    """The experts of a folder and, up to twelve, copies with noise."""
    real = load_experts(folder).experts[:EXPERTS]
    copies = (noisy(expert, number) for number, expert in enumerate(cycle(real)))
    return ExpertSet((*real, *(next(copies) for _ in range(EXPERTS - len(real)))))


def noisy(expert: Expert, number: int) -> Expert:
    """A copy of an expert whose factors differ a little."""
    generator = torch.Generator().manual_seed(number)

    def moved(x: Tensor) -> Tensor:
        return x + NOISE * x.square().mean().nan_to_num().sqrt() * torch.randn(x.shape, generator=generator)

    factors = {name: (moved(b), moved(a)) for name, (b, a) in expert.factors.items()}
    return replace(expert, name=f"{expert.name}_copy_{number}", factors=factors)


def clocked(work: Callable[[], object]) -> float:
    """Seconds that some work takes."""
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def turns(sides: dict[str, Side], rounds: int) -> list[dict[str, float]]:
    """Seconds of each side in each round; a first one warms up and is left out."""
    found = [{name: clocked(lambda: side(number)) for name, side in sides.items()} for number in range(rounds + 1)]  # noqa: B023
    return found[1:]


def compared(rounds: Sequence[dict[str, float]], ours: str, peer: str) -> dict[str, Any]:
    """Seconds of two sides, and how many times as long the peer takes, as medians over the rounds."""
    ratios = sorted(found[peer] / found[ours] for found in rounds)
    return {
        "ours": round(statistics.median(found[ours] for found in rounds), 4),
        "peer": round(statistics.median(found[peer] for found in rounds), 4),
        "ratio": round(statistics.median(ratios), 2),
        "ratio_spread": [round(ratios[0], 2), round(ratios[-1], 2)],
    }


class PlainForward:
    """Hidden states and answer logits of the original model, every token computed."""

    def __init__(self, base: Base, items: Sequence[Encoded]) -> None:
        self.base, pad = base, base.tokenizer.pad_token_id or 0
        groups = plan_batches([len(item.tokens) for item in items], TOKEN_BUDGET)
        self.batches = [padded([items[i] for i in group], pad, base.device) for group in groups]

    @torch.no_grad()
    def __call__(self) -> None:
        for batch in self.batches:
            self.base.logits(self.base.hidden_states(batch["input_ids"])[:, :-1][batch["labels"][:, 1:] >= 0])


def candidate_lines(mixture: Mixture, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Time of a candidate, for each case."""
    base = mixture.base
    drawn = torch.randn(options.rounds + 1, 1, EXPERTS, generator=torch.Generator().manual_seed(0)).softmax(-1)
    for case in CASES:
        items = examples(base, case, options)
        task_loss, plain, peer = LMLoss(base, items), PlainForward(base, items), LoraHub(base, mixture.experts, items)
        sides: dict[str, Side] = {
            "ours": lambda number: candidate_losses(mixture, drawn[number : number + 1], "task", task_loss),  # noqa: B023
            "plain": lambda _: plain(),  # noqa: B023
            "lorahub": lambda number: peer.loss(drawn[number, 0].tolist()),  # noqa: B023
        }
        rounds = turns(sides, options.rounds)
        limit = compared(rounds, "ours", "plain")
        tokens = sum(len(item.tokens) for item in items)
        yield {
            "case": f"a candidate, {len(items)} examples of {tokens // len(items)} tokens, {case}", "unit": "s",
            "peer_name": "LoraHub's loop, causal", **compared(rounds, "ours", "lorahub"), "share_of_limit": limit["ratio"],
            "plain_forward": limit["peer"], "times_plain_forward": round(1 / limit["ratio"], 2), "tokens": tokens,
        }  # fmt: skip


@dataclass
class Watched:
    """Losses of a search in turn, and when one was as low as wanted."""

    wanted: float
    losses: list[float] = field(default_factory=list)

    def __call__(self, loss: float) -> None:
        self.losses.append(loss)
        if loss <= self.wanted:
            raise Reached


def search_to(mixture: Mixture, items: Sequence[Encoded], options: argparse.Namespace, watched: Watched) -> dict[str, Any]:
    """Our few-shot search, CMA-ES, until a candidate's loss is low enough or its candidates are spent."""
    settings = RouterRecipe(
        method="cma", max_evaluations=options.most, learned_scale=options.learned_scale, weighting=options.weighting,
        sigma0=options.sigma0,
    )  # fmt: skip
    objective, task_loss = RouterObjective(mixture, settings), LMLoss(mixture.base, items)

    def totals(candidates: list[Any]) -> list[float]:
        numbers = [torch.as_tensor(candidate, dtype=torch.float32) for candidate in candidates]
        found = []
        for one in numbers:
            (loss,) = objective.task_losses([one], task_loss)
            watched(loss)
            found.append(loss + float(objective.penalty(one)))
        return found

    start = initial_params(objective.num_params, settings)
    with suppress(Reached):
        cma.fit_cma(totals, start.numpy(), settings)
    return {"learned_scale": options.learned_scale, "weighting": options.weighting, "sigma0": options.sigma0}


def descent_to(mixture: Mixture, items: Sequence[Encoded], options: argparse.Namespace, watched: Watched) -> dict[str, Any]:
    """The same by gradients: every step takes all examples, so that its loss is that of a candidate; nothing else judges."""
    settings = RouterRecipe(weighting=options.weighting, learning_rate=options.learning_rate, epochs=options.steps)
    objective, base = RouterObjective(mixture, settings), mixture.base
    batch = collate(items, base.device)

    def total(numbers: Tensor, _: Sequence[int]) -> Tensor:
        mixture.set_weights(objective.weights(numbers))
        loss, count = answer_loss(base, batch)
        watched(float(loss.detach()) / count)
        return loss / count + objective.penalty(numbers)

    start = initial_params(objective.num_params, settings)
    with suppress(Reached):
        gradient.fit_gradient(
            total,
            lambda _: 0.0,
            start,
            settings,
            batches=lambda epoch: [[epoch]],
        )
    base.lora.set_rank_scale({})
    return {"weighting": options.weighting, "learning_rate": options.learning_rate}


def search_lines(mixture: Mixture, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Time to the loss at which LoraHub's optimiser ends: by our search without gradients, and by our descent."""
    items = examples(mixture.base, options.search_case, options)
    peer = LoraHub(mixture.base, mixture.experts, items)
    peer.loss([0.0] * EXPERTS)  # warms up
    for seed in range(options.seeds):
        theirs = peer.search(options.evaluations, seed)
        for way in options.ways:
            watched, started = Watched(theirs.loss), time.perf_counter()
            how = {"search": search_to, "descent": descent_to}[way](mixture, items, options, watched)
            seconds, reached = time.perf_counter() - started, watched.losses[-1] <= theirs.loss
            yield {
                "case": f"{way} to where LoraHub ends after {options.evaluations} candidates, {options.search_case}",
                "unit": "s", "peer_name": "LoraHub, NGOpt", "ours": round(seconds, 2) if reached else None,
                "peer": round(theirs.seconds, 2), "ratio": round(theirs.seconds / seconds, 2) if reached else None,
                "share_of_limit": None, "peer_first_as_low": theirs.first_as_low, "peer_loss": round(theirs.loss, 4),
                "peer_start": round(theirs.losses[0], 4), "our_losses": len(watched.losses), "seed": seed,
                "our_lowest": round(min(watched.losses), 4), "our_seconds": round(seconds, 2), **how,
            }  # fmt: skip


def gradient_lines(mixture: Mixture, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Time of a router's gradient step."""
    base, pad = mixture.base, mixture.base.tokenizer.pad_token_id or 0
    items = examples(base, "separate", options)[:STEP]
    own, stock = collate(items, base.device), padded(items, pad, base.device)
    objective = RouterObjective(mixture, RouterRecipe())
    numbers = initial_params(objective.num_params, objective.recipe).requires_grad_()
    theirs = torch.zeros(EXPERTS, device=base.device, requires_grad=True)
    optimiser, adapters = torch.optim.Adam([numbers, theirs]), ActiveAdapters(base, mixture.experts)

    def step(loss: Callable[[], Tensor]) -> None:
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()
        base.lora.set_rank_scale({})

    def original() -> Tensor:
        embedded = base.model.get_input_embeddings()(stock["input_ids"]).detach().requires_grad_()
        hidden = base.model.get_decoder()(inputs_embeds=embedded, use_cache=False).last_hidden_state
        labels = stock["labels"][:, 1:]
        return functional.cross_entropy(base.logits(hidden[:, :-1][labels >= 0]), labels[labels >= 0])

    def total() -> Tensor:
        mixture.set_weights(objective.weights(numbers))
        loss, count = answer_loss(base, own)
        return loss / count + objective.penalty(numbers)

    sides: dict[str, Side] = {
        "ours": lambda _: step(total),
        "original": lambda _: original().backward(),
        "full": lambda _: step(lambda: adapters.loss(theirs.softmax(0), stock, True)),
        "answers": lambda _: step(lambda: adapters.loss(theirs.softmax(0), stock, False)),
    }
    rounds = turns(sides, options.rounds)
    limit = compared(rounds, "ours", "original")
    for peer, name in (("full", "all logits, as transformers computes a loss"), ("answers", "answer logits alone, as ours")):
        yield {
            "case": f"a gradient step of {len(items)} examples of {own.ids.shape[1]} places; peer: {name}", "unit": "s",
            "peer_name": "12 active PEFT adapters", **compared(rounds, "ours", peer), "share_of_limit": limit["ratio"],
            "forward_and_backward_of_the_original": limit["peer"], "times_that": round(1 / limit["ratio"], 2),
        }  # fmt: skip


def fused_line(mixture: Mixture, options: argparse.Namespace) -> dict[str, Any]:
    """A forward of the model with its experts fused in, beside the original's."""
    items = examples(mixture.base, "separate", options)
    plain, weights = PlainForward(mixture.base, items), torch.full((1, EXPERTS), 1 / EXPERTS)
    found: list[dict[str, float]] = []
    for _ in range(options.rounds + 1):
        original = clocked(plain)
        with mixture.merged(weights):
            found.append({"ours": clocked(plain), "peer": original})
    line = compared(found[1:], "ours", "peer")
    return {"case": "fused inference", "unit": "s", "peer_name": "the original model", **line, "share_of_limit": line["ratio"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experts", type=Path, default=Path("demo/experts"), help="folder of trained experts")
    parser.add_argument("--rounds", type=int, default=5, help="after one that warms up")
    parser.add_argument("--examples", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=200, help="of one example, at most")
    parser.add_argument("--evaluations", type=int, default=40, help="candidates of LoraHub's optimiser")
    parser.add_argument("--seeds", type=int, default=1, help="searches of LoraHub's optimiser")
    parser.add_argument("--ways", choices=("search", "descent"), nargs="+", default=("search", "descent"))
    parser.add_argument("--steps", type=int, default=24, help="of our descent, at most, where it does not get there")
    parser.add_argument("--learning-rate", type=float, default=0.1, help="of our descent")
    parser.add_argument("--most", type=int, default=400, help="candidates of ours, at most, where it does not get there")
    parser.add_argument("--search-case", choices=CASES, default="chapters")
    parser.add_argument("--learned-scale", action="store_true", help="our search learns a scale beside the softmax")
    parser.add_argument("--weighting", choices=("softmax", "unconstrained", "l2"), default="unconstrained", help="of ours")
    parser.add_argument("--sigma0", type=float, default=0.1, help="first step size of our search")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS)
    parser.add_argument("--base", default=None)
    parser.add_argument("--dtype", default=None)
    options = parser.parse_args()
    base = load_base(options.base, dtype=options.dtype)
    mixture = Mixture(base, twelve(options.experts))
    machine = f"{platform.machine()}, {os.cpu_count()} processors, {base.device.type}, {str(base.dtype).removeprefix('torch.')}"
    parts: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
        "candidates": lambda: candidate_lines(mixture, options),
        "search": lambda: search_lines(mixture, options),
        "gradient": lambda: gradient_lines(mixture, options),
        "fused": lambda: iter([fused_line(mixture, options)]),
    }
    for part in options.only:
        for line in parts[part]():
            print(json.dumps({"bench": "router", "machine": machine} | line), flush=True)


if __name__ == "__main__":
    main()
