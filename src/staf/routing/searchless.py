"""Routers that are computed, not searched for (not in the papers): from hidden states, or from each expert's loss.

Zero-shot, without labels: only prompts are read, answers are dropped first. A search can start from A = 0 and b = s.

    prompt   mean over its tokens of the base's own last hidden states                            (d,)
    task     mean over a few prompts of the task, instruction and input, without their answers    t  (d,)
    expert   mean over prompts that the expert was trained on, its centroid                       c_i (d,)

    similarity  s_i = cos(t - m, c_i - m),   m the mean of the centroids
    weights     R = softmax(s / tau)                                                              Eq. 3

Hidden states of a language model lie in a narrow cone: all cosines are near 1 until the mean is subtracted (Ethayarajh,
2019). Subtracting it from the similarities would change nothing, since softmax is invariant to a constant.

Best expert, as the start of a search that from the average of many experts needs many generations to find the right one:

    loss     L_i, the task loss of the base with expert i only, on the examples; K evaluations    Eq. 5
    router   b = 3 tau at the expert with the lowest L_i, 0 elsewhere; A = 0
    weights  R = softmax(b / tau): of 12 experts 0.65 for the best                                Eq. 3
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from staf.checkpoint_io import read_checkpoint, write_checkpoint
from staf.data.example import Example
from staf.data.splits import refuse_test, seeded_rng
from staf.errors import DamagedFile, ExpertMismatch, MissingData, TrainingFailed
from staf.experts.store import ExpertSet
from staf.lm.base import Base
from staf.lm.batches import encode_prompt, plan_batches
from staf.lm.prefix_cache import hidden_states
from staf.routing.merge import Mixture
from staf.routing.objective import RouterObjective, candidate_losses
from staf.routing.recipe import RouterRecipe
from staf.routing.router import one_hot
from staf.routing.store import Router

LEAD = 3.0
"""Logit of the best expert above the others', in units of the temperature."""
PROMPTS = 128
"""Maximum number of an expert's training prompts in its centroid."""
TOKEN_BUDGET = 4096


@torch.no_grad()
def prompt_mean(base: Base, examples: Sequence[Example], max_length: int) -> Tensor:
    """Mean over prompts of the mean over tokens of the base's own last hidden states, (d,) float32.

    Every prompt counts the same, whatever its length and place; answers are not read.

    Raises:
        ConfigError: a query does not fit into `max_length`.
    """
    ordered = sorted(examples, key=lambda example: example.id)
    prompts = [encode_prompt(example, base.tokenizer, max_length) for example in ordered]
    base.lora.set_rank_scale({})
    means: dict[int, Tensor] = {}
    for group in plan_batches([len(prompt) for prompt in prompts], TOKEN_BUDGET):
        hidden = hidden_states(base, [prompts[index] for index in group], None).float()  # (B, T, d)
        means |= {index: hidden[row, : len(prompts[index])].mean(0).cpu() for row, index in enumerate(group)}
    return torch.stack([means[index] for index in sorted(means)]).double().mean(0).float()


def expert_centroid(base: Base, examples: Sequence[Example], max_length: int = 512) -> Tensor:
    """`prompt_mean` of at most `PROMPTS` of an expert's training examples, (d,).

    Raises:
        MissingData: no examples. TestLeak: a test example is among them. ConfigError: as `prompt_mean`.
    """
    refuse_test(examples)
    if not examples:
        raise MissingData("no training examples to describe an expert by. See what there is: staf data list")
    ordered = sorted(examples, key=lambda example: example.id)
    return prompt_mean(base, seeded_rng("centroid").sample(ordered, min(PROMPTS, len(ordered))), max_length)


def expert_centroids(
    base: Base, experts: ExpertSet, folder: Path, examples_of: Callable[[str], Sequence[Example]], max_length: int = 512,
    on_done: Callable[[str], None] | None = None,
) -> Tensor:  # fmt: skip
    """Centroids (K, d) of a set, in its order: read from its folder, computed and saved there where they are missing.

    A saved one is used only for the same expert on the same base; `max_length` applies to those that are computed.

    Args:
        folder: of the set; centroids.json and centroids-<sha>.safetensors are written there.
        examples_of: training examples of an expert by its name; called for missing centroids only.
        on_done: called with the name of each expert whose centroid is saved.

    Raises:
        MissingData, TestLeak, ConfigError: as `expert_centroid`. DamagedFile: the saved file holds no centroids.
    """
    known, fingerprints = dict[str, Tensor](), dict[str, str]()
    if (folder / "centroids.json").is_file():
        saved, record = read_checkpoint(folder, "centroids")
        try:
            if record["base"]["fingerprint"] == base.fingerprint:
                known, fingerprints = {name: saved[name] for name in record["experts"]}, dict(record["experts"])
            if wrong := [name for name, mean in known.items() if tuple(mean.shape) != (base.model.config.hidden_size,)]:
                raise TypeError(f"'{wrong[0]}' has another shape")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DamagedFile(
                f"{folder / 'centroids.json'}: record and tensors do not fit ({error}). Delete it; it is computed again."
            ) from error
    for expert in experts.experts:
        if fingerprints.get(expert.name) != expert.fingerprint:
            known[expert.name] = expert_centroid(base, examples_of(expert.name), max_length)
            fingerprints[expert.name] = expert.fingerprint
            write_checkpoint(folder, "centroids", known, {"base": base.identity, "experts": fingerprints})
        if on_done is not None:
            on_done(expert.name)
    return torch.stack([known[name] for name in experts.names])


