"""A router for a task without labelled examples, from hidden states of its prompts (not in the papers).

    prompt   mean over its tokens of the base's own last hidden states                            (d,)
    task     mean over a few prompts of the task, instruction and input, without their answers    t  (d,)
    expert   mean over prompts that the expert was trained on, its centroid                       c_i (d,)

    similarity  s_i = cos(t - m, c_i - m),   m the mean of the centroids
    weights     R = softmax(s / tau)                                                              Eq. 3

Hidden states of a language model lie in a narrow cone: all cosines are near 1 until the mean is subtracted (Ethayarajh,
2019). Subtracting it from the similarities would change nothing, since softmax is invariant to a constant.

Only prompts are read: answers are dropped first. Nothing is learned; the router's parameters are A = 0 and b = s, from which
a search can start.
"""

from __future__ import annotations

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
from staf.errors import DamagedFile, ExpertMismatch, MissingData
from staf.experts.store import ExpertSet
from staf.lm.base import Base
from staf.lm.batches import encode_prompt, plan_batches
from staf.lm.prefix_cache import hidden_states
from staf.routing.recipe import RouterRecipe
from staf.routing.store import Router

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
        except (KeyError, TypeError, AttributeError) as error:
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
            "Compute those of this set: staf.routing.zero_shot.expert_centroids."
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
