"""The peers of a router: LoraHub's loop for a causal model, and twelve active adapters of PEFT.

LoraHub (Huang et al., 2023; github.com/sail-sg/lorahub) knows encoder-decoder models only. Its algorithm, written anew for a
causal one: the A matrices of all modules are summed with the weights, and the B matrices too; this state is loaded into one
PEFT LoRA model, whose loss on the examples plus 0.05 times the mean of the absolute weights is minimised by nevergrad's NGOpt
with weights within 1.5 of zero. So a weight enters squared, with cross terms between the modules.

Where it can be faster than the original without being another algorithm, it is: batches are of like length, and adapters are in
the model's number format. Logits are those of all tokens, as transformers computes them when it is given labels.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from staf.baselines.lorahub import BOUND, L1, load_nevergrad, padded_factors
from staf.experts.store import Expert, ExpertSet
from staf.lm.base import Base
from staf.lm.batches import Encoded, plan_batches

EXAMPLES = 8
"""Of one forward: logits of all tokens of more need gigabytes."""
ADAPTER = "experts"


@dataclass(frozen=True)
class Search:
    """What LoraHub's optimiser did."""

    weights: tuple[float, ...]
    """(K,) what it recommends"""
    loss: float
    """mean of -log p over the answer tokens there, without the L1 term"""
    seconds: float
    """the whole search"""
    first_as_low: float | None
    """seconds until a candidate's loss was no higher for the first time; None where only the recommendation's is"""
    losses: tuple[float, ...]
    """of each candidate, without the L1 term"""


def stock_model(base: Base) -> Any:
    """The base as transformers loads it."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(str(base.folder), dtype=base.dtype)
    return model.to(base.device).eval()


def lora_settings(experts: Sequence[Expert]) -> Any:
    """PEFT's settings of a LoRA that each of the experts fits into: in each matrix the highest of their ranks, at least 1."""
    from peft import LoraConfig

    ranks = {name: max(1, *(expert.ranks[name] for expert in experts)) for name in experts[0].ranks}
    names = sorted({name.rpartition(".")[2] for name in ranks})
    return LoraConfig(r=1, lora_alpha=1, target_modules=names, rank_pattern=ranks, alpha_pattern=ranks)


def lora_state(expert: Expert, ranks: Mapping[str, int]) -> dict[str, Tensor]:
    """An expert as a PEFT LoRA of these ranks, A (r, d_in) and B (d_out, r)."""
    state = {}
    for name, rank in ranks.items():
        left, right = padded_factors(expert.factors[name], rank)
        state[f"base_model.model.{name}.lora_A.weight"] = right
        state[f"base_model.model.{name}.lora_B.weight"] = left
    return state


def padded(items: Sequence[Encoded], pad: int, device: torch.device) -> dict[str, Tensor]:
    """Inputs and labels of a batch as transformers takes them."""
    width = max(len(item.tokens) for item in items)
    ids = torch.full((len(items), width), pad)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for row, item in enumerate(items):
        ids[row, : len(item.tokens)] = torch.tensor(item.tokens)
        mask[row, : len(item.tokens)] = 1
        labels[row, item.answer_start : len(item.tokens)] = torch.tensor(item.tokens[item.answer_start :])
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device), "labels": labels.to(device)}


class LoraHub:
    """The loss of composed modules on fixed examples, and the search for their weights."""

    def __init__(self, base: Base, experts: ExpertSet, items: Sequence[Encoded]) -> None:
        from peft import get_peft_model

        settings = lora_settings(experts.experts)
        self.model: Any = get_peft_model(stock_model(base), settings, ADAPTER, autocast_adapter_dtype=False).eval()
        self.modules = [lora_state(expert, settings.rank_pattern) for expert in experts.experts]
        pad = base.tokenizer.pad_token_id or 0
        longest = max(len(item.tokens) for item in items)
        groups = plan_batches([len(item.tokens) for item in items], longest * EXAMPLES)
        self.batches = [padded([items[i] for i in group], pad, base.device) for group in groups]

    def composed(self, weights: Sequence[float]) -> dict[str, Tensor]:
        """LoraHub's rule: every tensor is the weighted sum of the modules' tensors, A and B each by itself."""
        state: dict[str, Tensor] = {}
        for weight, module in zip(weights, self.modules, strict=True):
            for name, tensor in module.items():
                state[name] = state[name] + weight * tensor if name in state else weight * tensor
        return state

    @torch.no_grad()
    def loss(self, weights: Sequence[float]) -> float:
        """Mean of -log p over all answer tokens with the composed modules."""
        from peft import set_peft_model_state_dict

        set_peft_model_state_dict(self.model, self.composed(weights), ADAPTER)
        total, count = 0.0, 0
        for batch in self.batches:
            tokens = int((batch["labels"] >= 0).sum())
            total += float(self.model(**batch).loss) * tokens
            count += tokens
        return total / count

    def search(self, evaluations: int, seed: int) -> Search:
        """Let NGOpt try so many candidates.

        Raises:
            MissingData: nevergrad is not installed.
        """
        nevergrad = load_nevergrad()
        count = len(self.modules)
        space = nevergrad.p.Array(init=[0.0] * count, lower=[-BOUND] * count, upper=[BOUND] * count)
        space.random_state.seed(seed)
        optimiser = nevergrad.optimizers.NGOpt(parametrization=space, budget=evaluations)
        tried: list[tuple[float, float]] = []
        started = time.perf_counter()

        def penalised(weights: Any) -> float:
            loss = self.loss([float(weight) for weight in weights])
            tried.append((time.perf_counter() - started, loss))
            return loss + L1 * sum(abs(float(weight)) for weight in weights) / count

        found = tuple(float(weight) for weight in optimiser.minimize(penalised).value)
        seconds = time.perf_counter() - started
        reached = self.loss(found)
        first = next((when for when, loss in tried if loss <= reached), None)
        return Search(found, reached, seconds, first, tuple(loss for _, loss in tried))


class ActiveAdapters:
    """All experts as adapters of PEFT that are active at once, each times a weight that learns."""

    def __init__(self, base: Base, experts: ExpertSet) -> None:
        from peft import get_peft_model, set_peft_model_state_dict
        from peft.tuners.lora import LoraLayer

        self.names = [f"expert{i}" for i in range(len(experts.names))]
        self.model: Any = None
        for name, expert in zip(self.names, experts.experts, strict=True):
            settings = lora_settings([expert])
            if self.model is None:
                self.model = get_peft_model(stock_model(base), settings, name, autocast_adapter_dtype=False)
            else:
                self.model.add_adapter(name, settings, autocast_adapter_dtype=False)
            set_peft_model_state_dict(self.model, lora_state(expert, settings.rank_pattern), name)
        self.model.base_model.set_adapter(self.names)
        self.model.requires_grad_(False)
        self.model.eval()
        self.layers = [module for module in self.model.modules() if isinstance(module, LoraLayer)]

    def loss(self, weights: Tensor, batch: Mapping[str, Tensor], full_logits: bool) -> Tensor:
        """Mean loss of a batch of `padded` with the weights (K,), to which gradients flow.

        Args:
            full_logits: as transformers computes it from labels; else logits at answer places alone.
        """
        for layer in self.layers:
            layer.scaling.update(zip(self.names, weights.unbind(), strict=True))
        if full_logits:
            loss: Tensor = self.model(**batch).loss
            return loss
        model = self.model.get_base_model()
        ids, labels = batch["input_ids"], batch["labels"][:, 1:]
        hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state[:, :-1][labels >= 0]
        return functional.cross_entropy(model.get_output_embeddings()(hidden).float(), labels[labels >= 0])
