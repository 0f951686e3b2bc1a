"""What a training would take: memory by part, from the config of the base only, and time, from three measured steps.

Memory is counted on PyTorch's meta device, which knows shapes and holds no numbers: parameters there, and the bytes that a
forward pass saves for the backward pass, by running the training's own forward. Time needs the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from staf.compute import ComputeOptions
from staf.data.example import Example, prompt_of
from staf.errors import MissingData
from staf.experts.recipe import ExpertRecipe
from staf.experts.train import ExpertTraining, gradient_checkpointing
from staf.lm.attention import register
from staf.lm.base import DEFAULT_BASE, Base, resolve, targets_of
from staf.lm.batches import encode, epoch_order, round_up
from staf.lm.lora import LoraModel

META = torch.device("meta")
CHARS_PER_TOKEN = 4
"""Where there is no tokenizer."""
FLOAT = 4
"""Bytes of a float32."""
DRY_STEPS = 3


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
    """saved for the backward pass by the largest micro-batch"""
    logits: int
    """of its answer tokens: log-probabilities and their gradients"""

    @property
    def total(self) -> int:
        """All parts together."""
        return sum(asdict(self).values())


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
    """without padding, in all steps"""
    tokens_counted: bool
    """by the tokenizer of the base; else a quarter of the characters"""
    seconds: float | None = None
    """of all steps at the measured speed; None where no weights are there to measure with, or they do not fit"""

    def record(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {**asdict(self), "total_bytes": self.memory.total}


def meta_model(base: str | None, dtype: torch.dtype) -> Base:
    """A base without numbers, from its config.json only: a hub id, a folder, a GGUF file, or None for the default.

    Raises:
        MissingData: there is no config. UnknownName: its type has no list of adapted modules.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    name = base if base is not None else DEFAULT_BASE
    path = str(resolve(base)) if base is None or base.endswith(".gguf") else base
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise MissingData(
            f"no config of the base model {name} ({type(error).__name__}): a folder with config.json or a hub id was expected. "
            "Check the path, or put the model's config.json into a folder and name that."
        ) from error
    targets, layer_of = targets_of(config)
    with META:
        model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=register())
    lora = LoraModel(model, targets)
    return Base({"name": name, "fingerprint": ""}, Path(path), model, _tokenizer(path), lora, layer_of, dtype, META)


def _tokenizer(path: str) -> Any:
    """The tokenizer, or None where there is none."""
    from transformers import AutoTokenizer

    if Path(path).is_dir() and not any(Path(path).glob("*token*")):
        return None
    try:
        return AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError):
        return None