def similarities(task: Tensor, centroids: Tensor) -> Tensor:
    """Cosine of the task (d,) with each expert's centroid (K, d), both relative to the mean of the centroids: (K,)."""
    middle = centroids.mean(0)
    return functional.cosine_similarity(task - middle, centroids - middle, dim=-1)


def zero_shot_router(
    base: Base, experts: ExpertSet, task: str, inputs: Sequence[Example], centroids: Tensor, recipe: RouterRecipe
) -> Router:
    """A router for a task from a few of its inputs; their answers are not read.

    Args:
        inputs: examples of the task, none from its test set.
        centroids: (K, d), of `expert_centroids`, in the order of the experts.
        recipe: `temperature`, `max_length` and `seed` are used; the rest has no meaning without learning.

    Raises:
        MissingData: no inputs. TestLeak: a test example is among them.
        BaseMismatch, ExpertMismatch: experts of another base, or centroids of another set.
    """
    questions = [replace(example, answer="") for example in inputs]
    refuse_test(questions)
    if not questions:
        raise MissingData(f"no inputs of '{task}' to compare with the experts; a few without answers are enough.")
    experts.check(base.identity, base.lora.shapes)
    if centroids.shape[0] != len(experts.names):
        raise ExpertMismatch(
            f"{centroids.shape[0]} centroids for {len(experts.names)} experts ({', '.join(experts.names)}). "
            "Compute those of this set: staf.routing.searchless.expert_centroids."
        )
    started = time.perf_counter()
    similar = similarities(prompt_mean(base, questions, recipe.max_length), centroids)  # (K,)
    weights = torch.softmax(similar / recipe.temperature, dim=-1)[None]  # (1, K)  # Eq. 3
    record = {
        "loss": None, "stop_reason": "nothing is learned", "examples": 0, "unlabelled": len(questions),
        "similarities": dict(zip(experts.names, similar.tolist(), strict=True)), "tunable_parameters": 0,
        "seconds": time.perf_counter() - started,
    }  # fmt: skip
    params = torch.cat([torch.zeros_like(similar), similar])
    return Router.of(base, experts, task, questions, recipe, weights, params, record)


def best_expert_router(
    mixture: Mixture, task: str, examples: Sequence[Example], recipe: RouterRecipe,
    on_expert: Callable[[str, float], None] | None = None,
) -> Router:  # fmt: skip
    """A router for a task that prefers the expert with the lowest loss on the examples.

    Args:
        examples: adaptation examples, at least one.
        recipe: `temperature`, `objective`, `max_length` and `seed` are used.
        on_expert: called with each expert's name and loss.

    Raises:
        MissingData: no examples. TestLeak: a test example is among them. ConfigError: a query does not fit into `max_length`.
        TrainingFailed: no expert has a finite loss.
    """
    refuse_test(examples)
    if not examples:
        raise MissingData(f"no adaptation examples for '{task}'; at least 1 is needed. See: staf data list")
    started, names = time.perf_counter(), mixture.experts.names
    objective = RouterObjective(mixture, recipe)
    task_loss, losses = objective.loss_on(examples), {}
    for index, name in enumerate(names):
        (losses[name],) = candidate_losses(mixture, one_hot(index, len(names))[None], "task", task_loss)
        if on_expert is not None:
            on_expert(name, losses[name])
    finite = {name: loss for name, loss in losses.items() if math.isfinite(loss)}
    if not finite:
        raise TrainingFailed(f"'{task}': none of the {len(names)} experts has a finite loss. Check the experts: staf env.")
    best = min(finite, key=lambda name: finite[name])
    logits = torch.tensor([LEAD * recipe.temperature * (name == best) for name in names])
    params = torch.cat([torch.zeros_like(logits), logits])
    record = {
        "loss": losses[best], "losses": {name: finite.get(name) for name in names}, "evaluations": len(names),
        "stop_reason": f"all {len(names)} experts evaluated", "tunable_parameters": 1, "seconds": time.perf_counter() - started,
    }  # fmt: skip
    return Router.of(mixture.base, mixture.experts, task, examples, recipe, objective.weights(params), params, record)
