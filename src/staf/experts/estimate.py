"""What a training would take, before any weight is loaded: memory by part, and time.

The base is laid out on PyTorch's meta device, which knows shapes and keeps no numbers: parameters are counted there, and so
are the bytes that a forward pass keeps for the way back, by running the training's own code. Time
is that of the matrix products alone, at the speed of the base's largest product measured on this machine; what lies between
the products comes on top: measured, a training did 0.2 to 0.8 of this speed on a base of 135 million parameters.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from staf.data.example import Example, prompt_of
from staf.errors import MissingData
from staf.experts.recipe import ExpertRecipe
from staf.experts.recompute import recomputing
from staf.experts.train import planned_steps
from staf.lm.attention import register
from staf.lm.base import DEFAULT_BASE, Base, resolve, targets_of
from staf.lm.batches import encode, epoch_order, round_up
from staf.lm.lora import LoraModel

META = torch.device("meta")
LETTERS_A_TOKEN = 4
"""Where there is no tokenizer."""
FLOAT = 4
"""Bytes of a float32."""


@dataclass(frozen=True)
class Memory:
    """Bytes by part while one expert trains."""

    base: int
    factors: int
    """float32, their copy in the dtype of the base, and the mask"""
    gradients: int
    optimiser: int
    """both moments"""
    importance: int
    """both moving averages"""
    activations: int
    """kept for the way back by the largest part of a step"""
    logits: int
    """of its answer tokens: log-probabilities and their gradients"""

    @property
    def total(self) -> int:
        """All parts together."""
        return sum(asdict(self).values())


@dataclass(frozen=True)
class Part:
    """What is computed at once."""

    rows: tuple[tuple[int, int], ...]
    """Tokens of each row, and how many of them, the last ones, are its answer."""
    width: int
    """Of the padded batch."""

    @property
    def tokens(self) -> int:
        """Without padding."""
        return sum(length for length, _ in self.rows)

    @property
    def answers(self) -> int:
        """Tokens that are predicted."""
        return sum(answer for _, answer in self.rows)

    def batch(self) -> tuple[Tensor, Tensor]:
        """Token ids (B, T), all 0, and where the answers are."""
        answer = torch.zeros(len(self.rows), self.width, dtype=torch.bool)
        for row, (length, predicted) in enumerate(self.rows):
            answer[row, length - predicted : length] = True
        return torch.zeros(answer.shape, dtype=torch.long), answer


@dataclass(frozen=True)
class Reading:
    """What a training reads."""

    parts: tuple[Part, ...]
    """of one epoch"""
    tokens: int
    """real tokens of one epoch"""
    counted: bool
    """by the base's tokenizer; else by letters"""


