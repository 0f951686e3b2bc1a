"""How a training is computed: options that change memory and speed, not what is computed, and the record of the machine."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from staf import __version__
from staf.config import Settings


class ComputeOptions(Settings):
    """Never part of a name or fingerprint, but recorded in every expert, router and result (`compute_record`)."""

    dtype: str | None = None
    """bfloat16, float16, float32, or nf4 for a base in four bits; None takes what the processor has instructions for"""
    device: str | None = None
    """a device of PyTorch, such as cuda or cpu; None takes the first GPU, or the CPU"""
    gradient_accumulation_steps: int = Field(1, ge=1)
    """micro-batches of a step: less memory, the same gradient"""
    gradient_checkpointing: bool = False
    """recompute each layer in the backward pass: the activations of one layer in memory, for one more forward"""
    save_steps: int = Field(50, ge=1)
    """steps between two checkpoints"""


def numerics(base: Any) -> dict[str, Any]:
    """dtype, device type and threads of a loaded base: what decides the bits of a result in addition to its settings."""
    import torch

    return {
        "dtype": str(base.dtype).removeprefix("torch."),
        "device": base.device.type,
        "threads": torch.get_num_threads() if base.device.type == "cpu" else None,
    }


def compute_record(base: Any, options: ComputeOptions | None = None) -> dict[str, Any]:
    """dtype, device, threads, versions and options of a computation on a base, as kept in experts, routers and results."""
    import torch
    import transformers

    options = options or ComputeOptions()
    return {
        **numerics(base),
        **({} if options.dtype is None else {"dtype": options.dtype}),
        **({"device_name": torch.cuda.get_device_name(base.device)} if base.device.type == "cuda" else {}),
        **options.model_dump(include={"gradient_accumulation_steps", "gradient_checkpointing"}),
        "versions": {"staf": __version__, "torch": torch.__version__, "transformers": transformers.__version__},
    }


def split_options(values: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Plain values of a recipe file or command in two: those of `ComputeOptions`, and the others."""
    own = {name: value for name, value in values.items() if name in ComputeOptions.model_fields}
    return own, {name: value for name, value in values.items() if name not in own}
