"""What a training would take: memory by part, from the config of the base only, and time, from three measured steps.

Memory is counted on PyTorch's meta device, which knows shapes and holds no numbers: parameters there, and the bytes that a
forward pass saves for the backward pass, by running the training's own forward. Time needs the weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from staf.compute import ComputeOptions
from staf.data.example import Example, prompt_of
from staf.errors import MissingData, StafError
from staf.experts.recipe import ExpertRecipe
from staf.experts.train import ExpertTraining, gradient_checkpointing, trainable_shapes
from staf.lm.base import DEFAULT_BASE, load_tokenizer, resolve
from staf.lm.batches import encode, epoch_order, round_up
from staf.lm.lora import LoraModel
from staf.lm.model import Base, targets_of
from staf.lm.prefix_attention import register

META = torch.device("meta")
CHARS_PER_TOKEN = 4
"""Where there is no tokenizer."""
FLOAT = 4
"""Bytes of a float32."""
DRY_STEPS = 3


@dataclass(frozen=True)
class Estimate:
    """What one expert would take."""

    expert: str
    base: str
    parameters: int
    """of the base"""
    dtype: str
    device: str
    memory: dict[str, int]
    """bytes by part, of `memory_of`"""
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

    @property
    def total_bytes(self) -> int:
        """Memory of all parts together."""
        return sum(self.memory.values())

    def record(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {**asdict(self), "total_bytes": self.total_bytes}


def meta_model(base: str | None, dtype: torch.dtype) -> Base:
    """A base without numbers, from its config.json only: a hub id, a folder, a GGUF file, or None for the default.

    Raises:
        MissingData: there is no config that transformers reads. ExpertMismatch: its type has nothing to adapt.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    name = base if base is not None else DEFAULT_BASE
    path = str(resolve(base)) if base is None or base.endswith(".gguf") else base
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        with META:
            model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=register())
    except Exception as error:
        raise MissingData(
            f"no config of the base model {name} ({type(error).__name__}): a folder with config.json or a hub id was expected. "
            "Check the path, or put the model's config.json into a folder and name that."
        ) from error
    targets, layer_of = targets_of(model)
    tokenizer = None
    with suppress(StafError):
        tokenizer = load_tokenizer(path) if any(Path(path).glob("tokenizer*")) or not Path(path).is_dir() else None
    found = Base(
        {"name": name, "fingerprint": ""}, Path(path), model, tokenizer, LoraModel(model, targets), layer_of, dtype, META
    )
    trainable_shapes(found)
    return found


def token_counts(examples: Sequence[Example], tokenizer: Any, max_length: int) -> list[tuple[int, int]]:
    """Tokens of each example, and of its answer; without a tokenizer about a quarter of the characters."""
    if tokenizer is not None:
        items = [encode(example, tokenizer, max_length) for example in examples]
        return [(len(item.tokens), len(item.tokens) - item.answer_start) for item in items]
    answers = [min(len(example.answer) // CHARS_PER_TOKEN + 2, max_length // 2) for example in examples]
    prompts = [len(prompt_of(example.query, example.context)) // CHARS_PER_TOKEN + 1 for example in examples]
    return [(min(prompt + answer, max_length), answer) for prompt, answer in zip(prompts, answers, strict=True)]


def memory_of(base: Base, recipe: ExpertRecipe, options: ComputeOptions, counts: Sequence[tuple[int, int]]) -> dict[str, int]:
    """Bytes by part while one expert trains; only shapes of `base` are read, which may be a meta model."""
    params = recipe.initial_rank * sum(d_out + d_in + 1 for d_out, d_in in base.lora.shapes.values())
    lengths, largest = [length for length, _ in counts], (0, 0, 0, 0)  # tokens, rows, width, answer tokens
    for batch in epoch_order(lengths, recipe.batch_size, recipe.seed, 0):
        size, width = -(-len(batch) // options.gradient_accumulation_steps), round_up(max(lengths[i] for i in batch))
        for start in range(0, len(batch), size):
            rows = [counts[i] for i in batch[start : start + size]]
            largest = max(largest, (sum(length for length, _ in rows), len(rows), width, sum(answer for _, answer in rows)))
    copy = 0 if base.dtype == torch.float32 else params * base.dtype.itemsize
    return {
        "base": sum(p.numel() * p.element_size() for p in base.model.parameters()),
        "factors": params * FLOAT + copy + len(base.lora.layers) * recipe.initial_rank,  # with their mask
        "gradients": params * FLOAT,
        "optimiser": 2 * params * FLOAT,  # both moments
        "importance": 2 * params * FLOAT,  # both moving averages
        "activations": activations(base, recipe, options.gradient_checkpointing, *largest[1:3]),  # of the largest micro-batch
        "logits": 3 * round_up(largest[3]) * base.model.config.vocab_size * FLOAT,  # of its answer tokens, with gradients
    }


def activations(base: Base, recipe: ExpertRecipe, recomputed: bool, rows: int, width: int) -> int:
    """Bytes that the decoder saves for the backward pass of `rows` x `width` tokens, by running a meta model forward.

    Its factors are replaced. A formula of the config was off by 0.36 to 1.4 over six models.
    """

    def empty(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=base.dtype, device=META, requires_grad=True)

    rank = recipe.initial_rank
    factors = {n: (empty(d_out, rank), empty(rank, d_in), empty(rank)) for n, (d_out, d_in) in base.lora.shapes.items()}
    base.lora.attach(factors)
    base.lora.set_training(True, recipe.dropout)
    others = [*base.model.parameters(), *(tensor for b, a, _ in factors.values() for tensor in (b, a))]
    ids = torch.zeros(rows, width, dtype=torch.long, device=META)
    mask = torch.ones(rows, 1, width, width, dtype=torch.bool, device=META)
    with gradient_checkpointing(base, recomputed), saved_for_backward(others) as saved:
        base.hidden_states(ids, attention_mask=mask)  # without a mask one is made by looking at numbers
    found = sum(storage.nbytes() for storage in saved.values())
    if not recomputed:
        return found
    return found + activations(base, recipe, False, rows, width) // base.model.config.num_hidden_layers


@contextmanager
def saved_for_backward(others: Sequence[Tensor]) -> Iterator[dict[int, torch.UntypedStorage]]:
    """Collect the storages that autograd saves within the block, each once, without those of `others`."""
    known, found = {tensor.untyped_storage()._cdata for tensor in others}, dict[int, torch.UntypedStorage]()

    def save(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in known:
            found[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        yield found


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
    training = ExpertTraining(base, [encode(e, base.tokenizer, recipe.max_length) for e in examples], recipe, options)
    with training.running():
        reports = [training.run_step() for _ in range(min(DRY_STEPS, training.total))]
    measured = reports[1:] or reports
    return sum(report.seconds for report in measured) / sum(report.tokens for report in measured)