@dataclass(frozen=True)
class Estimate:
    """What one expert would take."""

    expert: str
    base: str
    parameters: int
    """of the base"""
    dtype: str
    device: str
    memory: Memory
    free_bytes: int | None
    """on the device now; None where the system does not tell"""
    examples: int
    steps: int
    tokens: int
    """real tokens of all steps"""
    tokens_counted: bool
    operations: float
    """multiplications and additions of all steps"""
    operations_per_second: float
    """of the base's largest matrix product, measured here"""

    @property
    def seconds(self) -> float:
        """At the speed of the product: what a training cannot be faster than."""
        return self.operations / self.operations_per_second

    def record(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {**asdict(self), "total_bytes": self.memory.total, "seconds": self.seconds}


def outline(base: str | None, dtype: torch.dtype) -> Base:
    """A base without numbers, from its config.json alone: a hub id, a folder, a GGUF file, or None for the default.

    Raises:
        MissingData: there is no config. UnknownName: of a kind without a list of adapted matrices.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    name = base if base is not None else DEFAULT_BASE
    place = str(resolve(base)) if base is None or base.endswith(".gguf") else base
    try:
        config = AutoConfig.from_pretrained(place)
    except (OSError, ValueError) as error:
        raise MissingData(
            f"no config of the base model {name} ({type(error).__name__}): a folder with config.json or a hub id was expected. "
            "Check the path, or put the model's config.json into a folder and name that."
        ) from error
    targets, layer_of = targets_of(config)
    with META:
        model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=register())
    routed = LoraModel(model, targets)
    identity = {"name": name, "fingerprint": ""}
    return Base(identity, Path(place), model, _tokenizer(place), routed, layer_of, dtype, META)


def _tokenizer(place: str) -> Any:
    """The tokenizer, or None where there is none."""
    from transformers import AutoTokenizer

    folder = Path(place)
    if folder.is_dir() and not any(folder.glob("*token*")):
        return None
    try:
        return AutoTokenizer.from_pretrained(place)
    except (OSError, ValueError):
        return None


def read(examples: Sequence[Example], settings: ExpertRecipe, tokenizer: Any) -> Reading:
    """The parts of the first epoch, exactly as training forms them where there is a tokenizer."""
    if tokenizer is None:
        sizes = [_by_letters(example, settings.max_length) for example in examples]
    else:
        items = [encode(example, tokenizer, settings.max_length) for example in examples]
        sizes = [(len(item.tokens), len(item.tokens) - item.answer_start) for item in items]
    lengths = [length for length, _ in sizes]
    parts = []
    for batch in epoch_order(lengths, settings.batch_size, settings.seed, 0):
        width, size = round_up(max(lengths[i] for i in batch)), -(-len(batch) // settings.accumulation)
        chosen = [batch[start : start + size] for start in range(0, len(batch), size)]
        parts += [Part(tuple(sizes[i] for i in part), width) for part in chosen]
    return Reading(tuple(parts), sum(lengths), tokenizer is not None)


def _by_letters(example: Example, max_length: int) -> tuple[int, int]:
    """About the tokens of an example, and of its answer."""
    answer = min(len(example.answer) // LETTERS_A_TOKEN + 2, max_length // 2)
    prompt = len(prompt_of(example.query, example.context)) // LETTERS_A_TOKEN + 1
    return min(prompt + answer, max_length), answer


def memory_of(base: Base, settings: ExpertRecipe, parts: Sequence[Part]) -> Memory:
    """Bytes by part; only shapes of `base` are looked at, which may be an outline."""
    numbers = factor_numbers(base, settings.initial_rank)
    largest = max(parts, key=lambda part: (part.tokens, part.width))
    answers = round_up(max(part.answers for part in parts))
    return Memory(
        base=sum(p.numel() * p.element_size() for p in base.model.parameters()),
        factors=numbers * (FLOAT + base.dtype.itemsize) + len(base.lora.layers) * settings.initial_rank,
        gradients=numbers * FLOAT,
        optimiser=2 * numbers * FLOAT,
        importance=2 * numbers * FLOAT,
        activations=activations(base, settings, largest),
        logits=3 * answers * base.model.config.vocab_size * FLOAT,
    )


def factor_numbers(base: Base, rank: int) -> int:
    """Numbers in U, V and lambda of all matrices."""
    return rank * sum(d_out + d_in + 1 for d_out, d_in in base.lora.shapes.values())


def activations(base: Base, settings: ExpertRecipe, part: Part) -> int:
    """Bytes that the decoder keeps for the way back, counted by running an outline forward; its factors are replaced."""
    rank = settings.initial_rank
    kind: dict[str, Any] = {"dtype": base.dtype, "device": META}
    shapes = base.lora.shapes.items()
    factors = {name: (torch.empty(d_out, rank, **kind), torch.empty(rank, d_in, **kind)) for name, (d_out, d_in) in shapes}
    base.lora.attach(factors)
    base.lora.set_rank_scale({name: torch.empty(rank, **kind).requires_grad_() for name in factors})
    base.lora.set_training(True, settings.dropout)
    others = [*base.model.parameters(), *(tensor for pair in factors.values() for tensor in pair)]
    kept = Kept(others)
    with recomputing(base, settings.checkpoint_activations), kept, Outlines():
        _forward(base, *part.batch())
    if not settings.checkpoint_activations:
        return kept.bytes
    whole = activations(base, settings.model_copy(update={"checkpoint_activations": False}), part)
    return kept.bytes + whole // base.model.config.num_hidden_layers


def _forward(base: Base, ids: Tensor, answer: Tensor) -> None:
    """The training's own way through the decoder; a mask is given where it would be made by looking at numbers."""
    base.hidden_states(ids, attention_mask=torch.ones(len(ids), 1, *ids.shape[1:], ids.shape[1], dtype=torch.bool))


class Outlines(TorchDispatchMode):
    """Within the block an operation on tensors with numbers and others without gives one without."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inputs = (args, kwargs or {})
        if any(isinstance(leaf, Tensor) and leaf.device == META for leaf in tree_leaves(inputs)):
            inputs = tree_map_only(Tensor, lambda tensor: tensor.to(META), inputs)
        return func(*inputs[0], **inputs[1])


class Kept:
    """Counts the bytes that autograd keeps within a `with` block, each tensor's memory once.

    Args:
        others: tensors that are counted elsewhere.
    """

    def __init__(self, others: Sequence[Tensor]) -> None:
        self.others = {tensor.untyped_storage()._cdata for tensor in others}
        self.storages: dict[int, torch.UntypedStorage] = {}
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self._keep, lambda tensor: tensor)

    def _keep(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self.others:
            self.storages[storage._cdata] = storage
        return tensor

    @property
    def bytes(self) -> int:
        """So far."""
        return sum(storage.nbytes() for storage in self.storages.values())

    def __enter__(self) -> Kept:
        self.hooks.__enter__()
        return self

    def __exit__(self, *details: Any) -> None:
        self.hooks.__exit__(*details)


def operations_of(base: Base, settings: ExpertRecipe, part: Part) -> float:
    """Multiplications and additions of one part, forward and back: frozen weights need no gradient of their own."""
    config = base.model.config
    places = len(part.rows) * part.width
    again = int(settings.checkpoint_activations)
    weights = sum(d_out * d_in for d_out, d_in in base.lora.shapes.values())
    attention = part.width * config.num_hidden_layers * config.num_attention_heads * _head_width(config)  # half is seen
    low_rank = factor_numbers(base, settings.initial_rank)
    head = config.vocab_size * config.hidden_size
    each = (2 + again) * weights + (3 + again) * (attention + low_rank)
    return 2.0 * (places * each + 2 * part.answers * head)


def _head_width(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def product_speed(base: Base, device: torch.device, places: int, repeats: int = 3) -> float:
    """Operations a second of the largest adapted matrix times `places` rows on `device`, the best of `repeats`."""
    d_out, d_in = max(base.lora.shapes.values(), key=lambda shape: shape[0] * shape[1])
    rows = torch.ones(places, d_in, dtype=base.dtype, device=device)
    weight = torch.ones(d_out, d_in, dtype=base.dtype, device=device)
    best = float("inf")
    for _ in range(repeats + 1):
        start = time.perf_counter()
        product = rows @ weight.T
        float(product[0, 0])  # waits for an accelerator
        best = min(best, time.perf_counter() - start)
    return 2.0 * places * d_out * d_in / best


def free_memory(device: torch.device) -> int | None:
    """Bytes free on a device; None where the system does not tell."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    info = Path("/proc/meminfo")
    if not info.is_file():
        return None
    return next(int(line.split()[1]) * 1024 for line in info.read_text().splitlines() if line.startswith("MemAvailable"))


def estimate(
    base: Base, name: str, examples: Sequence[Example], settings: ExpertRecipe, device: torch.device
) -> Estimate:  # fmt: skip
    """What training `name` on these examples would take; `base` is an outline, `device` where it would be trained.

    Raises:
        MissingData: there are no examples. ConfigError: the steps cannot be planned.
    """
    if not examples:
        raise MissingData(f"no examples to train '{name}' on. See what there is: staf data list")
    steps = planned_steps(len(examples), settings)
    found = read(examples, settings, base.tokenizer)
    epochs = steps / -(-len(examples) // settings.batch_size)
    middle = sorted(part.tokens for part in found.parts)[len(found.parts) // 2]
    return Estimate(
        expert=name,
        base=base.name,
        parameters=sum(p.numel() for p in base.model.parameters()),
        dtype=str(base.dtype).removeprefix("torch."),
        device=str(device),
        memory=memory_of(base, settings, found.parts),
        free_bytes=free_memory(device),
        examples=len(examples),
        steps=steps,
        tokens=round(found.tokens * epochs),
        tokens_counted=found.counted,
        operations=sum(operations_of(base, settings, part) for part in found.parts) * epochs,
        operations_per_second=product_speed(base, device, middle),
    )
