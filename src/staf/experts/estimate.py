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
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from staf.compute import ComputeOptions
from staf.data.example import Example, prompt_of
from staf.errors import MissingData
from staf.experts.recipe import ExpertRecipe
from staf.experts.train import ExpertTraining, gradient_checkpointing
from staf.lm.base import DEFAULT_BASE, Base, resolve, targets_of
from staf.lm.batches import encode, epoch_order, round_up
from staf.lm.cpu_attention import register
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
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

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
    tokenizer = None
    if not Path(path).is_dir() or any(Path(path).glob("[!.]*token*")):
        with suppress(OSError, ValueError):
            tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    lora = LoraModel(model, targets)
    return Base({"name": name, "fingerprint": ""}, Path(path), model, tokenizer, lora, layer_of, dtype, META)


def token_counts(examples: Sequence[Example], tokenizer: Any, max_length: int) -> list[tuple[int, int]]:
    """Tokens of each example, and of its answer; without a tokenizer about a quarter of the characters."""
    if tokenizer is not None:
        items = [encode(example, tokenizer, max_length) for example in examples]
        return [(len(item.tokens), len(item.tokens) - item.answer_start) for item in items]
    answers = [min(len(example.answer) // CHARS_PER_TOKEN + 2, max_length // 2) for example in examples]
    prompts = [len(prompt_of(example.query, example.context)) // CHARS_PER_TOKEN + 1 for example in examples]
    return [(min(prompt + answer, max_length), answer) for prompt, answer in zip(prompts, answers, strict=True)]


def memory_of(base: Base, recipe: ExpertRecipe, options: ComputeOptions, counts: Sequence[tuple[int, int]]) -> Memory:
    """Bytes by part; only shapes of `base` are read, which may be a meta model."""
    params = recipe.initial_rank * sum(d_out + d_in + 1 for d_out, d_in in base.lora.shapes.values())
    rows, width, answers = _largest_micro_batch(counts, recipe, options)
    return Memory(
        base=sum(p.numel() * p.element_size() for p in base.model.parameters()),
        factors=params * (FLOAT + base.dtype.itemsize) + len(base.lora.layers) * recipe.initial_rank,
        gradients=params * FLOAT,
        optimiser=2 * params * FLOAT,
        importance=2 * params * FLOAT,
        activations=activations(base, recipe, options.gradient_checkpointing, rows, width),
        logits=3 * round_up(answers) * base.model.config.vocab_size * FLOAT,
    )


def _largest_micro_batch(
    counts: Sequence[tuple[int, int]], recipe: ExpertRecipe, options: ComputeOptions
) -> tuple[int, int, int]:
    """Rows, width and answer tokens of the micro-batch of the first epoch with the most tokens."""
    lengths, best = [length for length, _ in counts], (0, 0, 0, 0)
    for batch in epoch_order(lengths, recipe.batch_size, recipe.seed, 0):
        size, width = -(-len(batch) // options.gradient_accumulation_steps), round_up(max(lengths[i] for i in batch))
        for start in range(0, len(batch), size):
            rows = [counts[i] for i in batch[start : start + size]]
            best = max(best, (sum(length for length, _ in rows), len(rows), width, sum(answer for _, answer in rows)))
    return best[1:]


def activations(base: Base, recipe: ExpertRecipe, recomputed: bool, rows: int, width: int) -> int:
    """Bytes that the decoder saves for the backward pass of `rows` x `width` tokens, by running a meta model forward.

    Its factors are replaced. A formula of the config was off by 0.36 to 1.4 over six models.
    """
    rank = recipe.initial_rank

    def empty(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=base.dtype, device=META)

    factors = {name: (empty(d_out, rank), empty(rank, d_in)) for name, (d_out, d_in) in base.lora.shapes.items()}
    base.lora.attach(factors)
    base.lora.set_rank_scale({name: empty(rank).requires_grad_() for name in factors})
    base.lora.set_training(True, recipe.dropout)
    others = [*base.model.parameters(), *(tensor for pair in factors.values() for tensor in pair)]
    ids, mask = torch.zeros(rows, width, dtype=torch.long), torch.ones(rows, 1, width, width, dtype=torch.bool)
    with gradient_checkpointing(base, recomputed), saved_for_backward(others) as saved, _MetaResults():
        base.hidden_states(ids, attention_mask=mask)  # without a mask one is made by looking at numbers
    found = sum(storage.nbytes() for storage in saved.values())
    if not recomputed:
        return found
    return found + activations(base, recipe, False, rows, width) // base.model.config.num_hidden_layers


class _MetaResults(TorchDispatchMode):
    """Within the block an operation on tensors with numbers and others without gives one without."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inputs = (args, kwargs or {})
        if any(isinstance(leaf, Tensor) and leaf.device == META for leaf in tree_leaves(inputs)):
            inputs = tree_map_only(Tensor, lambda tensor: tensor.to(META), inputs)
        return func(*inputs[0], **inputs[1])


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
    training = ExpertTraining(
        base, [encode(example, base.tokenizer, recipe.max_length) for example in examples], recipe, options
    )
    with training.running():
        reports = [training.run_step() for _ in range(min(DRY_STEPS, training.total))]
    measured = reports[1:] or reports
    return sum(report.seconds for report in measured) / sum(report.tokens for report in measured)
