"""LoraHub's rule for causal models: factors summed with weights, weights found by a search without gradients.

LoraHub (Huang et al., 2023) sums the left factors of all experts with the weights, and the right ones too, so a weight enters
squared, with cross terms between the experts. Its loss is that of the examples plus 0.05 times the mean of the absolute
weights, within 1.5 of zero; nevergrad's NGOpt tries 40 of them. Here the summed factors are one expert, which is then routed
as any other.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional

from staf.data.example import Example
from staf.data.splits import refuse_test
from staf.errors import MissingData
from staf.experts.adapter import Factors
from staf.experts.store import Expert, ExpertSet
from staf.lm.base import Base
from staf.lm.batches import encode
from staf.routing.merge import Mixture
from staf.routing.objective import LMLoss, candidate_losses
from staf.routing.router import one_hot
from staf.runs import PeakMemory

BOUND = 1.5
L1 = 0.05
EVALUATIONS = 40


def composed(experts: ExpertSet, weights: Sequence[float]) -> Expert:
    """One expert whose factors are the weighted sums of the experts' factors, padded with zeros to one rank."""
    factors = {}
    for module in experts.shapes:
        pairs = experts.factors_of(module)
        rank = max(b.shape[1] for b, _ in pairs)
        left, right = zip(*(padded_factors(pair, rank) for pair in pairs), strict=True)
        b, a = (torch.stack([w * part for w, part in zip(weights, side, strict=True)]).sum(0) for side in (left, right))
        factors[module] = (b, a)
    return Expert("lorahub", experts.experts[0].base, factors, experts.dedup_keys, {"weights": list(weights)})


def padded_factors(pair: Factors, rank: int) -> Factors:
    """B (d_out, rank) and A (rank, d_in) of one module, padded with zeros."""
    b, a = pair
    missing = rank - b.shape[1]
    return functional.pad(b, (0, missing)), functional.pad(a, (0, 0, 0, missing))


def load_nevergrad() -> Any:
    """The module nevergrad.

    Raises:
        MissingData: it is not installed.
    """
    try:
        import nevergrad
    except ImportError as error:
        raise MissingData(
            f"LoraHub's optimiser does not load ({error}). Install it: pip install nevergrad bayesian-optimization==1.4.0"
        ) from error
    return nevergrad


def lorahub(
    base: Base,
    experts: ExpertSet,
    examples: Sequence[Example],
    *,
    seed: int,
    max_length: int,
    label_end: bool = True,
    max_evaluations: int = EVALUATIONS,
    on_done: Callable[[int, float], None] | None = None,
) -> tuple[Expert, dict[str, Any]]:
    """Search the weights of a task on its examples; the composed expert, and a record of the search.

    Args:
        label_end: the loss counts the end token of labels too (`encode`).
        on_done: called after each candidate with their number and the loss.

    Raises:
        TestLeak: a test example is among those given. MissingData: nevergrad is not installed.
        BaseMismatch, ExpertMismatch: the experts do not belong to this base.
    """
    refuse_test(examples)
    nevergrad = load_nevergrad()
    started, memory, losses = time.perf_counter(), PeakMemory(), list[float]()
    task_loss = LMLoss(base, [encode(example, base.tokenizer, max_length, label_end) for example in examples])

    def loss_at(weights: Sequence[float]) -> float:
        mixture = Mixture(base, ExpertSet((composed(experts, weights),)))
        return candidate_losses(mixture, one_hot(0, 1)[None], "task", task_loss)[0]

    def penalised(point: Any) -> float:
        weights = [float(weight) for weight in point]
        losses.append(loss_at(weights))
        if on_done is not None:
            on_done(len(losses), losses[-1])
        return losses[-1] + L1 * sum(map(abs, weights)) / len(weights)

    count = len(experts.names)
    space = nevergrad.p.Array(init=[0.0] * count, lower=[-BOUND] * count, upper=[BOUND] * count)
    space.random_state.seed(seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "COBYLA: Invalid RHOEND")  # nevergrad gives it none, scipy then takes its own
        found = nevergrad.optimizers.NGOpt(parametrization=space, budget=max_evaluations).minimize(penalised).value
    weights = [float(weight) for weight in found]
    record = {
        "weights": dict(zip(experts.names, weights, strict=True)), "losses": losses, "loss": loss_at(weights),
        "tunable_parameters": count, "adaptation_examples": len(examples),
        "adaptation_seconds": time.perf_counter() - started, "adaptation_memory_bytes": memory.bytes,
    }  # fmt: skip
    return composed(experts, weights), record