def token_counts(examples: Sequence[Example], tokenizer: Any, max_length: int) -> list[tuple[int, int]]:
    """Tokens of each example, and of its answer; without a tokenizer about a quarter of the characters."""
    if tokenizer is not None:
        items = [encode(example, tokenizer, max_length) for example in examples]
        return [(len(item.tokens), len(item.tokens) - item.answer_start) for item in items]
    found = []
    for example in examples:
        answer = min(len(example.answer) // CHARS_PER_TOKEN + 2, max_length // 2)
        prompt = len(prompt_of(example.query, example.context)) // CHARS_PER_TOKEN + 1
        found.append((min(prompt + answer, max_length), answer))
    return found


def largest_micro_batch(
    counts: Sequence[tuple[int, int]], recipe: ExpertRecipe, options: ComputeOptions
) -> tuple[Tensor, Tensor]:
    """Token ids (B, T), all 0, and answer positions of the micro-batch of the first epoch with the most tokens."""
    lengths, best = [length for length, _ in counts], list[tuple[int, int]]()
    width = 0
    for batch in epoch_order(lengths, recipe.batch_size, recipe.seed, 0):
        size = -(-len(batch) // options.gradient_accumulation_steps)
        padded = round_up(max(lengths[i] for i in batch))
        for start in range(0, len(batch), size):
            rows = [counts[i] for i in batch[start : start + size]]
            if sum(n for n, _ in rows) > sum(n for n, _ in best):
                best, width = rows, padded
    answer = torch.zeros(len(best), width, dtype=torch.bool)
    for row, (length, predicted) in enumerate(best):
        answer[row, length - predicted : length] = True
    return torch.zeros(answer.shape, dtype=torch.long), answer


def memory_of(base: Base, recipe: ExpertRecipe, options: ComputeOptions, counts: Sequence[tuple[int, int]]) -> Memory:
    """Bytes by part; only shapes of `base` are read, which may be a meta model."""
    params = recipe.initial_rank * sum(d_out + d_in + 1 for d_out, d_in in base.lora.shapes.values())
    ids, answer = largest_micro_batch(counts, recipe, options)
    return Memory(
        base=sum(p.numel() * p.element_size() for p in base.model.parameters()),
        factors=params * (FLOAT + base.dtype.itemsize) + len(base.lora.layers) * recipe.initial_rank,
        gradients=params * FLOAT,
        optimiser=2 * params * FLOAT,
        importance=2 * params * FLOAT,
        activations=activations(base, recipe, options.gradient_checkpointing, ids),
        logits=3 * round_up(int(answer.sum())) * base.model.config.vocab_size * FLOAT,
    )


def activations(base: Base, recipe: ExpertRecipe, recomputed: bool, ids: Tensor) -> int:
    """Bytes that the decoder saves for the backward pass, by running a meta model forward; its factors are replaced."""
    rank = recipe.initial_rank

    def empty(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=base.dtype, device=META)

    factors = {name: (empty(d_out, rank), empty(rank, d_in)) for name, (d_out, d_in) in base.lora.shapes.items()}
    base.lora.attach(factors)
    base.lora.set_rank_scale({name: empty(rank).requires_grad_() for name in factors})
    base.lora.set_training(True, recipe.dropout)
    saved = SavedBytes([*base.model.parameters(), *(tensor for pair in factors.values() for tensor in pair)])
    with gradient_checkpointing(base, recomputed), saved, _MetaResults():
        # with a mask, as without one it is made by looking at numbers
        base.hidden_states(ids, attention_mask=torch.ones(len(ids), 1, ids.shape[1], ids.shape[1], dtype=torch.bool))
    if not recomputed:
        return saved.bytes
    return saved.bytes + activations(base, recipe, False, ids) // base.model.config.num_hidden_layers


class _MetaResults(TorchDispatchMode):
    """Within the block an operation on tensors with numbers and others without gives one without."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inputs = (args, kwargs or {})
        if any(isinstance(leaf, Tensor) and leaf.device == META for leaf in tree_leaves(inputs)):
            inputs = tree_map_only(Tensor, lambda tensor: tensor.to(META), inputs)
        return func(*inputs[0], **inputs[1])


class SavedBytes:
    """Counts the bytes that autograd saves within a `with` block, each tensor's memory once, without that of `others`."""

    def __init__(self, others: Sequence[Tensor]) -> None:
        self.others = {tensor.untyped_storage()._cdata for tensor in others}
        self.storages: dict[int, torch.UntypedStorage] = {}
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self._save, lambda tensor: tensor)

    def _save(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self.others:
            self.storages[storage._cdata] = storage
        return tensor

    @property
    def bytes(self) -> int:
        """So far."""
        return sum(storage.nbytes() for storage in self.storages.values())

    def __enter__(self) -> SavedBytes:
        self.hooks.__enter__()
        return self

    def __exit__(self, *details: Any) -> None:
        self.hooks.__exit__(*details)


def free_memory(device: torch.device) -> int | None:
    """Bytes free on a device; None where the system does not tell."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    info = Path("/proc/meminfo")
    if not info.is_file():
        return None
    return next(int(line.split()[1]) * 1024 for line in info.read_text().splitlines() if line.startswith("MemAvailable"))


def estimate(
    base: Base, name: str, examples: Sequence[Example], recipe: ExpertRecipe, device: torch.device,
    options: ComputeOptions | None = None,
) -> Estimate:  # fmt: skip
    """What training `name` on these examples would take, without its time (`seconds_per_token`).

    Args:
        base: a meta model. device: where the expert would be trained.

    Raises:
        MissingData: there are no examples.
    """
    if not examples:
        raise MissingData(f"no examples to train '{name}' on. List the data sets: staf data list")
    steps = recipe.planned_steps(len(examples))
    counts = token_counts(examples, base.tokenizer, recipe.max_length)
    epochs = steps / -(-len(examples) // recipe.batch_size)
    return Estimate(
        expert=name,
        base=base.name,
        parameters=sum(p.numel() for p in base.model.parameters()),
        dtype=str(base.dtype).removeprefix("torch."),
        device=str(device),
        memory=memory_of(base, recipe, options or ComputeOptions(), counts),
        free_bytes=free_memory(device),
        examples=len(examples),
        steps=steps,
        tokens=round(sum(length for length, _ in counts) * epochs),
        tokens_counted=base.tokenizer is not None,
    )


def seconds_per_token(base: Base, examples: Sequence[Example], recipe: ExpertRecipe, options: ComputeOptions) -> float:
    """Measured on a loaded base: the steps of a training after its first one, which warms up. No state is left."""
    training = ExpertTraining(
        base, [encode(example, base.tokenizer, recipe.max_length) for example in examples], recipe, options
    )
    base.lora.set_training(True, recipe.dropout)
    try:
        with gradient_checkpointing(base, options.gradient_checkpointing):
            reports = [training.run_step() for _ in range(min(DRY_STEPS, training.total))]
    finally:
        base.lora.set_training(False)
        base.lora.detach()
    measured = reports[1:] or reports
    return sum(report.seconds for report in measured) / sum(report.tokens for report in measured)
