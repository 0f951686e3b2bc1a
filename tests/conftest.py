"""Fixtures: a tiny real model with a byte tokenizer, experts for it, and examples that we wrote."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two workers with two threads each wait for each other
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
from corpora import write_all
from hypothesis import settings
from tiny_model import write_tiny_model

from staf.data.example import Example, dedup_key
from staf.experts.reduce import concat_factors
from staf.experts.store import Expert, ExpertSet
from staf.lm import prefix_cache, scoring
from staf.lm.base import Base, load_base
from staf.lm.batches import Batch
from staf.lm.loss import answer_loss
from staf.lm.prefix_cache import PrefixKV
from staf.routing.merge import Mixture, module_groups

# No law is about time. Where CI is set its cases are the same each time: a rare one is to be found at a desk, not on a push.
settings.register_profile("suite", deadline=None, max_examples=50, derandomize="CI" in os.environ)
settings.register_profile("thorough", deadline=None, max_examples=200)  # make test-all
settings.load_profile("suite")


def pytest_configure() -> None:
    torch.set_num_threads(1)  # two threads cost more than they give on a tiny model


@pytest.fixture(autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's cache or data folder."""
    monkeypatch.setenv("STAF_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.delenv("STAF_DATA", raising=False)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved two-layer Llama (width 32) with random weights and a byte tokenizer."""
    return write_tiny_model(tmp_path_factory.mktemp("tiny"))


WORDS = "the patient came today with again some and systole murmur cough wheeze rash itch"
"""What the tiny encoder knows."""


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved one-layer BERT of random weights, whose tokenizer knows only our words."""
    import transformers

    bert: Any = transformers

    folder = tmp_path_factory.mktemp("encoder")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS.split()]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    bert.BertTokenizerFast(vocab={word: i for i, word in enumerate(words)}, model_max_length=32).save_pretrained(str(folder))
    torch.manual_seed(0)
    config = bert.BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32, initializer_range=0.2, num_labels=2,
    )  # fmt: skip
    bert.BertForSequenceClassification(config).save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="session")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder of our own texts, one folder for each reader."""
    return write_all(tmp_path_factory.mktemp("own"))


@pytest.fixture(scope="session")
def _loaded(tiny_folder: Path) -> Base:
    return load_base(str(tiny_folder), dtype="float32", device="cpu")


@pytest.fixture
def base(_loaded: Base) -> Base:
    """The tiny model as it was loaded; a copy takes a quarter of the time of loading."""
    return copy.deepcopy(_loaded)


def deltas_of(mixture: Mixture, weights: torch.Tensor, granularity: str = "task") -> dict[str, torch.Tensor]:
    """What the weights (G, K) add to each module, (d_out, d_in) float32 by name (Eq. 4)."""
    experts, shapes = mixture.experts, mixture.base.lora.shapes
    found = {}
    for (name, shape), group in zip(shapes.items(), module_groups(mixture.base, granularity), strict=True):
        b, a = concat_factors(experts.factors_of(name, shape), weights[group])
        found[name] = b @ a
    return found


def random_expert(base: Base, name: str, seed: int, scale: float = 1.0, size: float = 0.5) -> Expert:
    """An expert with random factors whose ranks differ by matrix and include 0."""
    generator = torch.Generator().manual_seed(seed)
    factors = {}
    for index, (matrix, (d_out, d_in)) in enumerate(base.lora.shapes.items()):
        rank = (index + seed) % 4
        factors[matrix] = (
            torch.randn(d_out, rank, generator=generator) / d_out**0.5 * torch.randn(rank, generator=generator) * size * scale,
            torch.randn(rank, d_in, generator=generator) / d_in**0.5,
        )
    return Expert(name, base.identity, factors, frozenset({dedup_key(f"taught {name}")}), {"run": f"run-{name}"})


def three_experts(base: Base) -> ExpertSet:
    names = ("attribute", "relation", "synonymy")
    return ExpertSet(tuple(random_expert(base, name, seed, scale=1.5) for seed, name in enumerate(names)))


@pytest.fixture
def experts(base: Base) -> ExpertSet:
    return three_experts(base)


@torch.no_grad()
def mean_loss(base: Base, batches: list[Batch]) -> float:
    """Mean of -log p over all answer tokens of the batches."""
    found = [answer_loss(base, batch) for batch in batches]
    return float(torch.stack([loss for loss, _ in found]).double().sum()) / sum(tokens for _, tokens in found)


COLOURS = {"sky": "blue", "grass": "green", "blood": "red", "sea": "blue", "leaf": "green", "rose": "red"}


def make_examples(count: int, split: str = "train", task_type: str = "colour") -> list[Example]:
    """Label examples that a tiny model can learn: the colour of a thing."""
    things = list(COLOURS)
    examples = []
    for i in range(count):
        thing = things[i % len(things)]
        examples.append(
            Example(
                id=f"{split}-{i}", task_type=task_type, query="Name the colour: blue, green or red.",
                context=f"{thing} {i // 6}", answer=COLOURS[thing], labels=("blue", "green", "red"), split=split,
                dedup_keys=(dedup_key(f"{split} {thing} {i}"),),
            )
        )  # fmt: skip
    return examples


class Interrupted:
    """Scoring in batches of `size` prompts that is interrupted before batch number `at`, once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, size: int, at: int) -> None:
        self.batches: list[list[tuple[int, ...]]] = []
        """prompts of each batch that was begun"""
        real = scoring.score_batch

        def score(base: Base, requests: Sequence[scoring.ScoringRequest], prefix: PrefixKV | None = None) -> list[torch.Tensor]:
            self.batches.append([request.prompt for request in requests])
            if len(self.batches) == at:
                raise KeyboardInterrupt
            return real(base, requests, prefix)

        def plan(lengths: Sequence[int], *_: object, **__: object) -> list[list[int]]:
            return [list(range(len(lengths)))[i : i + size] for i in range(0, len(lengths), size)]

        monkeypatch.setattr(scoring, "score_batch", score)
        monkeypatch.setattr(prefix_cache, "plan_batches", plan)


def each(loss_of: Callable[[np.ndarray], float]) -> Callable[[list[np.ndarray]], list[float]]:
    """The losses of some candidates, one by one."""
    return lambda candidates: [loss_of(candidate) for candidate in candidates]
